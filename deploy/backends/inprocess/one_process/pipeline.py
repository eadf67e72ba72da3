"""The steps of an ensemble over the requests of one batch; what is wrong with a request fails it, and no other."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from one_process.call import Call, Port, fits
from one_process.failures import Failure

Arrays = Mapping[str, NDArray[Any]]  # tensors of a request by name, [rows, …] where the models take batches


class Step(Protocol):
    """What a step does, be it Python or a network."""

    def answer(self, requests: Sequence[Arrays]) -> Sequence[Arrays | Exception]:
        """Return what each request gets: its outputs, or why it has none. Raises nothing."""


class Pipeline:
    """The steps of an ensemble. One that it calls twice is loaded once.

    Raises:
        ModelError: one does not load.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        loaded: dict[str, Step] = {}
        for call in calls:
            if call.model not in loaded:
                loaded[call.model] = _load(call, {p.name for c in calls if c.model == call.model for p in c.outputs})
        self._steps = [(call, loaded[call.model]) for call in calls]

    def answer(self, requests: Sequence[Arrays]) -> list[dict[str, NDArray[Any]] | Exception]:
        """Return all tensors of the ensemble that each request has got, or why it gets none."""
        found: list[Any] = [dict(request) for request in requests]
        for call, step in self._steps:
            given: dict[int, Arrays] = {}
            for place, tensors in enumerate(found):
                if isinstance(tensors, dict):
                    inward = _inward(call, tensors)
                    if isinstance(inward, Failure):
                        found[place] = inward
                    else:
                        given[place] = inward
            answers = step.answer([*given.values()]) if given else ()
            for place, answer in zip(given, answers, strict=True):
                failure = answer if isinstance(answer, Exception) else _outward(call, answer, found[place])
                if failure is not None:
                    found[place] = failure
        return found


def _inward(call: Call, tensors: Arrays) -> dict[str, NDArray[Any]] | Failure:
    """Return a step's inputs, in the shapes that it takes; or why it takes them not, in Triton's words."""
    given: dict[str, NDArray[Any]] = {}
    rows = 0
    for port in call.inputs:
        array = tensors.get(port.shared)
        if array is None:
            if port.optional:
                continue
            return _refused(f"input {port.name!r} is not given for model {call.model!r}")
        if not fits(array, port, port.dims, call.batched):
            expected = f"Expected {[*(-1,) * call.batched, *port.dims]}, got {[*array.shape]}"
            return _refused(f"unexpected shape for input {port.name!r} for model {call.model!r}. {expected}")
        if call.batched:
            if given and rows != len(array):
                return _refused(f"input {port.name!r} batch size does not match other inputs for {call.model!r}")
            rows = len(array)
        if port.copied:
            array = _copied(array)
        given[port.name] = array if port.reshaped is None else _reshaped(array, port.reshaped, call)
    if call.batched and not 1 <= rows <= call.max_batch_size:
        bound = f"<= {call.max_batch_size}" if rows else ">= 1"
        return _refused(f"inference request batch-size must be {bound} for {call.model!r}")
    return given


def _outward(call: Call, answer: Arrays, tensors: dict[str, NDArray[Any]]) -> Failure | None:
    """Put a step's outputs among the tensors of its request; return what is wrong with one of them."""
    for port in call.outputs:
        array = answer.get(port.name)
        if array is None and port.optional:
            continue
        dims = port.dims if port.reshaped is None else port.reshaped
        if not isinstance(array, np.ndarray) or not fits(array, port, dims, call.batched):
            return _misfit(call, port, array)
        tensors[port.shared] = array if port.reshaped is None else _reshaped(array, port.dims, call)
    return None


def _refused(told: str) -> Failure:
    return Failure(told, its_fault=True)


def _misfit(call: Call, port: Port, array: Any) -> Failure:
    gave = f"{array.dtype} {list(array.shape)}" if hasattr(array, "dtype") else type(array).__name__
    gave = "nothing" if array is None else gave
    told = f"{call.model} gave {gave} for {port.name!r}, which is configured as {port.dtype} {list(port.dims)}"
    return Failure(told, told)


def _copied(array: NDArray[Any]) -> NDArray[Any]:
    """Copy an array as Triton does between two models, which makes bytes of whatever stands for a text."""
    if array.dtype.kind not in "OS":
        return array.copy()
    texts = np.empty(array.shape, np.object_)
    texts.ravel()[:] = [each if type(each) is bytes else str(each).encode() for each in array.ravel().tolist()]
    return texts


def _reshaped(array: NDArray[Any], dims: Sequence[int], call: Call) -> NDArray[Any]:
    return array.reshape((*array.shape[:1], *dims) if call.batched else tuple(dims))


def _load(call: Call, wanted: set[str]) -> Step:
    if call.is_python:
        from one_process.python_step import PythonStep

        return PythonStep(call)
    from one_process.network_step import NetworkStep

    return NetworkStep(call, sorted(wanted))
