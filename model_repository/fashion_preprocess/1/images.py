"""Encoded PNG and JPEG images to grey pixels. Runs inside Triton; imports nothing of this project.

Pillow reads the files. What it would let pass is refused here, before anything is decompressed.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

SIZE = (28, 28)  # width, height
FORMATS = ("PNG", "JPEG")
# Real progressive files have about ten scans. Each one more is 20 bytes of file and a pass over all of the picture.
MAX_SCANS = 100

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG, _SCAN, _END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"


class ImageError(ValueError):
    """Why an image is refused, in words for whoever sent it. Holds no bytes of the image as they are."""


@dataclass(frozen=True)
class Limits:
    """What an image may have at most. A megapixel needs up to 60 MB while it is decoded."""

    encoded_bytes: int = 1 << 20
    pixels: int = 1 << 20  # width × height


def decode(encoded: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG to grey uint8 [1, 28, 28]: upright, black where transparent, of an animation the first.

    Raises:
        ImageError: it is neither, damaged, truncated, or over a limit.
    """
    size = f"{len(encoded):,} bytes"
    if len(encoded) > limits.encoded_bytes:
        raise ImageError(f"the image has {size}, at most {limits.encoded_bytes:,} are allowed (max_encoded_bytes)")
    _require_whole(encoded)
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:  # reads the header
            if image.width * image.height > limits.pixels:
                raise ImageError(
                    f"the image is {image.width:,} x {image.height:,} pixels, "
                    f"at most {limits.pixels:,} in all are allowed (max_pixels)"
                )
            _require_understood(image, encoded)
            grey = _grey(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever the decoder met, from OSError to SyntaxError
        raise ImageError(f"not a readable PNG or JPEG image ({size}): {_reason(error)}") from error
    if grey.size != SIZE:
        grey = grey.resize(SIZE, Image.Resampling.BILINEAR)
    return np.asarray(grey, dtype=np.uint8)[np.newaxis]


def _require_whole(encoded: bytes) -> None:
    """Refuse what Pillow would take: files that end early, and some that are small and take seconds."""
    if encoded.startswith(_PNG):
        whole, bomb = b"IEND\xaeB`\x82" in encoded, encoded.count(b"iCCP") > 1  # Pillow inflates each, up to 1 MB
    elif encoded.startswith(_JPEG):
        whole, bomb = encoded.rfind(_END) > encoded.rfind(_SCAN), encoded.count(_SCAN) > MAX_SCANS
    else:
        return
    if bomb:
        raise ImageError(f"the image has a second colour profile, or more than {MAX_SCANS} scans")
    if not whole:
        raise ImageError(f"the image file is truncated: it ends without its end marker ({len(encoded):,} bytes)")


def _require_understood(image: Image.Image, encoded: bytes) -> None:
    """Refuse grey PNGs of other than 8 bits with a transparent colour: Pillow scales the samples, and not that one."""
    bits = encoded[24]  # of a PNG's samples
    if image.format == "PNG" and image.mode in ("L", "I;16") and "transparency" in image.info and bits != 8:
        raise ImageError(f"a grey PNG of {bits} bits with a transparent colour is not supported: use an alpha channel")


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion makes everything over 255 white
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "CMYK" and "adobe" not in image.info:  # Pillow takes 0 for full ink, which only Adobe does
        image = ImageChops.invert(image)
    if image.has_transparency_data:  # over black, which is the background of Fashion-MNIST
        image = image.convert("RGBA")
        return Image.composite(image.convert("L"), Image.new("L", image.size), image.getchannel("A"))
    return image if image.mode == "L" else image.convert("L")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"
    return str(error).encode("unicode_escape").decode()[:200]
