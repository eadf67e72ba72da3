"""`backend: "onnxruntime"` for a Triton that only has its Python backend, such as the pip-installed one.

Serves the same model directory and config.pbtxt as Triton's native backend, and knows of its settings:
  default_model_filename, max_batch_size, reshape, optional inputs (max_batch_size: 0), scalars as dims: [ 1 ]
  sequence_batching (direct and oldest, with controls and states), allow_ragged_batch, batch_input, batch_output
  model_operations, model_warmup; inputs and outputs that are left to --auto-complete-config
  instance_group  KIND_CPU; KIND_GPU where the installed onnxruntime is one with CUDA
  optimization    graph { level }, execution_accelerators { gpu_execution_accelerator [ { name: "cuda" … } ] }
  parameters      intra_op_thread_count, inter_op_thread_count, execution_mode, enable_mem_arena, enable_mem_pattern,
                  memory.enable_memory_arena_shrinkage, session.use_device_allocator_for_initializers;
                  of CUDA, deprecated: cudnn_conv_algo_search, gpu_mem_limit, arena_extend_strategy,
                  do_copy_in_default_stream; and, which the native one does not know,
                  session.intra_op.allow_spinning, session.inter_op.allow_spinning
What else a configuration asks for is refused; what changes no answer is taken, and named in the log. Unlike the native
one, this one holds requests to the shapes that the version was proven with (proven.py). Runs inside Triton.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from ort_session import graph, settings, strings
from ort_session.complete import complete
from python_based.batching import Batcher, Feed
from python_based.bfloat16 import view_of
from python_based.config import RAGGED, SEQUENCES, ModelConfig
from python_based.errors import ModelError, RequestError
from python_based.proven import ProvenRange
from python_based.ragged import Joiner

_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_UNDERSTOOD = (*SEQUENCES, *RAGGED, "model_operations")


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Add the graph's inputs and outputs to a configuration without.

        Raises:
            ModelError: the graph cannot be loaded, or does not batch as configured.
        """
        complete(auto_complete_model_config.as_dict(), pb_utils.get_model_dir())
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the graph; what is raised here is Triton's reason why the model did not load.

        Raises:
            ModelError: there is no such file, it does not fit config.pbtxt, that asks for what is not supported, or
                its warm-up fails.
        """
        config = ModelConfig.of(args, _UNDERSTOOD)
        self.session = graph.load(config)
        graph.require_fit(self.session, config)
        if vain := settings.without_effect(config):
            pb_utils.Logger.log_warn(f"without effect here: {', '.join(vain)}")
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
        self.batcher = Batcher(config, self._run)
        self.batcher.rehearse(config)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch, in their order."""
        return self.batcher.respond(requests)

    def _run(self, feeds: Sequence[Feed], wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
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

    def _run_arrays(self, feed: Feed, wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Run over arrays. Neither way copied: the session reads numpy's memory, its results are over its own."""
        if not self.strings:
            return self.session.run(wanted, feed, self.run_options)  # type: ignore[no-any-return]
        try:
            texts = {name: strings.decoded(feed[name]) for name in self.strings & feed.keys()}
            return self.session.run(wanted, {**feed, **texts}, self.run_options)  # type: ignore[no-any-return]
        except UnicodeDecodeError:  # of an input or of an output
            return self._run_values(feed, wanted)

    def _run_values(self, feed: Feed, wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
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
