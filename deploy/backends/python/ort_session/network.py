"""A model's graph, ready to be run over the requests of a batch: what both backends that run one have."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
from numpy.typing import NDArray
from python_based.bfloat16 import view_of
from python_based.config import ModelConfig
from python_based.errors import ModelError, RequestError
from python_based.proven import ProvenRange
from python_based.ragged import Joiner

from ort_session import graph, settings, strings

if TYPE_CHECKING:
    from python_based.batching import Feed

_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16


class Network:
    """A graph, and what its configuration says of it.

    Raises:
        ModelError: there is no such file, it does not fit config.pbtxt, or that asks for what is not supported.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.session = graph.load(config)
        graph.require_fit(self.session, config)
        self.proven = ProvenRange(config)
        self.joiner = Joiner(config)
        self.scalars = [node.name for node in graph.inputs(self.session, config) if not node.shape]
        types = {tensor.name: tensor.dtype for tensor in (*config.inputs, *config.controls, *config.outputs)}
        types |= {name: state.dtype for state in config.states for name in (state.input, state.output)}
        self.strings = {name for name, dtype in types.items() if dtype == "STRING"}
        self.bfloat16 = {name for name, dtype in types.items() if dtype == "BF16"}
        if self.strings:
            strings.check()
        self.run_options = settings.run_options(config)
        self.on_cpu = config.kind != "GPU"

    def run(self, feeds: "Sequence[Feed]", wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Run the requests as one batch; return the wanted outputs, in that order.

        Raises:
            RequestError: one of them is outside of what was proven, or fails by its values.
            ModelError: it fails otherwise.
        """
        for given in feeds if self.joiner.ragged else feeds[:1]:  # which else are of equal shapes
            self.proven.check(given)
        feed = self.joiner.joined(feeds)
        for name in self.scalars:  # onnxruntime would take a [1], and give answers of one dimension more
            if name in feed:
                feed[name] = _one(name, feed[name])
        try:
            if self.bfloat16:
                return self._run_values(feed, wanted)
            return self._run_arrays(feed, wanted)
        except Exception as error:  # onnxruntime's exceptions share no base class
            if "[ONNXRuntimeError]" not in str(error):
                raise
            raise self._blamed(error) from error

    def _run_arrays(self, feed: "Feed", wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Run over arrays. Neither way copied: the session reads numpy's memory, its results are over its own."""
        if not self.strings:
            return self.session.run(wanted, feed, self.run_options)  # type: ignore[no-any-return]
        try:
            texts = {name: strings.decoded(feed[name]) for name in self.strings & feed.keys()}
            return self.session.run(wanted, {**feed, **texts}, self.run_options)  # type: ignore[no-any-return]
        except UnicodeDecodeError:  # of an input or of an output
            return self._run_values(feed, wanted)

    def _run_values(self, feed: "Feed", wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Do the same with onnxruntime's own values: numpy has no type for BF16, nor Python a `str` for any bytes."""
        values = {name: self._value(name, array) for name, array in feed.items()}
        results = zip(wanted, self.session.run_with_ort_values(wanted, values, self.run_options), strict=True)
        return [self._array(name, value) for name, value in results]

    def _value(self, name: str, array: NDArray[Any]) -> ort.OrtValue:
        if name in self.strings:
            return strings.value_of(array)
        if name in self.bfloat16:
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
        return ort.OrtValue.ortvalue_from_numpy(array)

    def _array(self, name: str, value: ort.OrtValue) -> NDArray[Any]:
        if name in self.strings:
            return strings.bytes_of(value)
        return view_of(value._get_c_value()) if name in self.bfloat16 else value.numpy()

    def _blamed(self, error: Exception) -> Exception:
        """Turn an error into one that says whose fault the failed run is.

        On a CPU a node that fails fails by the values that came in, all else being constant, unless memory is short.
        """
        message = graph.told(error)
        by_its_values = self.on_cpu and " while running " in message and "alloc" not in message
        its_fault = by_its_values or type(error).__name__ == "InvalidArgument"
        return RequestError(message) if its_fault else ModelError(message)


def _one(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return the one value that a graph's scalar has for all rows."""
    if values.size > 1 and (values != values.flat[0]).any():  # of several requests: they are run apart
        raise RequestError(f"input {name!r} is one value to the graph, and has several")
    return values.flat[:1].reshape(())
