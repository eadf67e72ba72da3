"""The steps of an ensemble over the requests of one batch; what is wrong with a request fails it, and no other."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from one_process.call import Call, Port, fits
from one_process.failures import Failure

Arrays = Mapping[str, NDArray[Any]]  # tensors of a request by name, [rows, …] where the models take batches


class Step(Protocol):
    """What a step does, be it Python or a network."""

    def answer(self, requests: Sequence[Arrays]) -> Sequence[Arrays | Exception]:
        """Return what each request gets: its outputs, or why it has none. Raises nothing."""


class Pipeline:
    """The steps of an ensemble.

    Raises:
        ModelError: one does not load.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._steps = [(call, _load(call)) for call in calls]

    def answer(self, requests: Sequence[Arrays]) -> list[dict[str, NDArray[Any]] | Exception]:
        """Return all tensors of the ensemble that each request has got, or why it gets none. Raises nothing."""
        found: list[dict[str, NDArray[Any]] | Exception] = [dict(request) for request in requests]
        for call, step in self._steps:
            alive = [(place, each) for place, each in enumerate(found) if not isinstance(each, Exception)]
            if not alive:
                break
            answers = step.answer([dict(_inward(call, tensors)) for _, tensors in alive])
            for (place, tensors), answer in zip(alive, answers, strict=True):
                failure = answer if isinstance(answer, Exception) else _outward(call, answer, tensors)
                if failure is not None:
                    found[place] = failure
        return found


def _inward(call: Call, tensors: Arrays) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield a step's inputs, in the shapes that it takes."""
    for port in call.inputs:
        array = tensors[port.shared]
        yield port.name, array if port.reshaped is None else _reshaped(array, port.reshaped, call)


def _outward(call: Call, answer: Arrays, tensors: dict[str, NDArray[Any]]) -> Failure | None:
    """Put a step's outputs among the tensors of its request; return what is wrong with one of them."""
    for port in call.outputs:
        array = answer.get(port.name)
        if array is None or not fits(array, port, port.dims if port.reshaped is None else port.reshaped, call.batched):
            return _misfit(call, port, array)
        tensors[port.shared] = array if port.reshaped is None else _reshaped(array, port.dims, call)
    return None


def _misfit(call: Call, port: Port, array: NDArray[Any] | None) -> Failure:
    gave = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
    told = f"{call.model} gave {gave} for {port.name!r}, which is configured as {port.dtype} {list(port.dims)}"
    return Failure(told, told)


def _reshaped(array: NDArray[Any], dims: Sequence[int], call: Call) -> NDArray[Any]:
    return array.reshape((*array.shape[:1], *dims) if call.batched else tuple(dims))


def _load(call: Call) -> Step:
    if call.config["backend"] == "python":
        from one_process.python_step import PythonStep

        return PythonStep(call)
    from one_process.network_step import NetworkStep

    return NetworkStep(call)
