"""The server's answers: one request at a time against the plan's own, then many at once against the reference's."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.gpu_day.checks import offline
from benchmarks.gpu_day.checks.offline import Served
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record
from benchmarks.gpu_day.serving import Serving, serving
from clients import Client
from clients.errors import ClientError
from contracts.golden import GoldenRequest
from contracts.samples import Batch

_REPEATS = 30  # requests of a size, for its time
_CONNECTIONS = 8

Answers = dict[int, Batch]  # of the request of so many rows


def look(day: Day, record: Record) -> None:
    """Hold the answers of batches alone to the plan's own, bit for bit; then `day.requests` in any company."""
    release = offline.served(day)
    with serving(day, "answers") as server:
        record.figure(triton=server.version())
        asked = requests(server, release)
        with offline.runner(day, release) as run:
            expected = {rows: run(request.inputs) for rows, request in asked.items()}
        found = one_at_a_time(server, asked)
        compare(record, found.answers, expected, "one request at a time")
        record.figure(alone=found.rows)
        under_load(server, list(asked.values()), day.requests, record, "in company", list(expected.values()))


@dataclass
class Alone:
    """What requests that came one at a time were answered, and how long that took."""

    answers: Answers = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def requests(server: Serving, release: Served) -> dict[int, GoldenRequest]:
    """Make a request of each size that the model takes, {rows: request}."""
    with Client(f"http://{server.http}") as client:
        most = client.metadata(release.model).max_batch_size
    made = {size: release.of_rows(size) if most else release.requests[0] for size in offline.sizes(most)}
    return {size: request for size, request in made.items() if request is not None}


def one_at_a_time(server: Serving, asked: dict[int, GoldenRequest]) -> Alone:
    """Send each some times over gRPC, with nothing else under way: what is computed is what was sent."""
    found = Alone()
    with Client(f"grpc://{server.grpc}") as client:
        for rows, request in asked.items():
            times_ms = []
            for _ in range(_REPEATS):
                started = time.perf_counter()
                answer = client.infer(request.model, request.inputs, outputs=[*request.answers])
                times_ms.append((time.perf_counter() - started) * 1e3)
            found.answers[rows] = answer
            p99 = float(np.percentile(times_ms, 99))
            found.rows.append({"rows": rows, "median ms": statistics.median(times_ms), "p99 ms": p99})
    return found


def compare(record: Record, found: Answers, expected: Answers, when: str) -> None:
    """Check that answers are the same bits, and say of those that are not how far they are."""
    apart = {rows: offline.largest_difference(answer, expected[rows]) for rows, answer in found.items()}
    other = {rows: distance for rows, distance in apart.items() if distance > 0}
    told = ", ".join(f"batch {rows}: {distance:.3g} away" for rows, distance in other.items())
    sizes = ", ".join(map(str, found))
    record.check(f"{when}: bit for bit what it gives offline", not other, told or f"at batches {sizes}")


def under_load(
    server: Serving,
    asked: Sequence[GoldenRequest],
    count: int,
    record: Record,
    when: str,
    expected: Sequence[Batch] = (),
) -> None:
    """Send `count` requests of all sizes over some connections; each answer is held to its golden tolerance.

    Args:
        expected: What each gives offline, to count the same bits: requests that came together are computed together,
            which may cost the last of them.
    """
    started = time.monotonic()
    shares = [count // _CONNECTIONS + (number < count % _CONNECTIONS) for number in range(_CONNECTIONS)]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        done = list(pool.map(lambda job: _ask(server, asked, expected, *job), enumerate(shares)))
    outcomes = sum((share.outcomes for share in done), Counter[str]())
    rows, took_s = sum(share.rows for share in done), time.monotonic() - started
    wrong = {said: number for said, number in outcomes.items() if said}
    found = {"answers": count, "rows": rows, "seconds": took_s, "rows per s": rows / took_s}
    if expected:
        found["same bits as offline"] = sum(share.same for share in done)
    record.figure(**{when.replace(" ", "_"): [found]})
    told = "; ".join(f"{number}: {said}" for said, number in list(wrong.items())[:3])
    record.check(f"{when}: {count:,} answers within the golden tolerance", not wrong, told)


@dataclass
class _Share:
    """What came of the requests of one connection."""

    outcomes: Counter[str] = field(default_factory=Counter)  # {what is wrong, "" if nothing is: how often}
    rows: int = 0
    same: int = 0  # answers of the very bits


def _ask(server: Serving, asked: Sequence[GoldenRequest], expected: Sequence[Batch], number: int, count: int) -> _Share:
    share = _Share()
    url = f"grpc://{server.grpc}" if number % 2 else f"http://{server.http}"
    with Client(url) as client:
        for place in ((number + sent) % len(asked) for sent in range(count)):
            request = asked[place]
            share.rows += request.rows
            try:
                answer = client.infer(request.model, request.inputs, outputs=[*request.answers])
            except ClientError as error:
                share.outcomes[str(error).partition("\n")[0]] += 1
                continue
            share.outcomes[request.fault(answer) or ""] += 1
            if expected:
                share.same += not offline.largest_difference(answer, expected[place])
    return share
