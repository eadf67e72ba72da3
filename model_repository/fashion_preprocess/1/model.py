"""Encoded images to uint8 [B, 1, 28, 28]. Runs inside Triton; imports nothing of this project."""

import io
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

SIZE = (28, 28)
FORMATS = ("PNG", "JPEG")


class TritonPythonModel:
    """One response a request: an image that cannot be decoded fails its own request and no other."""

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        encoded = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        try:
            pixels = np.stack([decode(image) for image in encoded.ravel()])
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", pixels)])


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """One PNG or JPEG as grey uint8 [1, 28, 28].

    Raises:
        ValueError: it is neither, or it is damaged.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            grey = image.convert("L")  # reads all of the file: a truncated one fails here
    except Exception as error:  # Pillow raises whatever the decoder met, from OSError to SyntaxError
        reason = str(error) if not isinstance(error, UnidentifiedImageError) else "unknown format"
        raise ValueError(f"not a readable PNG or JPEG image ({len(encoded)} bytes): {reason}") from error
    if grey.size != SIZE:
        grey = grey.resize(SIZE, Image.Resampling.BILINEAR)
    return np.asarray(grey, dtype=np.uint8)[np.newaxis]
