"""Latency and throughput of several callers, interleaved.

Latencies are of requests in strict turn, one of each caller; throughput is of each caller in turn, in another order
each round.
"""

import functools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.calling.callers import MAX_AT_ONCE, Caller
from benchmarks.errors import MeasurementError
from benchmarks.rounds import in_turn
from deploy.triton.payload import same_answer

AT_ONCE = (8, MAX_AT_ONCE)


@dataclass(frozen=True)
class CallerResult:
    """One caller, and what each round gave."""

    protocol: str
    of: str  # "threads", "asyncio"
    client: str
    p50_us: tuple[float, ...]  # one at a time
    per_s: dict[int, tuple[float, ...]]  # by how many at once


def measure(callers: Mapping[tuple[str, str], Mapping[str, Caller]], rounds: int, seconds: float) -> list[CallerResult]:
    """Compare the callers of each protocol and kind, {(protocol, kind): {client: caller}}.

    Args:
        seconds: Of each measurement: one at a time, and each number at once.

    Raises:
        MeasurementError: callers that are compared do not get the same answer.
    """
    for compared in callers.values():
        first, *others = (caller.answer() for caller in compared.values())
        if not all(same_answer(other, first) for other in others):
            raise MeasurementError("the clients do not agree on the answer")
    found = in_turn({way: functools.partial(_round, compared, seconds) for way, compared in callers.items()}, rounds)
    return [
        CallerResult(
            *way,
            client,
            tuple(figures[client][0] for figures in by_round),
            {n: tuple(figures[client][1][n] for figures in by_round) for n in AT_ONCE},
        )
        for way, by_round in found.items()
        for client in callers[way]
    ]


def same_way(results: Sequence[CallerResult], result: CallerResult, client: str) -> CallerResult:
    """Find what another client gave over the same protocol, and of the same kind."""
    [other] = [r for r in results if (r.protocol, r.of, r.client) == (result.protocol, result.of, client)]
    return other


def _round(callers: Mapping[str, Caller], seconds: float) -> dict[str, tuple[float, dict[int, float]]]:
    """Measure of each caller the median latency in µs, and requests a second by how many are under way."""
    latencies_s: dict[str, list[float]] = {client: [] for client in callers}
    until = time.perf_counter() + len(callers) * seconds
    while time.perf_counter() < until:
        for client, caller in callers.items():
            latencies_s[client].append(caller.latency_s())
    per_s: dict[str, dict[int, float]] = {client: {} for client in callers}
    for n in AT_ONCE:
        for client in random.sample(list(callers), len(callers)):
            per_s[client][n] = callers[client].per_s(n, seconds)
    return {client: (median(latencies_s[client]) * 1e6, per_s[client]) for client in callers}
