"""A model's inputs and outputs as its server describes them, and the arrays that fit them."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from clients.errors import InvalidInputError, InvalidResponseError

_NOT_SPLIT = "up to max_batch_size rows are not split, and returned as they are"
_BATCH_LIMIT = re.compile(r"batch-size must be <= (\d+)")

Arrays = dict[str, NDArray[Any]]
datatype_of = lru_cache(256)(np_to_triton_dtype)  # cached, as it compares with one type after the other


@lru_cache(64)  # as above
def numpy_type(datatype: str) -> Any:
    """Of a datatype by Triton's name.

    Raises:
        ValueError: there is none.
    """
    if (found := triton_to_np_dtype(datatype)) is None:
        raise ValueError(f"unknown datatype {datatype!r}")
    return found


@dataclass(frozen=True)
class Tensor:
    """An input or output. Its shape is that of a whole request, batch included; -1 may be any size."""

    name: str
    datatype: str  # "FP32", "BYTES"
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} {list(self.shape)}"

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(a in (-1, b) for a, b in zip(self.shape, shape, strict=True))


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model.

    Attributes:
        max_batch_size: 0: the first dimension is not a batch, and nothing is split.
        optional: Names of inputs that may be omitted.
    """

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int = 0
    optional: frozenset[str] = frozenset()

    def __str__(self) -> str:
        batches = f", up to {self.max_batch_size} rows per request" if self.max_batch_size else ""
        inputs, outputs = ("; ".join(map(str, tensors)) for tensors in (self.inputs, self.outputs))
        return f"{self.model}{batches}\ninputs   {inputs}\noutputs  {outputs}"

    @classmethod
    def of(cls, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Self:
        """From the server's metadata and configuration of the model, as JSON.

        Raises:
            InvalidResponseError: they are not that.
        """
        try:
            inputs, outputs = (
                tuple(Tensor(t["name"], t["datatype"], tuple(map(int, t["shape"]))) for t in metadata.get(kind, ()))
                for kind in ("inputs", "outputs")
            )
            optional = frozenset(t["name"] for t in config.get("input", ()) if t.get("optional"))
            return cls(metadata["name"], inputs, outputs, int(config.get("max_batch_size", 0)), optional)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidResponseError(f"invalid metadata or configuration of a model: {error!r}") from error

    def validated(self, given: Mapping[str, ArrayLike]) -> Arrays:
        """The arrays to send.

        Raises:
            InvalidInputError: a name, type or shape is not the model's; the message has the one that is.
        """
        if given.keys() != (names := self._names):
            if unknown := sorted(given.keys() - names):
                raise self._invalid(f"it has no input {', '.join(map(repr, unknown))}")
            if missing := sorted(names - self.optional - given.keys()):
                raise self._invalid(f"the input {', '.join(map(repr, missing))} is missing")
        arrays = {t.name: self._fitting(t, given[t.name]) for t in self.inputs if t.name in given}
        if self.max_batch_size and len(arrays) > 1 and len({len(array) for array in arrays.values()}) > 1:
            sizes = ", ".join(f"{name}: {len(array)}" for name, array in arrays.items())
            raise self._invalid(f"the inputs have different batch sizes: {sizes}")
        return arrays

    def split(self, arrays: Arrays) -> Iterator[Arrays]:
        """In chunks of at most `max_batch_size` rows, in order."""
        rows = rows_of(arrays) if arrays and self.max_batch_size else 0
        if rows <= self.max_batch_size:
            yield arrays
            return
        for first in range(0, rows, self.max_batch_size):
            yield {name: array[first : first + self.max_batch_size] for name, array in arrays.items()}

    def with_limit_from(self, message: str) -> Self | None:
        """With the batch limit that a server named in rejecting a request, if its configuration is not known."""
        found = None if self.max_batch_size else _BATCH_LIMIT.search(message)
        return replace(self, max_batch_size=int(found[1])) if found else None

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in self.inputs)

    def _fitting(self, tensor: Tensor, given: ArrayLike) -> NDArray[Any]:
        try:
            array = _strings(given) if tensor.datatype == "BYTES" else np.asarray(given)
        except (TypeError, ValueError) as error:  # rows of different lengths; a text that UTF-8 does not have
            raise self._invalid(f"{tensor.name} cannot be made an array: {error}") from error
        found = datatype_of(array.dtype)
        if found != tensor.datatype:
            raise self._invalid(
                f"{tensor.name} has the dtype {array.dtype}, and must have {_numpy_name(tensor.datatype)}",
                hint=f"{tensor.name}.astype({_numpy_name(tensor.datatype)!r}), if nothing is lost by that",
            )
        if not tensor.fits(array.shape) or (self.max_batch_size and not array.ndim):
            raise self._invalid(
                f"{tensor.name} has the shape {list(array.shape)}, which does not fit {list(tensor.shape)}",
                hint=f"add the batch dimension: {tensor.name}[None]" if tensor.fits((1, *array.shape)) else None,
            )
        if self.max_batch_size and not len(array):
            raise self._invalid(f"{tensor.name} has no rows")
        return array

    def _invalid(self, what: str, hint: str | None = None) -> InvalidInputError:
        inputs = "; ".join(map(str, self.inputs))
        return InvalidInputError(f"{self.model}: {what}", note=f"its inputs are {inputs}", hint=hint)


