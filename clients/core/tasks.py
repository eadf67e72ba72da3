"""Tasks on top of tensors: what images and texts become as inputs, and outputs as labels and vectors."""

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clients.core.answer import Answer
from clients.core.tensors import Arrays
from clients.errors import InvalidInputError, InvalidResponseError

CLASSIFY_OUTPUTS = ("top_labels", "top_scores")
TEXT, EMBEDDING = "text", "embedding"  # the input and the output of what embeds texts

Image = bytes | bytearray | memoryview  # a PNG or JPEG file's content


@dataclass(frozen=True)
class Prediction:
    """The best label of an image, and the best few with their probabilities, best first."""

    label: str
    score: float  # probability, 0…1
    top: tuple[tuple[str, float], ...]
    model: str = field(default="", compare=False)  # that answered
    version: int | None = field(default=None, compare=False)  # of it; None: as of `Answer.version`


def images_to_arrays(images: Sequence[Image]) -> Arrays:
    """Make the input `image`, BYTES [B, 1], of an image ensemble.

    Raises:
        InvalidInputError: one is empty, or not bytes: a path, say.
    """
    if wrong := [type(image).__name__ for image in images if not isinstance(image, Image)]:
        raise InvalidInputError(f"an image must be bytes, and is {wrong[0]}", hint="Path(…).read_bytes()")
    if not all(len(image) for image in images):
        raise InvalidInputError("the image is empty (0 bytes)")
    return {"image": np.array([[bytes(image)] for image in images], dtype=np.object_).reshape(-1, 1)}


def predictions(answer: Answer, count: int) -> list[Prediction]:
    """Read the ensemble's top_labels [B, k] and top_scores [B, k], where B is `count`.

    Raises:
        InvalidResponseError: they are not that.
    """
    try:
        rows = zip(answer["top_labels"], answer["top_scores"], strict=True)
        tops = [tuple((label.decode(), float(score)) for label, score in zip(*row, strict=True)) for row in rows]
        found = [Prediction(*top[0], top, answer.model, answer.version) for top in tops]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise InvalidResponseError(f"the response has no labels and scores: {error!r}") from error
    if len(found) != count:
        raise InvalidResponseError(f"the response has labels for {len(found)} images, and {count} were sent")
    return found


def texts_to_arrays(texts: Sequence[str]) -> Arrays:
    """Make the input `text`, BYTES [B, 1], of an ensemble that embeds texts.

    Raises:
        InvalidInputError: there is none, or one is no str, or has half of a pair of surrogates in it.
    """
    if isinstance(texts, str) or (wrong := [type(text).__name__ for text in texts if not isinstance(text, str)]):
        raise InvalidInputError(
            "texts are a sequence of str" + ("" if isinstance(texts, str) else f", and one is {wrong[0]}"),
            hint='["a text"] for one; raw.decode() for bytes',
        )
    if not texts:
        raise InvalidInputError("there is no text to embed")
    try:
        encoded = [[text.encode()] for text in texts]
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"a text is no Unicode: {error.reason} at {error.start}") from error
    return {TEXT: np.array(encoded, dtype=np.object_)}


def embeddings(answer: Answer, count: int) -> NDArray[np.float32]:
    """Read the ensemble's `embedding`, [B, k], where B is `count`.

    Raises:
        InvalidResponseError: it is not that.
    """
    found: NDArray[np.float32] = answer[EMBEDDING]
    if found.ndim != 2 or len(found) != count:
        raise InvalidResponseError(f"the response is {list(found.shape)}, no vector for each of {count} texts")
    return found


def batches(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
    """Put images in batches of `size`, read one batch at a time. If reading fails, the images before that come first.

    Raises:
        InvalidInputError: the size is not 1 or more.
    """
    _check_size(size)
    return _batches(images, size)


async def async_batches(images: Iterable[Image] | AsyncIterable[Image], size: int) -> AsyncIterator[list[Image]]:
    """Do as `batches`. What is not asynchronous is read in the event loop."""
    _check_size(size)
    if not isinstance(images, AsyncIterable):
        for found in _batches(images, size):
            yield found
        return
    source, ended = aiter(images), False
    while not ended:
        batch: list[Image] = []
        failed: Exception | None = None
        try:
            while len(batch) < size:
                batch.append(await anext(source))
        except StopAsyncIteration:
            ended = True
        except Exception as error:
            failed = error
        if batch:
            yield batch
        if failed:
            raise failed


def _check_size(size: int) -> None:
    if not 1 <= size < 2**31:
        raise InvalidInputError(f"batch_size must be 1 to 2,147,483,647, and is {size}")


def _batches(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
    source, ended = iter(images), False
    while not ended:
        batch: list[Image] = []
        failed: Exception | None = None
        try:
            batch.extend(itertools.islice(source, size))
            ended = len(batch) < size
        except Exception as error:
            failed = error
        if batch:
            yield batch
        if failed:
            raise failed
