"""Broken images by the thousand, among good ones: no process dies, no neighbour gets another answer.

    FUZZ_INPUTS=100000 python -m pytest tests/model_repository/test_fuzz.py -s     (some minutes)

Input number n is always the same: `mutated(n)` makes it again.
"""

import os
import random
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import tritonclient.grpc
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.conftest import RunningServer
from tests.model_repository.conftest import preprocess_on, workers_of
from tests.model_repository.files import SIGNATURE, chunk, exif, png, saved, with_segment
from tests.workspace import FAMILY, PREPROCESS
from training import families

COUNT = int(os.environ.get("FUZZ_INPUTS", "4000"))
THREADS = 32
# What a worker may grow by. One image needs up to 53 MB while it is decoded, and malloc keeps some of it.
MAX_GROWTH_BYTES = 64 * 1024 * 1024


@cache
def good() -> list[tuple[bytes, NDArray[np.uint8]]]:
    """Real images as files, and their pixels."""
    images = families.load(FAMILY).data().split("test").first(8).groups[0].inputs["pixels"][:, 0]
    return [(saved(Image.fromarray(pixels), "PNG"), pixels) for pixels in images]


@cache
def corpus() -> list[bytes]:
    """Real images in every format that is read: what mutations start from."""
    real = np.stack([pixels for _, pixels in good()])
    grey = [Image.fromarray(pixels) for pixels in real]
    rgb = Image.merge("RGB", grey[:3])
    samples = real.transpose(1, 2, 0).astype(int)
    palette = chunk(b"PLTE", bytes(range(255))) + chunk(b"tRNS", bytes(range(0, 170, 2)))
    return [
        good()[0][0],
        saved(rgb, "PNG"),
        png(samples[..., :1] * 257, 0, 16, chunk(b"tRNS", b"\0\0")),
        png(samples[..., :4], 6, 8, chunk(b"eXIf", exif(6)), interlaced=True),
        png(samples[..., :2], 4, 8, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"text")), interlaced=True),
        png(samples[..., :1] % 85, 3, 8, palette),
        png(samples[..., :1] % 16, 0, 4, interlaced=True),
        saved(grey[1], "JPEG"),
        with_segment(saved(rgb, "JPEG"), 0xE1, b"Exif\0\0" + exif(8, ">")),
        saved(rgb, "JPEG", progressive=True),
        saved(Image.merge("CMYK", grey[:4]), "JPEG"),
        saved(grey[2].resize((200, 150)), "JPEG", restart_marker_blocks=2),
    ]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 64) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    end = start + rng.randrange(1, 256)
    return data[:start] + data[start:end] * rng.choice([2, 3, 50]) + data[end:]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.choice([1, 2, 4, 32])) + data[at:]


def set_extremes(data: bytes, rng: random.Random) -> bytes:
    """Lengths, sizes and counts are where these numbers hurt."""
    at, value = rng.randrange(len(data)), rng.choice([b"\0", b"\xff", b"\x7f\xff", b"\0\0\0\0", b"\xff\xff\xff\xff"])
    return data[:at] + value + data[at + len(value) :]


def splice(data: bytes, rng: random.Random) -> bytes:
    """The start of one file and the end of another, which may be of the other format."""
    other = rng.choice(corpus())
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def rearrange_parts(data: bytes, rng: random.Random) -> bytes:
    """Chunks or segments dropped, doubled, swapped, or taken from another file."""
    parts, others = split(data), split(rng.choice(corpus()))
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(parts))
        parts[at : at + 1] = rng.choice([[], [parts[at]] * 2, [rng.choice(parts)], [rng.choice(others), parts[at]]])
        parts = parts or others
    return b"".join(parts)


def break_within_parts(data: bytes, rng: random.Random) -> bytes:
    """Broken bytes in a chunk whose length and checksum are right: only what reads the content notices."""
    parts = split(data)
    at = rng.randrange(1, len(parts))
    if data.startswith(SIGNATURE):
        kind, body = parts[at][4:8], parts[at][8:-4]
        if kind == b"IDAT" and rng.random() < 0.7:
            body = zlib.compress(rng.choice(BYTES)(zlib.decompress(body), rng))
        elif body:
            body = rng.choice(BYTES)(body, rng)
        parts[at] = chunk(kind, body)
    elif len(parts[at]) > 4:
        parts[at] = parts[at][:4] + flip_bits(parts[at][4:], rng)
    return b"".join(parts)


