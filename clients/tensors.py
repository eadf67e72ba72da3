"""A model's inputs and outputs as its server describes them, and whether arrays fit."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from clients.errors import BadAnswerError, InvalidInputError

_TOO_MANY = re.compile(r"batch-size must be <= (\d+)")

Arrays = dict[str, NDArray[Any]]
datatype_of = lru_cache(256)(np_to_triton_dtype)  # which compares with one type after the other


@dataclass(frozen=True)
class Tensor:
    """An input or output. Shapes are those of a whole request, with the batch; -1 may be any size."""

    name: str
    datatype: str  # "FP32", "BYTES"
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} {list(self.shape)}"

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(a in (-1, b) for a, b in zip(self.shape, shape, strict=True))


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        max_batch_size: 0: the first dimension is no batch, and nothing is split.
        optional: Names of inputs that may be left away.
    """

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int = 0
    optional: frozenset[str] = frozenset()

    def __str__(self) -> str:
        batches = f", up to {self.max_batch_size} rows a request" if self.max_batch_size else ""
        takes, gives = ("; ".join(map(str, tensors)) for tensors in (self.inputs, self.outputs))
        return f"{self.model}{batches}\ntakes  {takes}\ngives  {gives}"

    @classmethod
    def of(cls, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Self:
        """From the server's metadata and configuration of the model, as JSON.

        Raises:
            BadAnswerError: it is none.
        """
        try:
            inputs, outputs = (
                tuple(Tensor(t["name"], t["datatype"], tuple(map(int, t["shape"]))) for t in metadata.get(kind, ()))
                for kind in ("inputs", "outputs")
            )
            optional = frozenset(t["name"] for t in config.get("input", ()) if t.get("optional"))
            return cls(metadata["name"], inputs, outputs, int(config.get("max_batch_size", 0)), optional)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadAnswerError(f"what the server says of a model cannot be read: {error!r}") from error

    def checked(self, given: Mapping[str, ArrayLike]) -> Arrays:
        """The arrays to send.

        Raises:
            InvalidInputError: a name, type or shape is not the model's, with the one that is.
        """
        if given.keys() != (names := self._names):
            if unknown := sorted(given.keys() - names):
                raise self._wrong(f"it has no input {', '.join(map(repr, unknown))}")
            if missing := sorted(names - self.optional - given.keys()):
                raise self._wrong(f"the input {', '.join(map(repr, missing))} is missing")
        arrays = {t.name: self._fitting(t, given[t.name]) for t in self.inputs if t.name in given}
        if self.max_batch_size and len(arrays) > 1 and len({len(array) for array in arrays.values()}) > 1:
            sizes = ", ".join(f"{name}: {len(array)}" for name, array in arrays.items())
            raise self._wrong(f"the inputs differ in the size of their batch: {sizes}")
        return arrays

    def split(self, arrays: Arrays) -> Iterator[Arrays]:
        """In pieces of at most `max_batch_size` rows, in order; an empty batch is one piece."""
        rows = len(next(iter(arrays.values()))) if arrays and self.max_batch_size else 0
        if rows <= self.max_batch_size:
            yield arrays
            return
        for first in range(0, rows, self.max_batch_size):
            yield {name: array[first : first + self.max_batch_size] for name, array in arrays.items()}

    def learned(self, refusal: str) -> Self | None:
        """With the batch limit that a refusal tells of, where the server keeps back its configuration."""
        found = None if self.max_batch_size else _TOO_MANY.search(refusal)
        return replace(self, max_batch_size=int(found[1])) if found else None

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in self.inputs)

    def _fitting(self, tensor: Tensor, given: ArrayLike) -> NDArray[Any]:
        try:
            array = _strings(given) if tensor.datatype == "BYTES" else np.asarray(given)
        except (TypeError, ValueError) as error:  # rows of different lengths; a text that UTF-8 does not have
            raise self._wrong(f"{tensor.name} is no array: {error}") from error
        found = datatype_of(array.dtype)
        if found != tensor.datatype:
            raise self._wrong(
                f"{tensor.name} is {array.dtype}, and not {_numpy_name(tensor.datatype)}",
                hint=f"{tensor.name}.astype({_numpy_name(tensor.datatype)!r}), if nothing is lost by that",
            )
        if not tensor.fits(array.shape) or (self.max_batch_size and not array.ndim):
            raise self._wrong(
                f"{tensor.name} has the shape {list(array.shape)}, which does not fit {list(tensor.shape)}",
                hint=f"one row is a batch, too: {tensor.name}[None]" if tensor.fits((1, *array.shape)) else None,
            )
        if self.max_batch_size and not len(array):
            raise self._wrong(f"{tensor.name} has no rows")
        return array

    def _wrong(self, what: str, hint: str | None = None) -> InvalidInputError:
        takes = "; ".join(map(str, self.inputs))
        return InvalidInputError(f"{self.model}: {what}", note=f"it takes {takes}", hint=hint)


class Known:
    """Signatures that were asked for. One that a refusal casts doubt on is forgotten, if it is not quite new: bad input
    must not have every request asked twice.
    """

    _NEW_S = 1.0

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Signature, float]] = {}

    def get(self, model: str, version: str) -> Signature | None:
        found = self._known.get((model, version))
        return found and found[0]

    def keep(self, model: str, version: str, signature: Signature) -> Signature:
        self._known[model, version] = signature, time.monotonic()
        return signature

    def doubt(self, model: str, version: str) -> bool:
        """Whether it is forgotten."""
        found = self._known.get((model, version))
        old = found is not None and time.monotonic() - found[1] > self._NEW_S
        if old:
            self._known.pop((model, version), None)
        return old


def strings_content(array: NDArray[Any]) -> bytes:
    """Strings as Triton has them on the wire: each with its length before it."""
    return serialize_byte_tensor(array).item() if array.size else b""


def joined(pieces: Sequence[Arrays]) -> Arrays:
    """The answers to the pieces of a batch, as one."""
    return pieces[0] if len(pieces) == 1 else {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}


def _strings(given: ArrayLike) -> NDArray[Any]:
    """Bytes as they are, text in UTF-8. Numpy would take trailing zeros off bytes in an array of type S.

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
        encoded[i] = item.encode() if isinstance(item, str) else bytes(item)  # numpy's, too, of which str() were sent
    return encoded


def _numpy_name(datatype: str) -> str:
    if datatype == "BYTES":
        return "bytes"
    return str(np.dtype(triton_to_np_dtype(datatype)))
