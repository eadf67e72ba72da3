"""What a tensor's values are in JSON: the type that Pydantic checks, and arrays of them and back.

Text is a string; bytes that are no UTF-8 are {"base64": "…"}. A number that is not known, NaN, is null.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from types import GenericAlias
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator

from gateway.triton.models import Tensor

_FEW, _SHORT = 16, 512  # values, and bytes of text, that are recorded as they are
_INTEGERS = {f"{sign}INT{bits}": bits for sign in ("", "U") for bits in (8, 16, 32, 64)}
_FLOATS = {
    "FP16": 65504.0,
    "BF16": 3.3895313892515355e38,
    "FP32": 3.4028234663852886e38,
    "FP64": 1.7976931348623157e308,
}
NUMPY: dict[str, Any] = {
    "BOOL": np.bool_,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
    **{name: np.dtype(name.lower()) for name in _INTEGERS},
}


class Base64(BaseModel):
    """Bytes, as JSON can have them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base64: StrictStr = Field(examples=["iVBORw0KGgo="], json_schema_extra={"format": "byte"})

    @field_validator("base64")
    @classmethod
    def _is_that(cls, text: str) -> str:
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("it is no base64") from error
        return text


def annotation(tensor: Tensor) -> Any:
    """Return the type of one row of a tensor: of dims [1] a value, else a list of as many, nested as the dims are.

    Raises:
        ValueError: JSON has nothing for this datatype.
    """
    found = _element(tensor.datatype)
    if tensor.dims in ((1,), ()):
        return found
    for size in reversed(tensor.dims):
        found = list_of(found) if size < 0 else list_of(found, Field(min_length=size, max_length=size))
    return found


def list_of(kind: Any, told: Any = None) -> Any:
    """Return the type of lists of a type that is known only here."""
    found: Any = GenericAlias(list, (kind,))
    return found if told is None else Annotated[found, told]


def in_words(tensor: Tensor) -> str:
    """Say what one row of a tensor must be, for an error: "a number (FP32)", "a list of 3 numbers (FP32)"."""
    one, many = _WORDS.get(tensor.datatype, ("an integer", "integers"))
    if tensor.dims in ((1,), ()):
        return f"{one} ({tensor.datatype})"
    size = " × ".join("any" if dim < 0 else str(dim) for dim in tensor.dims)
    return f"a list of {size} {many} ({tensor.datatype})"


def array(tensor: Tensor, rows: Sequence[Any], *, batched: bool) -> NDArray[Any]:
    """Make the array of checked rows: [B, *dims], or dims alone where the model has no batch.

    Raises:
        ValueError: the rows of a tensor whose size is free have different sizes.
    """
    if tensor.datatype == "BYTES":
        return _of_bytes(tensor, rows, batched)
    if tensor.datatype in _FLOATS:
        rows = _with_nan(rows)
    found = np.asarray(rows, NUMPY[tensor.datatype])
    return found.reshape(-1, *tensor.dims) if batched and -1 not in tensor.dims else found


def plain(values: NDArray[Any]) -> Any:
    """Return an array as JSON has it: nested lists, NaN as null, text as text."""
    if values.dtype == np.object_:
        return _texts(values.tolist())
    found = values.tolist()
    return _with_null(found) if values.dtype.kind == "f" and not np.isfinite(values).all() else found


def row(tensor: Tensor, values: NDArray[Any]) -> list[Any]:
    """Return the rows of an output, [B, *dims], as `annotation` has them: one of dims [1] is a value."""
    return plain(values[:, 0] if tensor.dims == (1,) else values)  # type: ignore[no-any-return]


def example(tensor: Tensor) -> Any:
    """Make up one row of a tensor, where no real one is known."""
    found: Any = {"BOOL": True, "BYTES": "text"}.get(tensor.datatype, 1 if tensor.datatype in _INTEGERS else 0.5)
    if tensor.dims in ((1,), ()):
        return found
    for size in reversed(tensor.dims):
        found = [found] * (min(size, 4) if size > 0 else 1)
    return found


def summary(arrays: Mapping[str, NDArray[Any]], *, texts: bool) -> dict[str, Any]:
    """Return what is recorded of tensors: a few numbers themselves, of more their range, of text its length.

    Args:
        texts: Whether a few short texts are recorded, too: labels that were answered are, what was asked is not.
    """
    return {name: _summary(array, texts) for name, array in arrays.items()}


def _summary(values: NDArray[Any], texts: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"shape": list(values.shape)}
    if values.dtype == np.object_:
        size = sum(map(len, values.flat))
        shown = texts and values.size <= _FEW and size <= _SHORT
        return {**found, "bytes": size, **({"values": plain(values.reshape(-1))} if shown else {})}
    if values.size <= _FEW:
        return {**found, "values": plain(values.reshape(-1))}
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    missing = values.size - known.size
    if not known.size:
        return {**found, "missing": missing}
    return {
        **found,
        "missing": missing,
        "least": float(known.min()),
        "mean": float(known.mean(dtype=np.float64)),
        "most": float(known.max()),
    }


_WORDS = {"BOOL": ("true or false", "booleans"), "BYTES": ("a text, or bytes as {base64}", "texts")}
_WORDS |= dict.fromkeys(_FLOATS, ("a number, or null if it is not known", "numbers"))


def _element(datatype: str) -> Any:
    if datatype == "BOOL":
        return StrictBool
    if datatype == "BYTES":
        return StrictStr | Base64
    if datatype in _FLOATS and datatype in NUMPY:
        most = _FLOATS[datatype]
        return Annotated[StrictFloat, Field(ge=-most, le=most, allow_inf_nan=False)] | None
    if (bits := _INTEGERS.get(datatype)) is None:
        raise ValueError(f"JSON has nothing for {datatype}")
    low, high = (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return Annotated[StrictInt, Field(ge=low, le=high)]


def _of_bytes(tensor: Tensor, rows: Sequence[Any], batched: bool) -> NDArray[Any]:
    flat: list[bytes] = []
    _flatten(rows, flat)
    found = np.empty(len(flat), np.object_)
    found[:] = flat
    return found.reshape(len(rows), *(tensor.dims if -1 not in tensor.dims else (-1,))) if batched else found


def _flatten(value: Any, into: list[bytes]) -> None:
    if isinstance(value, list | tuple):
        for each in value:
            _flatten(each, into)
    elif isinstance(value, str):
        into.append(value.encode())
    elif isinstance(value, bytes):
        into.append(value)
    else:
        into.append(base64.b64decode(value["base64"]))


def _with_nan(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_nan(each) for each in value]
    return math.nan if value is None else value


def _with_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_null(each) for each in value]
    return value if math.isfinite(value) else None


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(each) for each in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
