"""The retry storm: do clients that retry lower the goodput of a saturated server?

64 clients with 4 callers each in a closed loop, without think time and whatever the outcome: more requests than the
server's queues hold. With retries, and without. Both are compared, within each round, with the server's peak: the best
of 8, 16 and 32 callers, which are no more than it accepts. The median over the rounds counts. Client and server share
the cores, and 64 clients take more of them than 32.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.progress import Progress
from rich.table import Table

from clients import AsyncClient, ClientError, Retry

CLIENTS, _CALLERS_EACH = 64, 4
_IMAGES = 16  # a request
_TIMEOUT_S = 5.0
_WARM_UP_S = 1.0
# Clients, callers of each, and their retries.
_WAYS = {f"{clients} callers": (clients, 1, Retry()) for clients in (8, 16, 32)}
_PEAK = tuple(_WAYS)
_WITHOUT, _WITH = "storm without retries", "storm with retries"
_WAYS[_WITHOUT] = (CLIENTS, _CALLERS_EACH, Retry(max_attempts=1))
_WAYS[_WITH] = (CLIENTS, _CALLERS_EACH, Retry())


@dataclass(frozen=True)
class Storm:
    """One way, and what each round gave."""

    way: str
    in_flight: int
    succeeded_per_s: tuple[float, ...]
    failed_per_s: tuple[float, ...]
    attempts_of_failed: tuple[float, ...]  # on average


def measure(url: str, images: Sequence[bytes], rounds: int, seconds: float, progress: Progress) -> list[Storm]:
    """Each way in turn, in every round."""
    source = itertools.cycle(images)
    batch = [[next(source)] for _ in range(_IMAGES)]
    seen: dict[str, list[tuple[float, float, float]]] = {way: [] for way in _WAYS}
    for _ in progress.track(range(rounds), description="rounds"):
        for way, (clients, callers, retry) in _WAYS.items():
            seen[way].append(asyncio.run(_round(url, batch, clients, callers, retry, seconds)))
    return [Storm(way, _WAYS[way][0] * _WAYS[way][1], *zip(*seen[way], strict=True)) for way in _WAYS]


def goodput_share(storms: Sequence[Storm], way: str = _WITH) -> float:
    """What succeeds, of the same round's peak: the median over the rounds."""
    succeeded = {storm.way: storm.succeeded_per_s for storm in storms}
    peaks = (max(found) for found in zip(*(succeeded[name] for name in _PEAK), strict=True))
    shares: list[float] = [one / peak for one, peak in zip(succeeded[way], peaks, strict=True)]
    return median(shares)


def table(storms: Sequence[Storm]) -> Table:
    shown = Table(title=f"Requests of {_IMAGES} images: medians of {len(storms[0].succeeded_per_s)} rounds")
    for heading in ("", "in flight", "succeeded/s", "of the peak", "failed/s", "attempts of those"):
        shown.add_column(heading, justify="right" if heading else "left")
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
    url: str, batch: list[list[bytes]], clients: int, callers: int, retry: Retry, seconds: float
) -> tuple[float, float, float]:
    """Successes and failures per second, and how often those that failed were sent."""
    begin = time.monotonic() + _WARM_UP_S
    seen: Counter[str] = Counter()

    async def call(client: AsyncClient) -> None:
        while (now := time.monotonic()) < begin + seconds:
            try:
                await client.infer("fashion", {"image": batch}, outputs=["label"])
                found, attempts = "succeeded", 0
            except ClientError as error:
                found, attempts = "failed", error.attempts
                await asyncio.sleep(0)  # one that ends at once lets the others go on
            if now >= begin:
                seen.update({found: 1, "attempts": attempts})

    made = [AsyncClient(url, timeout_s=_TIMEOUT_S, retry=retry) for _ in range(clients)]
    try:
        await asyncio.gather(*(call(client) for client in made for _ in range(callers)))
    finally:
        await asyncio.gather(*(client.close() for client in made))
    return seen["succeeded"] / seconds, seen["failed"] / seconds, seen["attempts"] / max(1, seen["failed"])
