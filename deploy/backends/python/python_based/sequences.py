"""What sequences carry from one request to the next, where Triton's Python backend cannot.

Triton's core keeps such a state for a backend that hands it back over its C interface, which Python-based ones do not
have: they are given the initial state with every request. So it is kept here, in the instance: Triton sends all
requests of a sequence to one instance, in their order, and says with which a sequence starts and ends.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from python_based.config import ModelConfig
from python_based.errors import ModelError

_START, _END = 1, 2  # TRITONSERVER_REQUEST_FLAG_SEQUENCE_…


class States:
    """The states of an instance's sequences: {its id: {the state's input: its value}}."""

    def __init__(self, config: ModelConfig) -> None:
        self.outputs = {state.output: state.input for state in config.states}
        # A sequence that its client left has no last request: Triton gives its slot to another and does not say so.
        self._most = 2 * config.sequences
        self._kept: OrderedDict[int | str, Mapping[str, NDArray[Any]]] = OrderedDict()

    def of(self, request: Any) -> Mapping[str, NDArray[Any]]:
        """Return what a request's sequence has for the inputs of its states; nothing where Triton's own are right.

        Raises:
            ModelError: the sequence is under way, and its state is not here.
        """
        if not self.outputs or not (sequence := request.correlation_id()):  # 0: what fills an idle slot of a batch
            return {}
        if request.flags() & _START:
            return {}
        if sequence not in self._kept:
            raise ModelError(f"the state of sequence {sequence!r} is lost with the process that had it: begin it anew")
        return self._kept[sequence]

    def keep(self, request: Any, results: Mapping[str, NDArray[Any]]) -> None:
        """Keep what a request leaves for the next of its sequence, or forget the sequence if it was the last.

        Args:
            results: Its outputs by name, with those of the states.
        """
        if not self.outputs or not (sequence := request.correlation_id()):
            return
        self._kept.pop(sequence, None)
        if not request.flags() & _END:
            self._kept[sequence] = {name: results[output].copy() for output, name in self.outputs.items()}
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
