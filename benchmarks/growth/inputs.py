"""Requests that grow in size: images of more pixels, texts of more words."""

import io
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.growth.asked import Point, ask
from benchmarks.releases.checkout import Up
from benchmarks.workload import Workload
from contracts.golden import GoldenRequest

_DIFFERENT = 8  # requests of each size


def images(up: Up, sent: Workload, sides: Sequence[int], seconds: float) -> Iterator[Point]:
    """Ask about PNGs of more and more pixels, square: golden ones that are enlarged, with some noise.

    Nobody knows what is in them, so answers are compared with the idle server's.
    """
    for side in sides:
        enlarged = [_enlarged(image, side, seed) for seed, image in enumerate(sent.images[:_DIFFERENT])]
        yield ask(up, side, [_request(sent, image) for image in enlarged], seconds)


def texts(up: Up, sent: Workload, words: Sequence[int], seconds: float) -> Iterator[Point]:
    """Ask about texts of more and more words, put together of the golden ones; the model refuses what is too long."""
    known = [word for request in sent.rows for word in bytes(next(iter(request.inputs.values())).ravel()[0]).split()]
    random = np.random.default_rng(0)
    for count in words:
        made = [b" ".join(known[place] for place in random.integers(len(known), size=count)) for _ in range(_DIFFERENT)]
        yield ask(up, count, [_request(sent, text) for text in made], seconds)


def _request(sent: Workload, content: bytes) -> GoldenRequest:
    [name] = sent.rows[0].inputs
    return GoldenRequest(sent.model, {name: np.array([[content]], np.object_)}, {})


def _enlarged(image: bytes, side: int, seed: int) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        pixels = np.asarray(opened.convert("L").resize((side, side)), np.float64)
    noisy = pixels + np.random.default_rng(seed).normal(0, 4, pixels.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
