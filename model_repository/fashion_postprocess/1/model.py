"""Probabilities [B, classes] to labels and scores. Runs inside Triton; imports nothing of this project.

One response a request: what is wrong with a request fails it, and no other of its batch.
"""

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

TOP_K = 3  # as in config.pbtxt


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the labels, which lie beside config.pbtxt."""
        labels = Path(args["model_repository"], "labels.txt").read_text().splitlines()
        self.labels = np.array(labels, dtype=np.object_)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request of the batch, in their order."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            return self._answer(request)
        except Exception as error:  # a bug of ours, which the other requests need not suffer from
            pb_utils.Logger.log_error(traceback.format_exc())
            return _failure(f"the postprocessor failed: {type(error).__name__}")

    def _answer(self, request: Any) -> Any:
        probabilities = pb_utils.get_input_tensor_by_name(request, "probabilities").as_numpy()
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            # Sorted all the same, they would be an answer like any other. The network's fault: no client error.
            return _failure(f"image {np.argmin(finite)} of {len(finite)}, from 0: the network gave no finite numbers")
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_K]
        labels = self.labels[order]
        scores = np.take_along_axis(probabilities, order, axis=1)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("label", labels[:, :1]),
                pb_utils.Tensor("score", scores[:, :1]),
                pb_utils.Tensor("top_labels", labels),
                pb_utils.Tensor("top_scores", scores),
            ]
        )


def _failure(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL))
