"""The network of an ensemble in this process, run by onnxruntime over all requests that have one shape."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from ort_session.network import Network
from python_based.config import ModelConfig
from python_based.errors import ModelError, RequestError

from one_process.call import Call
from one_process.failures import Failure, unexpected

if TYPE_CHECKING:
    from one_process.pipeline import Arrays


class NetworkStep:
    """A graph that its own configuration describes.

    Args:
        wanted: The outputs that are asked of it.

    Raises:
        ModelError: it does not load.
    """

    def __init__(self, call: Call, wanted: Sequence[str]) -> None:
        where = {"model_repository": str(call.folder), "model_version": call.version}
        kind = {"model_instance_kind": "CPU", "model_instance_device_id": "0"}
        config = ModelConfig.of({"model_config": json.dumps(call.config), **where, **kind})
        self._network = Network(config)
        self._batched = call.batched
        self._wanted = wanted
        self._dims = {tensor.name: tensor.dims for tensor in config.outputs}
        self._varies = any(-1 in tensor.dims[call.batched :] for tensor in config.inputs)

    def answer(self, requests: "Sequence[Arrays]") -> "Sequence[Arrays | Exception]":
        """Return what each request gets. Raises nothing."""
        found: list[Any] = [None] * len(requests)
        for places in self._groups(requests):
            answers = self._answers([requests[place] for place in places])
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    def _groups(self, requests: "Sequence[Arrays]") -> Iterator[Sequence[int]]:
        """Yield the places of requests that can be run together."""
        if not self._batched:
            yield from ([place] for place in range(len(requests)))
            return
        if not self._varies:
            yield range(len(requests))
            return
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(tuple(array.shape[1:] for array in request.values()), []).append(place)
        yield from groups.values()

    def _answers(self, requests: "Sequence[Arrays]") -> "list[Arrays | Exception]":
        """Run requests together; where that fails they are halved until those that fail are alone."""
        try:
            results = dict(zip(self._wanted, self._network.run(requests, self._wanted), strict=True))
            return self._parts(results, requests)
        except Exception as error:
            if len(requests) == 1:
                return [_told(error)]
        half = len(requests) // 2
        return [*self._answers(requests[:half]), *self._answers(requests[half:])]

    def _parts(self, results: dict[str, NDArray[Any]], requests: "Sequence[Arrays]") -> "list[Arrays | Exception]":
        """Give each request its rows."""
        if not self._batched:
            return [{name: r if r.ndim else r.reshape(self._dims[name]) for name, r in results.items()}]
        counts = [len(next(iter(request.values()))) for request in requests]
        for name, result in results.items():
            rows = result if result.ndim else result.reshape(self._dims[name][1:])
            if rows.shape[:1] != (sum(counts),):
                raise ModelError(f"{name!r} is {list(rows.shape)}, not a row for each of {sum(counts)}")
            results[name] = rows
        parts: list[Any] = []
        start = 0
        for count in counts:
            parts.append({name: rows[start : start + count] for name, rows in results.items()})
            start += count
        return parts


def _told(error: Exception) -> Failure:
    if isinstance(error, RequestError):
        return Failure(str(error), its_fault=True)
    return Failure(str(error), str(error)) if isinstance(error, ModelError) else unexpected(error)
