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

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils
from ort_session import settings
from ort_session.complete import complete
from ort_session.network import Network
from python_based.batching import Batcher
from python_based.config import RAGGED, SEQUENCES, ModelConfig

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
        network = Network(config)
        if vain := settings.without_effect(config):
            pb_utils.Logger.log_warn(f"without effect here: {', '.join(vain)}")
        self.batcher = Batcher(config, network.run)
        self.batcher.rehearse(config)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch, in their order."""
        return self.batcher.respond(requests)
