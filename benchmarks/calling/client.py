"""What the client library costs on top of tritonclient, and what it gains for many images.

All clients send the same image to the same server. Latencies are of requests in strict turn, one of each client, as the
server itself is a tenth faster in one second than in the next; throughput is of each client in turn, in another order
each round, and compared within the round. The medians over the rounds count. The work that every caller has to do,
arrays to requests and back, is in all of them.

The library sends an id with each request, by which it knows the response, and a deadline, also as the queue timeout.
"tritonclient, same request" sends these, too, and is what the library is compared with; what they cost by themselves is
the difference to "tritonclient".
"""

import asyncio
import importlib
import itertools
import random
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from rich.progress import Progress
from rich.table import Table

from benchmarks.errors import MeasurementError
from clients import AsyncClient, Client, Prediction
from clients.settings import Protocol

_MODEL, _OUTPUT = "fashion", "label"
_AT_ONCE = (8, 32)
_PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")
_BULK = 10_000

_BARE, _SAME, _OURS = _CLIENTS = ("tritonclient", "tritonclient, same request", "ours")
_TIMEOUT_S = 10.0  # the library's default

Call = Callable[[], bytes]  # the label
AsyncCall = Callable[[], Awaitable[bytes]]


# What the library may cost, and has to gain.
_MAX_ADDED_US, _MIN_THROUGHPUT_RATIO, _MIN_BULK_RATIO = 100, 0.95, 3


@dataclass(frozen=True)
class Way:
    """One way to call, and what each round gave."""

    protocol: str
    of: str  # "threads", "asyncio"
    client: str
    p50_us: tuple[float, ...]  # one at a time
    per_s: dict[int, tuple[float, ...]]  # by how many at once


@dataclass(frozen=True)
class Bulk:
    """Many images, through classify_many and one after the other."""

    images: int
    protocol: str
    many_per_s: tuple[float, ...]
    loop_per_s: tuple[float, ...]


def overhead(
    addresses: dict[Protocol, str], image: bytes, rounds: int, seconds: float, progress: Progress
) -> list[Way]:
    """Both clients, over both protocols, from threads and from asyncio.

    Args:
        addresses: host:port of each protocol.
        seconds: Of each measurement.
    """
    seen: dict[tuple[str, str, str], list[tuple[float, dict[int, float]]]] = {}
    with ExitStack() as clients, ThreadPoolExecutor(max(_AT_ONCE)) as callers:
        threads = {
            protocol: {c: clients.enter_context(_call(protocol, addresses[protocol], image, c)) for c in _CLIENTS}
            for protocol in _PROTOCOLS
        }
        for calls in threads.values():
            _check([call() for call in calls.values()])
        for _ in progress.track(range(rounds), description="overhead"):
            for protocol, calls in threads.items():
                figures = _in_threads(calls, callers, seconds)
                for client, found in figures.items():
                    seen.setdefault((protocol, "threads", client), []).append(found)
                figures = asyncio.run(_in_a_loop(protocol, addresses[protocol], image, seconds))
                for client, found in figures.items():
                    seen.setdefault((protocol, "asyncio", client), []).append(found)
    return [
        Way(*key, tuple(p50 for p50, _ in found), {n: tuple(per_s[n] for _, per_s in found) for n in _AT_ONCE})
        for key, found in seen.items()
    ]


