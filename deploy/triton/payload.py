"""What is sent to a model of which only its repository and its metadata are known, and whether an answer is right.

Golden requests are real, and their answers are known. Where a release has none, images, grey ones or zeros show at
least that a model answers, and that it says under load what it says without.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import triton_to_np_dtype

from contracts import golden
from contracts.golden import GoldenRequest

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
_TOLERANCE = 1e-3  # of numbers: what a request is batched with moves the last digits

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Payload:
    """What is sent to a model, in turn."""

    model: str
    requests: tuple[GoldenRequest, ...]  # without answers where nobody knows them
    source: str  # "32 golden requests", "zeros: no golden requests"

    def __str__(self) -> str:
        known = any(request.answers for request in self.requests)
        compared = "the reference's and the idle server's" if known else "the idle server's only"
        return f"{self.source}; answers compared with {compared}"


def from_release(root: Path, model: str) -> Payload | None:
    """Return the golden requests for a model of the repository `root`; None where its release has none.

    Raises:
        ManifestError: a file with golden requests is damaged.
    """
    found = golden.find(root, model)
    return Payload(model, found, f"{len(found)} golden requests") if found else None


def of_images(metadata: Mapping[str, Any], images: Sequence[bytes], source: str) -> Payload:
    """Put each image into a request of its own, as every input of strings; zeros in the others."""
    model, others = metadata["name"], ", ".join(no_image(metadata))
    requests = tuple(GoldenRequest(model, inputs_for(metadata, image), {}) for image in images)
    return Payload(model, requests, f"{source}, and zeros as {others}" if others else source)


def made_up(metadata: Mapping[str, Any], count: int) -> Payload:
    """Make as many requests up: grey images for inputs of strings, zeros for numbers, of the smallest shapes."""
    made = of_images(metadata, [grey_png(255 * i // count) for i in range(count)], "plain grey images")
    what = made.source if len(no_image(metadata)) < len(metadata["inputs"]) else "zeros"
    return replace(made, source=f"{what}: no golden requests")


def no_image(metadata: Mapping[str, Any]) -> list[str]:
    """Name the inputs that an image cannot be: those of numbers."""
    return [described["name"] for described in metadata["inputs"] if described["datatype"] != "BYTES"]


def inputs_of(metadata: Mapping[str, Any]) -> str:
    """Say what the inputs are: "x: FP32 [-1, 4]; y: BYTES [-1, 1]"."""
    return "; ".join(f"{i['name']}: {i['datatype']} {[*map(int, i['shape'])]}" for i in metadata["inputs"])


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


def fault(request: GoldenRequest, answer: Tensors, idle: Tensors) -> str | None:
    """Say what is wrong with an answer under load; None if it is the reference's, and `idle`, the idle server's."""
    if told := request.fault(answer):
        return told
    return None if same_answer(answer, idle) else "a wrong answer: the idle server gave another one"


def same_answer(answer: Tensors, right: Tensors) -> bool:
    """Tell whether two answers of one server to one request are the same, but for the last digits."""
    return answer.keys() == right.keys() and all(_equal(answer[name], values) for name, values in right.items())


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return False
    if other.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
    return bool(np.array_equal(one, other))
