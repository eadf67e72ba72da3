"""Encoded PNG and JPEG images to grey pixels. Runs inside Triton; imports nothing of this project.

Pillow reads the files. What it would let pass is refused here, before anything is decompressed.
"""

import io
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

SIZE = (28, 28)  # width, height
FORMATS = ("PNG", "JPEG")
# Real progressive files have about ten scans. Each one more is 20 bytes of file and a pass over all of the picture.
MAX_SCANS = 100

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# What begins a segment of a JPEG: neither a stuffed byte of the compressed data, a restart within it, nor a fill byte.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_ALONE = (0x01, 0xD8)  # markers without a length
_SCAN, _END = 0xDA, 0xD9
_ORIENTATION = 0x0112  # EXIF's tag
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])""")


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
    encoded = _whole(encoded)
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:  # reads the header
            if image.width * image.height > limits.pixels:
                raise ImageError(
                    f"the image is {image.width:,} x {image.height:,} pixels, "
                    f"at most {limits.pixels:,} in all are allowed (max_pixels)"
                )
            _require_understood(image, encoded)
            grey = _grey(_upright(image))
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever the decoder met, from OSError to SyntaxError
        raise ImageError(f"not a readable PNG or JPEG image ({size}): {_reason(error)}") from error
    if grey.size != SIZE:
        grey = grey.resize(SIZE, Image.Resampling.BILINEAR)
    return np.frombuffer(grey.tobytes(), np.uint8).reshape(1, *SIZE[::-1])


def _whole(encoded: bytes) -> bytes:
    """Return the image alone, without what lies behind it in the file: a video, as in motion photos, or more pictures.

    Pillow would take files that end early, and some that are small and take seconds.

    Raises:
        ImageError: it is one of those.
    """
    if encoded.startswith(_PNG):
        end, profiles = _end_of_png(encoded)
        bomb = profiles > 1  # Pillow inflates each, up to 1 MB
    elif encoded.startswith(_JPEG):
        end, scans = _end_of_jpeg(encoded)
        bomb = scans > MAX_SCANS
    else:
        return encoded
    if bomb:
        raise ImageError(f"the image has a second colour profile, or more than {MAX_SCANS} scans")
    if end is None:
        raise ImageError(f"the image file is truncated: it ends without its end marker ({len(encoded):,} bytes)")
    return encoded[:end]


def _end_of_png(encoded: bytes) -> tuple[int | None, int]:
    """Return where a PNG ends, None if its file does before, and how many colour profiles it has."""
    at, profiles = len(_PNG), 0
    while len(encoded) >= at + 12:  # a chunk's length, kind and checksum
        size, kind = int.from_bytes(encoded[at : at + 4], "big"), encoded[at + 4 : at + 8]
        at += 12 + size
        profiles += kind == b"iCCP"
        if kind == b"IEND" and at <= len(encoded):
            return at, profiles
    return None, profiles


def _end_of_jpeg(encoded: bytes) -> tuple[int | None, int]:
    """Return where a JPEG ends, None if its file does before, and how many scans it has."""
    at, scans = 2, 0
    while found := _MARKER.search(encoded, at):
        marker, at = encoded[found.end() - 1], found.end()
        if marker == _END:
            return at, scans
        scans += marker == _SCAN
        if marker not in _ALONE:
            at += int.from_bytes(encoded[at : at + 2], "big")
    return None, scans


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as it says that it is to be turned; Pillow alone would copy one that is to stay as it is."""
    image.load()  # what is wrong with it shows here, as it would in a copy
    _note_orientation(image)
    return ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image


def _note_orientation(image: Image.Image) -> None:
    """Take the orientation of XMP where EXIF has none; Pillow does, but not of what is in single quotes."""
    exif = image.getexif()
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    found = _XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else xmp)
    if _ORIENTATION not in exif and found:
        exif[_ORIENTATION] = int(found[1])


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
