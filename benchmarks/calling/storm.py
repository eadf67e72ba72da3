"""The retry storm: do clients that retry lower the goodput of a saturated server?

64 clients with 4 callers each in a closed loop, without think time and whatever the outcome: more requests than the
server's queues hold. With retries, and without. Both are compared, within each round, with the server's peak: the best
of 8, 16 and 32 callers, which are no more than it accepts. The median over the rounds counts. Client and server share
the cores, and 64 clients take more of them than 32.
"""

import argparse
import asyncio
import functools
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks import results, target, workload
from benchmarks.errors import MeasurementError
from benchmarks.rounds import in_turn, median_ratio
from cli import tables
from cli.tables import Table, console
from clients import AsyncClient, ClientError, Retry
from contracts.golden import GoldenRequest

CLIENTS, _CALLERS_EACH = 64, 4
_ROWS = 16  # samples of a request, where the model takes so many
_TIMEOUT_S = 5.0
_WARM_UP_S = 1.0
_MIN_GOODPUT_SHARE = 0.9


@dataclass(frozen=True)
class _Load:
    clients: int
    callers_each: int
    retry: Retry


_LOADS = {f"{clients} callers": _Load(clients, 1, Retry()) for clients in (8, 16, 32)}
_PEAK = tuple(_LOADS)
_WITHOUT, _WITH = "storm without retries", "storm with retries"
_LOADS[_WITHOUT] = _Load(CLIENTS, _CALLERS_EACH, Retry(max_attempts=1))
_LOADS[_WITH] = _Load(CLIENTS, _CALLERS_EACH, Retry())


@dataclass(frozen=True)
class StormResult:
    """One way, and what each round gave."""

    way: str
    in_flight: int
    succeeded_per_s: tuple[float, ...]
    failed_per_s: tuple[float, ...]
    attempts_of_failed: tuple[float, ...]  # on average


def main(options: argparse.Namespace) -> int:
    """Raise the storm; return 0 if the goodput with retries is what it should be."""
    up = target.running()
    sent = workload.find(f"http://{up.http}", options.model, Path(up.repository), options.images)
    rows = max(1, min(_ROWS, sent.max_batch_size))
    requests = sent.of_rows(rows)
    workload.answers(f"http://{up.http}", requests)
    storms = measure(f"grpc://{up.grpc}", requests, options.rounds, options.seconds)
    console().print(table(storms, f"Requests of {rows} sample{'s' * (rows > 1)} to {sent.model}"))
    print(f"Sent: {sent.source}{'; no answer was wrong' * sent.has_answers}")
    found, share = findings(storms), goodput_share(storms)
    if not found:
        print(f"✓ With retries the goodput is {share:.1%} of the peak (limit: {_MIN_GOODPUT_SHARE:.0%})")
    for finding in found:
        print(f"✗ {finding}")
    ways = [asdict(storm) for storm in storms]
    figures = {"clients": CLIENTS, "goodput_share": share, "findings": found, "ways": ways}
    results.keep("storm", {"model": sent.model, "sent": sent.source, **figures})
    return 1 if found else 0


def measure(url: str, requests: Sequence[GoldenRequest], rounds: int, seconds: float) -> list[StormResult]:
    """Measure every load in turn, in every round.

    Raises:
        MeasurementError: an answer was wrong.
    """

    def measure_one(load: _Load) -> tuple[float, float, float]:
        return asyncio.run(_round(url, requests, load, seconds))

    found = in_turn({way: functools.partial(measure_one, load) for way, load in _LOADS.items()}, rounds)
    return [
        StormResult(way, load.clients * load.callers_each, *zip(*found[way], strict=True))
        for way, load in _LOADS.items()
    ]


def goodput_share(storms: Sequence[StormResult], way: str = _WITH) -> float:
    """Compare what succeeds with the same round's peak: the median over the rounds."""
    succeeded = {storm.way: storm.succeeded_per_s for storm in storms}
    peaks = [max(found) for found in zip(*(succeeded[name] for name in _PEAK), strict=True)]
    return median_ratio(succeeded[way], peaks)


def findings(storms: Sequence[StormResult]) -> list[str]:
    """Say what is wrong: too little goodput, or a storm that was none, so that it says nothing about retries."""
    found = []
    if not median(next(storm for storm in storms if storm.way == _WITHOUT).failed_per_s):
        found.append("Nothing failed even without retries: no storm, and no word on retries; more --seconds")
    if (share := goodput_share(storms)) < _MIN_GOODPUT_SHARE:
        found.append(f"With retries the goodput is {share:.1%} of the peak (limit: {_MIN_GOODPUT_SHARE:.0%})")
    return found


def table(storms: Sequence[StormResult], what: str) -> Table:
    """Lay out the medians of every load."""
    headings = ("", "in flight", "succeeded/s", "of the peak", "failed/s", "attempts of those")
    title = f"{what}: medians of {len(storms[0].succeeded_per_s)} rounds"
    shown = tables.table(*headings, title=title)
    for storm in storms:
        succeeded, failed = median(storm.succeeded_per_s), median(storm.failed_per_s)
        attempts = f"{median(storm.attempts_of_failed):.1f}" if failed else "—"
        share = f"{goodput_share(storms, storm.way):.0%}"
        shown.add_row(
            storm.way, str(storm.in_flight), f"{succeeded:,.0f}", share, f"{failed:,.0f}", attempts,
            end_section=storm.in_flight == 32,
        )  # fmt: skip
    return shown


async def _round(
    url: str, requests: Sequence[GoldenRequest], load: _Load, seconds: float
) -> tuple[float, float, float]:
    """Count successes and failures per second, and how often those that failed were sent.

    What ends within the time counts, whenever it was begun: with retries, in a storm, a request may outlast it. The
    time begins when every client has its connection, and the queues have had a second to fill.
    """
    turn, seen = itertools.cycle(requests), Counter[str]()

    async def call(client: AsyncClient) -> None:
        while time.monotonic() < end:
            request = next(turn)
            try:
                answer = await client.infer(request.model, request.inputs, outputs=[*request.answers])
                if told := request.fault(answer):
                    raise MeasurementError(f"{request.model} under load: {told}")
                found, attempts = "succeeded", 0
            except ClientError as error:
                found, attempts = "failed", error.attempts
                await asyncio.sleep(0)  # one that ends at once lets the others go on
            if end - seconds <= time.monotonic() < end:
                seen.update({found: 1, "attempts": attempts})

    made = [AsyncClient(url, timeout_s=_TIMEOUT_S, retry=load.retry) for _ in range(load.clients)]
    try:
        await asyncio.gather(*(client.live() for client in made))
        end = time.monotonic() + _WARM_UP_S + seconds
        await asyncio.gather(*(call(client) for client in made for _ in range(load.callers_each)))
    finally:
        await asyncio.gather(*(client.close() for client in made))
    return seen["succeeded"] / seconds, seen["failed"] / seconds, seen["attempts"] / max(1, seen["failed"])
