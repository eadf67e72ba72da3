"""A request for a model of which only the metadata is known."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import triton_to_np_dtype


def inputs_for(metadata: Mapping[str, Any], content: bytes) -> dict[str, NDArray[Any]]:
    """Make {input: array} of the smallest shapes there are: `content` for strings, zeros for numbers."""
    made: dict[str, NDArray[Any]] = {}
    for described in metadata["inputs"]:
        shape = [max(1, int(size)) for size in described["shape"]]
        kind = triton_to_np_dtype(described["datatype"])
        made[described["name"]] = np.full(shape, content if kind is np.object_ else 0, dtype=kind)
    return made


def grey_png(level: int = 128) -> bytes:
    """Encode an image of one grey, small enough for any limit."""
    encoded = io.BytesIO()
    Image.new("L", (28, 28), level).save(encoded, "PNG")
    return encoded.getvalue()
