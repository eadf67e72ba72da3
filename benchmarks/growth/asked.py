"""A server that is up, asked with requests that grow: in rows, in size, in number."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.errors import MeasurementError
from benchmarks.releases.checkout import Checkout, Up
from benchmarks.serving import load, processes
from benchmarks.serving.load import Outcome
from benchmarks.workload import Workload
from clients import Client
from contracts import golden, layout
from contracts.golden import GoldenRequest

CONNECTIONS = 8  # where the number of connections is not what grows


@dataclass(frozen=True)
class Point:
    """What one size gave."""

    size: int
    per_s: float  # samples a second, answered right
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of a sample
    memory_mb: float  # of all of the server's processes
    refused: float = 0.0  # share of the requests
    lost: float = 0.0  # share of those without any answer, or with a wrong one


@contextmanager
def serving(repository: Path, place: Path) -> Iterator[Up]:
    """Serve a repository until the block ends.

    Raises:
        MeasurementError: it does not start.
    """
    with Checkout(layout.ROOT, place).serving(repository) as up:
        yield up


def workload(up: Up, repository: Path, model: str) -> Workload:
    """Find the golden requests of a model.

    Raises:
        MeasurementError: there are none.
    """
    if not (found := golden.one_way(golden.find(repository, model))):
        raise MeasurementError(f"{model} has no golden requests in {layout.shown(repository)}")
    with Client(f"http://{up.http}") as client:
        return Workload(client.metadata(model), found, f"{len(found)} golden requests")


def rows(up: Up, sent: Workload, sizes: Sequence[int], seconds: float) -> Iterator[Point]:
    """Ask with more and more samples in a request, as many as the model takes."""
    for size in sizes:
        if size <= sent.max_batch_size:
            yield ask(up, size, sent.of_rows(size), seconds, rows=size)


def connections(up: Up, sent: Workload, sizes: Sequence[int], seconds: float) -> Iterator[Point]:
    """Ask with a sample a request over more and more connections."""
    for size in sizes:
        yield ask(up, size, sent.of_rows(1), seconds, connections=size)


def ask(
    up: Up,
    size: int,
    requests: Sequence[GoldenRequest],
    seconds: float,
    *,
    rows: int = 1,
    connections: int = CONNECTIONS,
) -> Point:
    """Ask in a closed loop.

    Raises:
        MeasurementError: the idle server answers wrong, or gave no right answer in time.
    """
    known = load.with_answers(up.http, [load.build(request) for request in requests])
    before_s = processes.cpu_s(up.pid)
    log = load.closed_loop(up.http, known, connections, seconds)
    used_s, right = processes.cpu_s(up.pid) - before_s, log.outcome == Outcome.OK
    if not (per_s := log.per_s(seconds)):
        raise MeasurementError(f"{size}: no right answer from {up.http} within {seconds:g} s")
    p50_ms, p99_ms = np.percentile(1e3 * log.latency_s[right], (50, 99)).tolist()
    refused = np.isin(log.outcome, load.SHED)
    return Point(
        size=size,
        per_s=rows * per_s,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        cpu_us=1e6 * used_s / (rows * int(right.sum())),
        memory_mb=processes.memory_mb(up.pid),
        refused=float(refused.mean()),
        lost=float((~right & ~refused).mean()),
    )


def without_answers(requests: Sequence[GoldenRequest]) -> list[GoldenRequest]:
    """Return requests that are compared with what the idle server says alone."""
    return [replace(request, answers={}) for request in requests]
