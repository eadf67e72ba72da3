"""Flights as they are known at their scheduled departure to what the network takes, of the arrays of requests.

The vocabularies lie beside config.pbtxt, in vocabularies.json.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import features
import numpy as np
from features import FeatureError as Refused
from numpy.typing import NDArray

CALLED = "the preprocessor"


class Step:
    """Knows the vocabularies."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Read the vocabularies."""
        self.vocabularies = features.read_vocabularies(folder / "vocabularies.json")

    def answer(self, requests: Sequence[Mapping[str, NDArray[Any]]]) -> list[Mapping[str, NDArray[Any]] | Exception]:
        """Return what each request gets: its outputs, or why it is refused."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]] | Exception:
        try:
            categories, numbers = self._encode(request)
        except Refused as error:
            return error
        return {"categories": categories, "numbers": numbers}

    def _encode(self, request: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        texts = {name: request[name].ravel() for name in (*features.CATEGORIES, "departure")}
        numbers = {name: request[name].ravel() for name in features.RANGES}
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
            except Refused as error:
                if count == 1:
                    raise
                raise Refused(f"flight {row} of {count}, from 0: {error}") from error
        return features.encode(decoded, departures, numbers, self.vocabularies)

    def _check_origin(self, origin: str) -> None:
        """Refuse an airport that no flight of the data left from: of its weather and delays nothing is known."""
        if origin not in (known := self.vocabularies["origin"]):
            raise Refused(f"origin is {features.shown(origin)}; flights leave from {', '.join(known)}")
