"""A server beyond its capacity: what it still answers, how fast it refuses the rest, and how soon it is itself again.

First the peak: closed loops with more and more connections. Then an open loop, whose clients do not wait for one
another: a light load, several times the peak, the light load again, each at random times (Poisson arrivals).

The generator is a process of its own, which shares the machine's cores with the server in every phase. To keep the two
apart: `taskset -c 0 python -m deploy up …`, `taskset -c 1 python -m benchmarks overload`.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient

from benchmarks.errors import MeasurementError
from benchmarks.serving import load, memory
from benchmarks.serving.load import Log, Outcome, Request
from benchmarks.serving.memory import Sample
from benchmarks.workload import Workload
from deploy.triton.state import Running

_LIGHT_PER_S = 50
BEFORE_S, AFTER_S = 3.0, 5.0  # of the light load
_ROWS_UNDER_WAY = (16, 32, 64, 128, 192)  # in the closed loops
_RECOVERED = 10  # requests in a row, all answered, in twice the time as before at most (their median)
_LOOK_EVERY_S = 2.0


@dataclass(frozen=True)
class Settings:
    workload: Workload
    rows_per_request: int = 1  # samples
    factor: float = 3  # of the peak
    seconds: float = 60
    closed_s: float = 5  # of each closed loop
    priority_share: float = 0  # of the requests: with priority 1, the others with the server's default


@dataclass(frozen=True)
class ClosedLoop:
    """What a closed loop reached."""

    connections: int
    per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class PriorityResult:
    """What became of the requests of one priority while there was too much. NaN: there is none to measure."""

    priority: int  # 0: the server's default
    offered_per_s: float
    goodput_per_s: float  # right answers
    p50_ms: float  # of those, from the scheduled time
    p99_ms: float
    shed: Mapping[str, int]  # by reason
    shed_p50_ms: float  # until the client knows
    failed: Mapping[str, int]  # by reason


@dataclass(frozen=True)
class Overload:
    """A measurement. Times are in seconds since the open loop began."""

    settings: Settings
    peaks: tuple[ClosedLoop, ...]
    queue_timeout_s: float  # of the model, or of all the ensemble's steps
    requests: tuple[Request, ...]
    log: Log
    memory: tuple[Sample, ...]  # none if the server is not ours

    @property
    def peak(self) -> ClosedLoop:
        return max(self.peaks, key=lambda peak: peak.per_s)

    @property
    def ends_s(self) -> float:
        return BEFORE_S + self.settings.seconds

    @property
    def limit_ms(self) -> float:
        """How long an answer may take: as long as it may wait, and what it takes where nothing has to."""
        return 1e3 * self.queue_timeout_s + self.peak.p99_ms

    @property
    def classes(self) -> list[PriorityResult]:
        priorities = np.array([request.priority for request in self.requests])[self.log.which]
        return [_class(self, priority, priorities == priority) for priority in np.unique(priorities).tolist()]

    @property
    def goodput_share(self) -> float:
        return sum(c.goodput_per_s for c in self.classes) / self.peak.per_s

    @property
    def unloaded_p50_ms(self) -> float:
        return 1e3 * float(np.median(self.log.latency_s[self.log.scheduled_s < BEFORE_S]))

    @property
    def recovery_s(self) -> float:
        """From the end of the load until _RECOVERED requests in a row were as good as before it; inf: never."""
        after = np.flatnonzero(self.log.scheduled_s >= self.ends_s)
        for first in range(len(after) - _RECOVERED + 1):
            row = after[first : first + _RECOVERED]
            answered = (self.log.outcome[row] == Outcome.OK).all()
            if answered and 1e3 * np.median(self.log.latency_s[row]) <= 2 * self.unloaded_p50_ms:
                return float(self.log.done_s[row].max()) - self.ends_s
        return math.inf

    @property
    def memory_mb(self) -> dict[str, list[float]]:
        """Of each process: before the load, in its first and in its second half, after it."""
        ends = (0, BEFORE_S, (BEFORE_S + self.ends_s) / 2, self.ends_s, math.inf)
        names = dict.fromkeys(sample.name for sample in self.memory)
        return {name: [_mb(self.memory, name, *span) for span in itertools.pairwise(ends)] for name in names}

    @property
    def findings(self) -> list[str]:
        """What did not hold, in a line each."""
        slowest_ms = max(c.p99_ms for c in self.classes)
        _, first_mb, second_mb, _ = np.sum(list(self.memory_mb.values()) or [[0] * 4], axis=0)
        holds = {
            f"goodput is {self.goodput_share:.0%} of the peak (limit: 90 %)": self.goodput_share >= 0.9,
            f"p99 is {slowest_ms:,.0f} ms (limit: {self.limit_ms:,.0f} ms)": slowest_ms <= self.limit_ms,
            f"memory grows from {first_mb:.0f} to {second_mb:.0f} MB (limit: 5 %)": not second_mb > 1.05 * first_mb,
            f"recovery takes {self.recovery_s:.1f} s (limit: 2 s)": self.recovery_s <= 2,
        }
        failed = [f"{count:,} requests: {reason}" for c in self.classes for reason, count in c.failed.items()]
        return [finding for finding, held in holds.items() if not held] + failed


def run(address: str, server: Running | None, settings: Settings, say: Callable[[str], None]) -> Overload:
    """Measure the server at `address`, and the memory of its processes if it is `server`, ours.

    Raises:
        MeasurementError: the server does not answer.
    """
    requests = load.with_answers(address, _requests(settings))
    connections = dict.fromkeys(max(1, rows // settings.rows_per_request) for rows in _ROWS_UNDER_WAY)
    peaks = []
    # Spawned, not forked: a process that does nothing else.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as generator:
        for count in connections:
            say(f"closed loop, {count} at a time, {settings.closed_s:g} s")
            log = generator.submit(load.closed_loop, address, requests, count, settings.closed_s).result()
            peaks.append(_peak(count, log, settings.closed_s))
        per_s = settings.factor * max(peak.per_s for peak in peaks)
        say(f"open loop, {per_s:,.0f} requests/s for {settings.seconds:g} s")
        loading = generator.submit(load.open_loop, address, requests, *_schedule(settings, per_s, len(requests)))
        samples = _watch(loading, server)
        timeout_s = _queue_timeout_s(address, settings.workload.model)
        return Overload(settings, tuple(peaks), timeout_s, tuple(requests), loading.result(), tuple(samples))


def _requests(settings: Settings) -> list[Request]:
    """Build those of the default priority, and as many with priority 1 if there are to be any."""
    found = settings.workload.of_rows(settings.rows_per_request)
    priorities = (0, 1) if settings.priority_share else (0,)
    return [load.build(request, priority) for priority in priorities for request in found]


def _schedule(settings: Settings, per_s: float, requests: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Draw when to send, and which request."""
    random = np.random.default_rng(0)
    spans = ((BEFORE_S, _LIGHT_PER_S), (settings.seconds, per_s), (AFTER_S, _LIGHT_PER_S))
    times, begin_s = [], 0.0
    for seconds, rate in spans:
        times.append(begin_s + np.sort(random.uniform(0, seconds, random.poisson(rate * seconds))))
        begin_s += seconds
    schedule_s = np.concatenate(times)
    different = requests // 2 if settings.priority_share else requests
    which = random.integers(different, size=len(schedule_s))
    return schedule_s, which + different * (random.random(len(schedule_s)) < settings.priority_share)


