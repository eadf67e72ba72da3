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
        InvalidInputError: one is empty.
    """
    if not all(images):
        raise InvalidInputError("the image is empty (0 bytes)")
    return {"image": np.array([[image] for image in images], dtype=np.object_).reshape(-1, 1)}


def predictions(answer: Arrays) -> list[Prediction]:
    """Of the ensemble's top_labels [B, k] and top_scores [B, k].

    Raises:
        BadAnswerError: they are not that.
    """
    try:
        rows = zip(answer["top_labels"], answer["top_scores"], strict=True)
        tops = [tuple((label.decode(), float(score)) for label, score in zip(*row, strict=True)) for row in rows]
        return [Prediction(*top[0], top) for top in tops]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise BadAnswerError(f"the answer holds no labels and scores: {error!r}") from error


def batches(images: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    source = iter(images)
    while batch := list(itertools.islice(source, size)):
        yield batch
