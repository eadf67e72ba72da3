"""Encoded images [B, 1] to uint8 [B, 1, 28, 28]: what this step makes of the arrays of requests.

Understands in config.pbtxt:
  parameters  max_encoded_bytes, max_pixels: limits of one image, see images.py
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import images
import numpy as np
from images import ImageError as Refused
from numpy.typing import NDArray

CALLED = "the preprocessor"


class Step:
    """Decodes images within their limits."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Read the limits.

        Raises:
            ValueError: one is no whole number.
        """
        parameters, usual = config.get("parameters", {}), images.Limits()
        self.limits = images.Limits(
            encoded_bytes=_number(parameters, "max_encoded_bytes", usual.encoded_bytes),
            pixels=_number(parameters, "max_pixels", usual.pixels),
        )

    def answer(self, requests: Sequence[Mapping[str, NDArray[Any]]]) -> list[Mapping[str, NDArray[Any]] | Exception]:
        """Return what each request gets: its outputs, or why it is refused."""
        return [self._answer(request["image"].ravel()) for request in requests]

    def _answer(self, encoded: NDArray[np.object_]) -> Mapping[str, NDArray[Any]] | Exception:
        if len(encoded) == 1:
            try:
                return {"pixels": images.decode(encoded[0], self.limits)[np.newaxis]}
            except Refused as error:
                return error
        pixels = []
        for index, image in enumerate(encoded):
            try:
                pixels.append(images.decode(image, self.limits))
            except Refused as error:
                return Refused(f"image {index} of {len(encoded)}, from 0: {error}")
        return {"pixels": np.stack(pixels)}


def _number(parameters: Mapping[str, Mapping[str, str]], name: str, usual: int) -> int:
    text = parameters[name]["string_value"] if name in parameters else str(usual)
    if not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, not {text!r}")
    return int(text)
