"""Several families in one server: the memory of each, and what each answers alone and beside the others' load.

Each is asked its golden requests. First each alone in a closed loop, for its peak; then, in rounds, in an open loop at
a quarter of that peak: alone, and while all others together are asked for half of what the machine can do, each of
them for its share of that.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.errors import MeasurementError
from benchmarks.rounds import in_turn
from benchmarks.serving import load
from benchmarks.serving.load import Log, Outcome
from clients import Client
from contracts import bundle, golden, repository
from deploy.running import workers
from deploy.triton import state
from deploy.triton.state import Running

SHARE = 0.25  # of its own peak that the family that is looked at is asked for
OTHERS = 0.5  # of what the machine can do that all others are asked for together
_CONNECTIONS = 8  # of the closed loop
_FEWEST = 20  # requests of a measurement: with fewer there is no 99th percentile


@dataclass(frozen=True)
class Family:
    """A release, or a model that was put there by hand, and the requests for it."""

    model: str  # that is asked: the ensemble, or the network where there is none
    models: tuple[str, ...]  # all that serve it
    version: int
    requests: tuple[load.Request, ...]


@dataclass(frozen=True)
class Memory:
    """The processes that are a family's own."""

    processes: int
    own_mb: float  # what would be free without them
    proportional_mb: float  # and their part of what they share


@dataclass(frozen=True)
class Latency:
    """Latencies of a family in one measurement, in ms, and how many requests were not answered right."""

    p50_ms: float
    p99_ms: float
    requests: int
    failed: int


@dataclass(frozen=True)
class Measured:
    """What was measured of a family."""

    family: Family
    memory: Memory | None  # None: it runs inside of tritonserver, as with native backends
    peak_per_s: float
    alone: tuple[Latency, ...]  # one a round
    beside: tuple[Latency, ...]  # while the others are asked, too; none where there are no others


def find(up: Running, only: Sequence[str] = ()) -> list[Family]:
    """Find the families that a server has, with golden requests and the answers of the idle server.

    Args:
        only: The models to ask; none: all that have golden requests.

    Raises:
        MeasurementError: there is none, or one answers wrong.
        ManifestError: a release is damaged.
    """
    root, found = Path(up.repository), []
    with Client(up.http_url) as client:
        for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
            versions = repository.versions(folder)
            requests = golden.read(folder / str(versions[-1])) if versions else ()
            asked = _asked({request.model for request in requests}, folder.name)
            if asked is None or (only and asked not in only) or not client.ready(asked):
                continue
            built = [load.build(request) for request in requests if request.model == asked]
            known = load.with_answers(up.http, built)
            of = bundle.of(root, folder.name, versions[-1])
            found.append(Family(asked, tuple(of.models), of.version, tuple(known)))
    if missing := sorted({*only} - {family.model for family in found}):
        raise MeasurementError(f"{missing[0]} is not served, or has no golden requests")
    if not found:
        raise MeasurementError("no model that is served has golden requests", hint="export one: python -m export")
    return found


def run(up: Running, families: Sequence[Family], rounds: int, seconds: float) -> list[Measured]:
    """Measure each family alone and beside the others.

    Args:
        seconds: Of each of the measurements: one a family for its peak, two a family in a round.
    """
    peaks = {family.model: _peak_per_s(up.http, family, seconds) for family in families}
    rates = {family.model: SHARE * peaks[family.model] for family in families}
    others = len(families) - 1
    ways = {(family.model, "alone"): functools.partial(_ask, up.http, [(family, rates[family.model])], seconds)
            for family in families}  # fmt: skip
    for family in families if others else ():
        beside = [(other, OTHERS * peaks[other.model] / others) for other in families if other is not family]
        asked = [(family, rates[family.model]), *beside]
        ways[family.model, "beside"] = functools.partial(_ask, up.http, asked, seconds)
    found = in_turn(ways, rounds)
    held = memory_of(up, families)
    return [
        Measured(
            family,
            held.get(family.model),
            peaks[family.model],
            tuple(found[family.model, "alone"]),
            tuple(found.get((family.model, "beside"), ())),
        )
        for family in families
    ]


def memory_of(up: Running, families: Sequence[Family]) -> dict[str, Memory]:
    """Measure the processes that run the models of each family; what two families share counts for both."""
    processes: dict[str, list[psutil.Process]] = {family.model: [] for family in families}
    for process in workers.find(up.shared_memory):
        worker = workers.identify(process)
        for family in families if worker else ():
            if worker and worker.model.partition(".of_")[0] in family.models:
                processes[family.model].append(process)
    return {name: _memory(own) for name, own in processes.items() if own}


def server_mb(up: Running) -> float:
    """Return the own memory of tritonserver, which all families share."""
    process = state.process(up.triton)
    return process.memory_full_info().uss / 1e6 if process is not None else 0.0


def _asked(models: set[str], network: str) -> str | None:
    """Return the model to ask, of those that have golden requests: an ensemble before its network."""
    return min(models - {network}, default=network if models else None)


def _memory(processes: Sequence[psutil.Process]) -> Memory:
    used = [process.memory_full_info() for process in processes]
    return Memory(len(used), sum(m.uss for m in used) / 1e6, sum(m.pss for m in used) / 1e6)


def _peak_per_s(http: str, family: Family, seconds: float) -> float:
    log = load.closed_loop(http, family.requests, _CONNECTIONS, seconds)
    _refuse_wrong(family, log, slice(None))
    return len(log.outcome) / float(log.done_s.max())


def _ask(http: str, asked: Sequence[tuple[Family, float]], seconds: float) -> Latency:
    """Ask several families at once, each at its rate a second; return the latencies of the first."""
    random = np.random.default_rng(0)
    schedules, which, start = list[NDArray[np.float64]](), list[NDArray[np.intp]](), 0
    for family, rate_per_s in asked:
        count = max(_FEWEST, round(rate_per_s * seconds))
        schedules.append(np.sort(random.uniform(0, seconds, count)))
        which.append(start + np.arange(count) % len(family.requests))
        start += len(family.requests)
    order = np.argsort(np.concatenate(schedules), kind="stable")
    requests = [request for family, _ in asked for request in family.requests]
    log = load.open_loop(http, requests, np.concatenate(schedules)[order], np.concatenate(which)[order])
    first, _ = asked[0]
    own = log.which < len(first.requests)
    _refuse_wrong(first, log, own)
    right = own & (log.outcome == Outcome.OK)
    p50_ms, p99_ms = (1e3 * float(p) for p in np.percentile(log.latency_s[right], (50, 99)))
    return Latency(p50_ms, p99_ms, int(own.sum()), int((own & ~right).sum()))


def _refuse_wrong(family: Family, log: Log, own: NDArray[np.bool_] | slice) -> None:
    outcomes = log.outcome[own]
    if wrong := int((outcomes == Outcome.WRONG).sum()):
        raise MeasurementError(f"{family.model} gave {wrong} of {len(outcomes)} wrong answers under load")
    if not (outcomes == Outcome.OK).any():
        raise MeasurementError(f"{family.model} answered none of {len(outcomes)} requests under load")
