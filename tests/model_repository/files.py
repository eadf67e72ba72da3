"""Image files written by hand, byte by byte, so that they can be what no library writes."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, depth: int, colour: int, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def png(
    samples: NDArray[np.integer], colour: int, depth: int = 8, more: bytes = b"", interlaced: bool = False
) -> bytes:
    """A PNG of samples [height, width, channels], as they are; `more` are chunks between header and data."""
    height, width, _ = samples.shape
    passes = [samples[y::step_y, x::step_x] for x, y, step_x, step_y in (_ADAM7 if interlaced else _WHOLE)]
    data = chunk(b"IDAT", zlib.compress(b"".join(_scanlines(part, depth) for part in passes if part.size)))
    return SIGNATURE + header(width, height, depth, colour, interlaced) + more + data + END


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """What Pillow writes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg(pixels: NDArray[np.uint8], mode: str, **options: object) -> bytes:
    """A JPEG that loses nothing of pixels that are the same in every block of 8 × 8."""
    return saved(Image.fromarray(pixels, mode), "JPEG", quality=100, subsampling=0, **options)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF header and one directory with the orientation and, before it, the make of a camera."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHI4s", 0x010F, 2, 4, b"Cam\0")
    entries += struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def with_segment(encoded: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment behind its start."""
    return encoded[:2] + segment(marker, body) + encoded[2:]


def _scanlines(samples: NDArray[np.integer], depth: int) -> bytes:
    """Unfiltered, which is filter type 0."""
    rows = samples.reshape(len(samples), -1)
    if depth < 8:
        bits = rows[..., None] >> np.arange(depth)[::-1] & 1
        packed = np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    else:
        packed = rows.astype(f">u{depth // 8}").view(np.uint8)
    return np.pad(packed, ((0, 0), (1, 0))).tobytes()
