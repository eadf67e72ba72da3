"""Probabilities [B, classes] to labels and scores. Runs inside Triton; imports nothing of this project."""

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

TOP_K = 3  # as in config.pbtxt


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        labels = Path(args["model_repository"], "labels.txt").read_text().splitlines()
        self.labels = np.array(labels, dtype=np.object_)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        probabilities = pb_utils.get_input_tensor_by_name(request, "probabilities").as_numpy()
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
