"""JPEG bytes of 224×224 to RGB pixels. Runs inside Triton and in the peers; imports nothing of this project."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (224, 224)


class PhotoError(ValueError):
    """Why a photo is refused, in words for whoever sent it."""


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """Decode to uint8 [3, 224, 224].

    Raises:
        PhotoError: it is no JPEG of that size.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as image:
            if image.size != SIZE:
                raise PhotoError(f"the photo is {image.width} x {image.height} pixels, not {SIZE[0]} x {SIZE[1]}")
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise PhotoError(f"not a readable JPEG ({len(encoded):,} bytes)") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