def change_header(data: bytes, rng: random.Random) -> bytes:
    """A header that is right in itself, of another image."""
    if data.startswith(SIGNATURE):
        size = [rng.choice([0, 1, 27, 28, 29, 56, 1024, 65536, 2**31]) for _ in "wh"]
        depth, colour = rng.choice([1, 2, 4, 8, 16]), rng.choice([0, 2, 3, 4, 6])
        return (
            SIGNATURE
            + chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, rng.randrange(2)))
            + data[33:]
        )
    frame = re.search(rb"\xff[\xc0-\xc2]", data)
    assert frame
    size = [rng.choice([0, 1, 27, 28, 29, 200, 1024, 65535]) for _ in "hw"]
    return data[: frame.start() + 5] + struct.pack(">HHB", *size, rng.randrange(5)) + data[frame.start() + 10 :]


def random_bytes(data: bytes, rng: random.Random) -> bytes:
    """Behind a signature, or without one."""
    return rng.choice([data[:8], data[:2], b"\xff\xd8\xff", b""]) + rng.randbytes(rng.choice([0, 1, 16, 1000]))


BYTES: list[Callable[[bytes, random.Random], bytes]] = [flip_bits, cut_out, repeat, insert, set_extremes]
MUTATIONS = [
    *BYTES,
    truncate,
    splice,
    rearrange_parts,
    break_within_parts,
    break_within_parts,
    change_header,
    random_bytes,
]


def split(data: bytes) -> list[bytes]:
    """A file of the corpus as its signature and chunks, or its segments."""
    if not data.startswith(SIGNATURE):
        return re.split(rb"(?=\xff[\xc0-\xcf\xd8-\xfe])", data)[1:]
    parts, start = [SIGNATURE], len(SIGNATURE)
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        parts.append(data[start:end])
        start = end
    return parts


def mutated(number: int) -> bytes:
    rng = random.Random(number)
    return rng.choice(MUTATIONS)(rng.choice(corpus()), rng)


def outcome(client: tritonclient.grpc.InferenceServerClient, number: int) -> str:
    """Sends input `number`, and with every third one an image whose pixels are known."""
    if number % 3 == 0:
        image, pixels = good()[number % len(good())]
        np.testing.assert_array_equal(preprocess_on(client, image)[0], pixels, f"beside input {number}")
    try:
        pixels = preprocess_on(client, mutated(number))
    except InferenceServerException as error:
        assert error.status() == "StatusCode.INVALID_ARGUMENT", f"input {number}: {error}"
        return "refused"
    assert pixels.shape == (1, 28, 28), f"input {number}"
    return "answered"


def requests_and_calls(client: tritonclient.grpc.InferenceServerClient) -> tuple[int, int]:
    [stats] = client.get_inference_statistics(PREPROCESS).model_stats
    return stats.inference_stats.success.count + stats.inference_stats.fail.count, stats.execution_count


@pytest.mark.timeout(3600)
def test_no_broken_image_harms_a_process_or_a_neighbour(server: RunningServer) -> None:
    workers = workers_of(server)
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client, ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: outcome(client, number), range(-200, 0)))  # the workers at their usual size
        usual_bytes = {worker: worker.memory_info().rss for worker in workers}
        requests, calls = requests_and_calls(client)
        ends = Counter(pool.map(lambda number: outcome(client, number), range(COUNT)))
        requests, calls = np.subtract(requests_and_calls(client), (requests, calls))
    growth_bytes = max(worker.memory_info().rss - usual_bytes[worker] for worker in workers)
    print(f"\n{COUNT:,} broken images: {dict(ends)}; no worker grew by more than {growth_bytes / 2**20:.1f} MB")
    assert workers_of(server) == workers, "a worker was replaced"
    assert growth_bytes < MAX_GROWTH_BYTES
    assert min(ends["refused"], ends["answered"]) > COUNT / 50, "the mutations are too gentle, or too rough"
    assert calls < 0.9 * requests, "broken images and good ones were not batched"