def _watch(loading: "Future[Log]", server: Running | None) -> list[Sample]:
    began, samples = time.monotonic(), []
    while not loading.done():
        if server is not None:
            samples += memory.sample(server, time.monotonic() - began)
        wait([loading], timeout=_LOOK_EVERY_S)
    return samples


def _queue_timeout_s(address: str, model: str) -> float:
    """Add up how long a request may wait in the model's queue, or in those of an ensemble's steps, where limited."""
    with InferenceServerClient(address) as client:
        steps = client.get_model_config(model).get("ensemble_scheduling", {}).get("step", [{"model_name": model}])
        batchers = [client.get_model_config(step["model_name"]).get("dynamic_batching", {}) for step in steps]
    policies = [batcher.get("default_queue_policy", {}) for batcher in batchers]
    return sum(int(policy.get("default_timeout_microseconds", 0)) for policy in policies) / 1e6


def _peak(connections: int, log: Log, seconds: float) -> ClosedLoop:
    answered = log.outcome == Outcome.OK
    if not (per_s := log.per_s(seconds)):
        ends = ", ".join(f"{n:,} {Outcome(outcome).name}" for outcome, n in enumerate(np.bincount(log.outcome)) if n)
        raise MeasurementError(
            f"no right answer with {connections} connections within {seconds:g} s", note=ends or "nothing was sent"
        )
    p50_ms, p99_ms = np.percentile(1e3 * log.latency_s[answered], (50, 99)).tolist()
    return ClosedLoop(connections, per_s, p50_ms, p99_ms)


def _class(result: Overload, priority: int, mask: NDArray[np.bool_]) -> PriorityResult:
    log, seconds = result.log, result.settings.seconds
    during = mask & (log.scheduled_s >= BEFORE_S) & (log.scheduled_s < result.ends_s)
    answered = mask & (log.outcome == Outcome.OK)
    p50_ms, p99_ms = _percentiles(log.latency_s[during & answered])
    shed_p50_ms, _ = _percentiles(log.latency_s[during & np.isin(log.outcome, load.SHED)])
    outcomes = np.bincount(log.outcome[during], minlength=len(Outcome)).tolist()
    ended = {outcome: count for outcome, count in zip(Outcome, outcomes, strict=True) if count}
    ended.pop(Outcome.OK, None)
    return PriorityResult(
        priority=priority,
        offered_per_s=int(during.sum()) / seconds,
        # Also what was asked before, and nothing that came after.
        goodput_per_s=int((answered & (log.done_s >= BEFORE_S) & (log.done_s < result.ends_s)).sum()) / seconds,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        shed={outcome.name: count for outcome, count in ended.items() if outcome in load.SHED},
        shed_p50_ms=shed_p50_ms,
        failed={outcome.name: count for outcome, count in ended.items() if outcome not in load.SHED},
    )


def _percentiles(latency_s: NDArray[np.float64]) -> tuple[float, float]:
    if not len(latency_s):
        return math.nan, math.nan
    p50_ms, p99_ms = np.percentile(1e3 * latency_s, (50, 99)).tolist()
    return p50_ms, p99_ms


def _mb(samples: Sequence[Sample], name: str, from_s: float, to_s: float) -> float:
    found = [sample.uss_bytes / 1e6 for sample in samples if sample.name == name and from_s <= sample.at_s < to_s]
    return float(np.median(found)) if found else math.nan
