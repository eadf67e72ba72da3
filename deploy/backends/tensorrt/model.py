"""`platform: "tensorrt_plan"` on a GPU for a Triton that only has its Python backend, such as the pip-installed one.

Serves the same model directory and config.pbtxt as Triton's native backend, and knows of its settings:
  default_model_filename, cc_model_filenames, max_batch_size, reshape
  instance_group  KIND_GPU; one optimization profile, the same in every group
Any other is refused, but for the hints of `optimization` (config.HINTS), which change no answer: a line in the log
says that they are left to the native backend. Runs inside Triton.
"""

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils
from python_based.batching import Batcher
from python_based.config import HINTS, ModelConfig, refuse
from python_based.errors import ModelError


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the plan; what is raised here is Triton's reason why the model did not load.

        Raises:
            ModelError: there is no plan for this GPU, or config.pbtxt asks for what is not supported.
        """
        config = ModelConfig.of(args)
        refuse("parameters", config.parameters, [])
        refuse("optimization", config.optimization, HINTS)
        if config.kind != "GPU":
            raise ModelError(f"instance_group: kind is KIND_{config.kind}; TensorRT needs a GPU, KIND_GPU")
        try:
            from python_based.engine import Engine
        except (ImportError, OSError) as error:
            raise ModelError(
                f"the server's environment lacks TensorRT ({error}); python -m deploy up --device gpu makes one with it"
            ) from error
        if config.hints:
            pb_utils.Logger.log_warn(f"left to the native backend: optimization {{ {' '.join(config.hints)} }}")
        self.batcher = Batcher(config, Engine(config).run)
        self.batcher.rehearse(config)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch, in their order."""
        return self.batcher.respond(requests)
