"""Encoded photos [B, 1] to uint8 [B, 3, 224, 224]: what this step makes of the arrays of requests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import photos
from numpy.typing import NDArray
from photos import PhotoError as Refused

CALLED = "the preprocessor"


class Step:
    """Decodes photos."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Take nothing of either: there is nothing to set."""

    def answer(self, requests: Sequence[Mapping[str, NDArray[Any]]]) -> list[Mapping[str, NDArray[Any]] | Exception]:
        """Return what each request gets: its pixels, or why it is refused."""
        return [self._answer(request["photo"].ravel()) for request in requests]

    def _answer(self, encoded: NDArray[np.object_]) -> Mapping[str, NDArray[Any]] | Exception:
        try:
            return {"pixels": np.stack([photos.decode(photo) for photo in encoded])}
        except Refused as error:
            return error