class SignatureCache:
    """Signatures of models, by name and version, as the servers described them."""

    _MIN_AGE_S = 1.0  # of one that is dropped: bad input must not have every request describe its model anew

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Signature, float]] = {}

    def get(self, model: str, version: str) -> Signature | None:
        found = self._known.get((model, version))
        return found and found[0]

    def put(self, model: str, version: str, signature: Signature) -> Signature:
        self._known[model, version] = signature, time.monotonic()
        return signature

    def drop_if_old(self, model: str, version: str) -> bool:
        """Forget one that a rejected request casts doubt on; whether it was forgotten."""
        found = self._known.get((model, version))
        old = found is not None and time.monotonic() - found[1] > self._MIN_AGE_S
        if old:
            self._known.pop((model, version), None)
        return old


def encoded_strings(array: NDArray[Any]) -> bytes:
    """BYTES as Triton has them on the wire: each element with its length before it."""
    return serialize_byte_tensor(array).item() if array.size else b""


def rows_of(arrays: Arrays) -> int:
    """The size of a batch."""
    return len(next(iter(arrays.values())))


def concatenated(chunks: Sequence[Arrays], rows: Sequence[int]) -> Arrays:
    """The outputs of the chunks of a batch, as those of the whole.

    Args:
        rows: How many were sent in each chunk.

    Raises:
        InvalidResponseError: a chunk has another number of rows, or the chunks do not fit together.
    """
    for chunk, sent in zip(chunks, rows, strict=True):
        for name, array in chunk.items():
            if array.shape[:1] != (sent,):
                raise InvalidResponseError(
                    f"{name} has the shape {list(array.shape)} for {sent} rows of a batch that was split",
                    hint=_NOT_SPLIT,
                )
    try:
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    except (KeyError, ValueError) as error:  # what is padded to the longest of a batch, say
        raise InvalidResponseError(
            f"the outputs of a batch that was split do not fit together: {error}", hint=_NOT_SPLIT
        ) from error


def _strings(given: ArrayLike) -> NDArray[Any]:
    """Bytes as they are, and text in UTF-8. NumPy would take trailing zeros off bytes in an array of type S.

    Raises:
        TypeError: it is neither.
        ValueError: it has rows of different lengths, or a text that UTF-8 does not have.
    """
    array = given if isinstance(given, np.ndarray) else np.asarray(given, dtype=np.object_)
    if array.dtype.kind not in "OU" or {*map(type, array.flat)} <= {bytes}:
        return array
    encoded = np.empty(array.shape, np.object_)
    for i, item in np.ndenumerate(array):
        if not isinstance(item, bytes | str):
            raise TypeError(f"{item!r} is neither bytes nor text")
        encoded[i] = item.encode() if isinstance(item, str) else bytes(item)  # of np.bytes_, str() would be sent
    return encoded


def _numpy_name(datatype: str) -> str:
    if datatype == "BYTES":
        return "bytes"
    return str(np.dtype(triton_to_np_dtype(datatype)))