def bulk(addresses: dict[Protocol, str], images: Sequence[bytes], rounds: int, progress: Progress) -> list[Bulk]:
    """`classify_many` against a loop over `classify`; the loop for a tenth of the images.

    Raises:
        MeasurementError: an image was not classified.
    """
    many = [*itertools.islice(itertools.cycle(images), _BULK)]
    found = []
    for protocol in _PROTOCOLS:
        many_per_s, loop_per_s = [], []
        with Client(f"{protocol}://{addresses[protocol]}") as client:
            for _ in progress.track(range(rounds), description=f"bulk, {protocol}"):
                began = time.perf_counter()
                if failed := [o for o in client.classify_many(many) if not isinstance(o, Prediction)]:
                    raise MeasurementError(f"{len(failed):,} images failed", note=str(failed[0]))
                many_per_s.append(len(many) / (time.perf_counter() - began))
                began = time.perf_counter()
                for image in many[: _BULK // 10]:
                    client.classify(image)
                loop_per_s.append(_BULK / 10 / (time.perf_counter() - began))
        found.append(Bulk(len(many), protocol, tuple(many_per_s), tuple(loop_per_s)))
    return found


@contextmanager
def connect(protocol: str, address: str) -> Iterator[Callable[[str, Mapping[str, Any]], Mapping[str, Any]]]:
    """A connection of the drill's, through the client library."""
    with Client(f"{protocol}://{address}") as client:
        yield client.infer


def added_us(way: Way, same: Way) -> float:
    """What a request takes longer than with the other client: the median over the rounds."""
    return median(a - b for a, b in zip(way.p50_us, same.p50_us, strict=True))


def throughput_ratio(way: Way, same: Way, at_once: int) -> float:
    """Of the other client's: the median over the rounds."""
    return median(a / b for a, b in zip(way.per_s[at_once], same.per_s[at_once], strict=True))


def overhead_table(ways: Sequence[Way]) -> Table:
    """Medians, and how the library compares with tritonclient, round by round."""
    table = Table(title=f"One image to {_MODEL}: medians of {len(ways[0].p50_us)} rounds")
    for heading in ("", "client", "p50 µs"):
        table.add_column(heading, justify="right" if "p50" in heading else "left")
    for n in _AT_ONCE:
        table.add_column(f"{n} at once:\nrequests/s", justify="right")
    for way in ways:
        cells = [f"{median(way.p50_us):,.0f}", *(f"{median(way.per_s[n]):,.0f}" for n in _AT_ONCE)]
        if way.client == _OURS:
            same = _same_request(ways, way)
            cells[0] += f" ({added_us(way, same):+,.0f})"
            cells[1:] = [
                f"{cell} ({throughput_ratio(way, same, n):.2f}×)" for cell, n in zip(cells[1:], _AT_ONCE, strict=True)
            ]
        table.add_row(f"{way.protocol}, {way.of}", way.client, *cells, end_section=way.client == _OURS)
    return table


def bulk_table(found: Sequence[Bulk]) -> Table:
    table = Table(title=f"{found[0].images:,} images: medians of {len(found[0].many_per_s)} rounds")
    for heading in ("", "classify_many/s", "a loop of classify/s", "×"):
        table.add_column(heading, justify="right" if heading else "left")
    for b in found:
        many, loop = median(b.many_per_s), median(b.loop_per_s)
        table.add_row(b.protocol, f"{many:,.0f}", f"{loop:,.0f}", f"{many / loop:.1f}")
    return table


def findings(ways: Sequence[Way], found: Sequence[Bulk]) -> list[str]:
    """Where the library costs more, or gains less, than it should."""
    beyond = []
    for way in (way for way in ways if way.client == _OURS):
        same, what = _same_request(ways, way), f"{way.protocol}, {way.of}"
        if (added := added_us(way, same)) > _MAX_ADDED_US:
            beyond.append(f"{what}: {added:+.0f} µs at p50 (limit: {_MAX_ADDED_US})")
        for n in _AT_ONCE:
            if (ratio := throughput_ratio(way, same, n)) < _MIN_THROUGHPUT_RATIO:
                beyond.append(f"{what}: {ratio:.3f} of the throughput of {n} at once (limit: {_MIN_THROUGHPUT_RATIO})")
    for b in found:
        if (ratio := median(b.many_per_s) / median(b.loop_per_s)) < _MIN_BULK_RATIO:
            beyond.append(f"{b.protocol}: classify_many is {ratio:.1f}× a loop (limit: {_MIN_BULK_RATIO})")
    return beyond


def _same_request(ways: Sequence[Way], way: Way) -> Way:
    [same] = [w for w in ways if (w.protocol, w.of, w.client) == (way.protocol, way.of, _SAME)]
    return same


@contextmanager
def _call(protocol: Protocol, address: str, image: bytes, client: str) -> Iterator[Call]:
    if client == _OURS:
        with Client(f"{protocol}://{address}") as ours:
            yield lambda: bytes(ours.infer(_MODEL, {"image": [[image]]}, outputs=[_OUTPUT])[_OUTPUT][0, 0])
        return
    triton = importlib.import_module(f"tritonclient.{protocol}")
    own = threading.local()  # tritonclient's HTTP client may not be shared
    options = _options(protocol) if client == _SAME else dict

    def call() -> bytes:
        if not hasattr(own, "client"):
            own.client = triton.InferenceServerClient(address)
        inputs, outputs = _request(triton, image)
        return _label(own.client.infer(_MODEL, inputs, outputs=outputs, **options()))

    yield call


def _in_threads(
    calls: Mapping[str, Call], callers: ThreadPoolExecutor, seconds: float
) -> dict[str, tuple[float, dict[int, float]]]:
    """Of each client the median latency in µs, and requests a second by how many are under way."""
    latencies: dict[str, list[float]] = {client: [] for client in calls}
    until = time.perf_counter() + len(calls) * seconds
    while time.perf_counter() < until:
        for client, call in calls.items():
            began = time.perf_counter()
            call()
            latencies[client].append(time.perf_counter() - began)
    per_s: dict[str, dict[int, float]] = {client: {} for client in calls}
    for n in _AT_ONCE:
        for client in _shuffled(calls):
            per_s[client][n] = _per_s(callers, calls[client], n, seconds)
    return {client: (median(latencies[client]) * 1e6, per_s[client]) for client in calls}


async def _in_a_loop(
    protocol: Protocol, address: str, image: bytes, seconds: float
) -> dict[str, tuple[float, dict[int, float]]]:
    triton = importlib.import_module(f"tritonclient.{protocol}")
    aio = importlib.import_module(f"tritonclient.{protocol}.aio")
    bare = aio.InferenceServerClient(address)

    def call_bare(options: Callable[[], dict[str, Any]]) -> AsyncCall:
        async def call() -> bytes:
            inputs, outputs = _request(triton, image)
            return _label(await bare.infer(_MODEL, inputs, outputs=outputs, **options()))

        return call

    async with AsyncClient(f"{protocol}://{address}") as ours:

        async def call_ours() -> bytes:
            return bytes((await ours.infer(_MODEL, {"image": [[image]]}, outputs=[_OUTPUT]))[_OUTPUT][0, 0])

        calls = {_BARE: call_bare(dict), _SAME: call_bare(_options(protocol)), _OURS: call_ours}
        _check([await call() for call in calls.values()])
        latencies: dict[str, list[float]] = {client: [] for client in calls}
        until = time.perf_counter() + len(calls) * seconds
        while time.perf_counter() < until:
            for client, call in calls.items():
                began = time.perf_counter()
                await call()
                latencies[client].append(time.perf_counter() - began)
        per_s: dict[str, dict[int, float]] = {client: {} for client in calls}
        for n in _AT_ONCE:
            for client in _shuffled(calls):
                per_s[client][n] = await _async_per_s(calls[client], n, seconds)
    await bare.close()
    return {client: (median(latencies[client]) * 1e6, per_s[client]) for client in calls}


def _request(triton: Any, image: bytes) -> tuple[list[Any], list[Any]]:
    source = triton.InferInput("image", [1, 1], "BYTES")
    source.set_data_from_numpy(np.array([[image]], dtype=np.object_))
    return [source], [triton.InferRequestedOutput(_OUTPUT)]


def _options(protocol: Protocol) -> Callable[[], dict[str, Any]]:
    """What tritonclient is to send with a request, as ours does. Its HTTP clients take no deadline of their own."""
    with_a_deadline = {"client_timeout": _TIMEOUT_S} if protocol == "grpc" else {}
    return lambda: {"request_id": uuid.uuid4().hex, "timeout": round(_TIMEOUT_S * 1e6), **with_a_deadline}


def _label(result: Any) -> bytes:
    return bytes(result.as_numpy(_OUTPUT)[0, 0])


def _shuffled(calls: Mapping[str, Any]) -> list[str]:
    return random.sample(list(calls), len(calls))


def _check(labels: list[bytes]) -> None:
    if len({*labels}) != 1:
        raise MeasurementError("the clients do not agree on the label")


def _per_s(callers: ThreadPoolExecutor, call: Call, at_once: int, seconds: float) -> float:
    until = time.perf_counter() + seconds

    def work() -> int:
        count = 0
        while time.perf_counter() < until:
            call()
            count += 1
        return count

    return sum(f.result() for f in [callers.submit(work) for _ in range(at_once)]) / seconds


async def _async_per_s(call: AsyncCall, at_once: int, seconds: float) -> float:
    until = time.perf_counter() + seconds

    async def work() -> int:
        count = 0
        while time.perf_counter() < until:
            await call()
            count += 1
        return count

    return sum(await asyncio.gather(*(work() for _ in range(at_once)))) / seconds
