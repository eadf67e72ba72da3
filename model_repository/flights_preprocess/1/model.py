"""Flights as they are known at their scheduled departure to what the network takes. Imports nothing of this project.

One response a request: what is wrong with a request fails it, and no other of its batch. The vocabularies lie beside
config.pbtxt, in vocabularies.json.
"""

import traceback
from pathlib import Path
from typing import Any

import features
import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray


class TritonPythonModel:
    """The class that Triton's Python backend looks for: one object per instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the vocabularies; what is raised here is why the model did not load."""
        self.vocabularies = features.read_vocabularies(Path(args["model_repository"], "vocabularies.json"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request of the batch, in their order."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            categories, numbers = self._encode(request)
        except features.FeatureError as error:
            return _failure(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # a bug of ours, which the other requests need not suffer from
            pb_utils.Logger.log_error("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__)
            return _failure(f"the preprocessor failed: {type(error).__name__}", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("categories", categories), pb_utils.Tensor("numbers", numbers)]
        )

    def _encode(self, request: Any) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        texts = {name: _column(request, name) for name in (*features.CATEGORIES, "departure")}
        numbers = {name: _column(request, name) for name in features.RANGES}
        count = len(texts["departure"])
        decoded: dict[str, list[str]] = {name: [] for name in features.CATEGORIES}
        departures = []
        for row in range(count):
            try:
                for name, column in decoded.items():
                    column.append(features.read_text(name, texts[name][row]))
                departures.append(features.read_departure(features.read_text("departure", texts["departure"][row])))
                self._check_origin(decoded["origin"][row])
                for name, values in numbers.items():
                    features.check_number(name, float(values[row]))
            except features.FeatureError as error:
                if count == 1:
                    raise
                raise features.FeatureError(f"flight {row} of {count}, from 0: {error}") from error
        return features.encode(decoded, departures, numbers, self.vocabularies)

    def _check_origin(self, origin: str) -> None:
        """Refuse an airport that no flight of the data left from: of its weather and delays nothing is known."""
        if origin not in (known := self.vocabularies["origin"]):
            raise features.FeatureError(f"origin is {features.shown(origin)}; flights leave from {', '.join(known)}")


def _column(request: Any, name: str) -> NDArray[Any]:
    column: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()
    return column


def _failure(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
