"""What a task means in tensors: images to send, and the labels that come back."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clients.errors import BadAnswerError, InvalidInputError
from clients.tensors import Arrays

CLASSIFY_OUTPUTS = ("top_labels", "top_scores")


@dataclass(frozen=True)
class Prediction:
    """The best label of an image, and the best few with their probabilities, best first."""

    label: str
    score: float  # probability, 0…1
    top: tuple[tuple[str, float], ...]


def images_to_arrays(images: Sequence[bytes]) -> Arrays:
    """PNG or JPEG bytes, as the input [B, 1] of an image ensemble.

    Raises:
        InvalidInputError: one is empty, or no bytes: a path, say.
    """
    if odd := next((image for image in images if not isinstance(image, bytes)), None):
        raise InvalidInputError(f"an image is its bytes, and not a {type(odd).__name__}", hint="Path(…).read_bytes()")
    if not all(images):
        raise InvalidInputError("the image is empty (0 bytes)")
    return {"image": np.array([[image] for image in images], dtype=np.object_).reshape(-1, 1)}


def predictions(answer: Arrays, count: int) -> list[Prediction]:
    """Of the ensemble's top_labels [B, k] and top_scores [B, k], of which B is `count`.

    Raises:
        BadAnswerError: they are not that.
    """
    try:
        rows = zip(answer["top_labels"], answer["top_scores"], strict=True)
        tops = [tuple((label.decode(), float(score)) for label, score in zip(*row, strict=True)) for row in rows]
        found = [Prediction(*top[0], top) for top in tops]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise BadAnswerError(f"the answer holds no labels and scores: {error!r}") from error
    if len(found) != count:
        raise BadAnswerError(f"the answer holds labels for {len(found)} images, and {count} were sent")
    return found


def batches(images: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Of `size` images, read one batch at a time. Where reading them fails, those before it come first.

    Raises:
        InvalidInputError: of none.
    """
    if size < 1:
        raise InvalidInputError(f"batches of {size} images", hint="1 or more")
    return _batches(images, size)


def _batches(images: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    source = iter(images)
    failed: Exception | None = None
    while failed is None:
        batch: list[bytes] = []
        try:
            batch.extend(itertools.islice(source, size))
        except Exception as error:
            failed = error
        if batch:
            yield batch
        elif failed is None:
            return
    raise failed
