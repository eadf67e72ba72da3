"""A request for a model of which only the metadata is known."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import triton_to_np_dtype


def tensors(metadata: Mapping[str, Any], content: bytes) -> dict[str, NDArray[Any]]:
    """One value for every input, by name: `content` for strings, zeros for numbers; the smallest shape there is."""
    made: dict[str, NDArray[Any]] = {}
    for described in metadata["inputs"]:
        shape = [max(1, int(size)) for size in described["shape"]]
        kind = triton_to_np_dtype(described["datatype"])
        made[described["name"]] = np.full(shape, content if kind is np.object_ else 0, dtype=kind)
    return made


def grey_png(level: int = 128) -> bytes:
    """An image of one grey, small enough for any limit."""
    encoded = io.BytesIO()
    Image.new("L", (28, 28), level).save(encoded, "PNG")
    return encoded.getvalue()
