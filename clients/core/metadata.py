"""A model's inputs and outputs as its server describes them, and the check of what is to be sent against them."""

import re
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clients.core.tensors import Arrays, datatype_of, numpy_type, strings
from clients.errors import InvalidInputError, InvalidResponseError
from contracts.entities import records

_BATCH_LIMIT = re.compile(r"batch-size must be <= (\d+)")


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output. Its shape is that of a whole request, batch included; -1 may be any size."""

    name: str
    datatype: str  # "FP32", "BYTES"
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} {list(self.shape)}"

    def fits(self, shape: Sequence[int]) -> bool:
        """Tell whether an array of this shape may be sent as it."""
        return len(shape) == len(self.shape) and all(a in (-1, b) for a, b in zip(self.shape, shape, strict=True))


@dataclass(frozen=True)
class ModelMetadata:
    """The inputs and outputs of a model.

    Attributes:
        max_batch_size: 0: the first dimension is not a batch, and nothing is split.
        optional: Names of inputs that may be omitted.
    """

    model: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    max_batch_size: int = 0
    optional: frozenset[str] = frozenset()

    def __str__(self) -> str:
        batches = f", up to {self.max_batch_size} rows per request" if self.max_batch_size else ""
        inputs, outputs = ("; ".join(map(str, tensors)) for tensors in (self.inputs, self.outputs))
        return f"{self.model}{batches}\ninputs   {inputs}\noutputs  {outputs}"

    @classmethod
    def of(cls, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Self:
        """Read the server's metadata and configuration of the model, as JSON.

        Raises:
            InvalidResponseError: they are not that.
        """
        try:
            inputs, outputs = (
                tuple(
                    TensorMetadata(t["name"], t["datatype"], tuple(map(int, t["shape"])))
                    for t in metadata.get(kind, ())
                )
                for kind in ("inputs", "outputs")
            )
            optional = frozenset(t["name"] for t in config.get("input", ()) if t.get("optional"))
            return cls(metadata["name"], inputs, outputs, int(config.get("max_batch_size", 0)), optional)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidResponseError(f"invalid metadata or configuration of a model: {error!r}") from error

    def validated(self, given: Mapping[str, ArrayLike]) -> Arrays:
        """Make the arrays to send of what was given.

        Raises:
            InvalidInputError: a name, type or shape is not the model's; the message has the one that is.
        """
        if given.keys() != self._names or self.takes_records:
            self._check_names(given.keys())
        arrays = {t.name: self._fitting(t, given[t.name]) for t in self.inputs if t.name in given}
        if self.max_batch_size and len(arrays) > 1 and len({len(array) for array in arrays.values()}) > 1:
            sizes = ", ".join(f"{name}: {len(array)}" for name, array in arrays.items())
            raise self._invalid(f"the inputs have different batch sizes: {sizes}")
        return arrays

    def with_limit_from(self, message: str) -> Self | None:
        """Learn the batch limit that a server named in rejecting a request, if its configuration is not known."""
        found = None if self.max_batch_size else _BATCH_LIMIT.search(message)
        return replace(self, max_batch_size=int(found[1])) if found else None

    @cached_property
    def takes_records(self) -> bool:
        """Whether one input, `records`, may be given in place of all others (contracts.entities.records)."""
        return records.taken({t.name: (t.datatype, t.shape[1:], t.name in self.optional) for t in self.inputs})

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in self.inputs)

    def _check_names(self, given: Set[str]) -> None:
        if unknown := sorted(given - self._names):
            raise self._invalid(f"it has no input {', '.join(map(repr, unknown))}")
        beside = sorted(given - {records.NAME})
        if self.takes_records and records.NAME in given:
            if beside:
                raise self._invalid(
                    f"{records.NAME} is given beside {', '.join(beside)}: it takes the one or the others"
                )
            return
        can_be_omitted = {records.NAME} if self.takes_records else self.optional
        if missing := sorted(self._names - can_be_omitted - given):
            raise self._invalid(f"the input {', '.join(map(repr, missing))} is missing")

    def _fitting(self, tensor: TensorMetadata, given: ArrayLike) -> NDArray[Any]:
        try:
            array = strings(given) if tensor.datatype == "BYTES" else np.asarray(given)
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


class MetadataCache:
    """Metadata of models, by name and version, as the servers described them."""

    _MIN_AGE_S = 1.0  # of one that is dropped: bad input must not have every request describe its model anew

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[ModelMetadata, float]] = {}

    def get(self, model: str, version: str) -> ModelMetadata | None:
        """Return what is known, or None."""
        found = self._known.get((model, version))
        return found and found[0]

    def put(self, model: str, version: str, metadata: ModelMetadata) -> ModelMetadata:
        """Remember it, and return it."""
        self._known[model, version] = metadata, time.monotonic()
        return metadata

    def drop_if_old(self, model: str, version: str) -> bool:
        """Forget what a rejected request casts doubt on; whether it was forgotten."""
        found = self._known.get((model, version))
        old = found is not None and time.monotonic() - found[1] > self._MIN_AGE_S
        if old:
            self._known.pop((model, version), None)
        return old


def _numpy_name(datatype: str) -> str:
    """Return the dtype as a caller would write it."""
    if datatype == "BYTES":
        return "bytes"
    try:
        return str(np.dtype(numpy_type(datatype)))
    except ValueError:  # of a server that is newer than this library
        return datatype
