"""Clients that retry, before a server that has too much to do: do they make it worse?

Many clients, each with several callers that send their next request when the last one has ended, however it did: more
than the server's queues hold. With retries, without, and few enough that nothing is refused: the peak.
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

CLIENTS, _CALLERS_EACH, _PEAK_CLIENTS = 64, 4, 16
_IMAGES = 16  # a request
_TIMEOUT_S = 5.0
_WARM_UP_S = 1.0
_WAYS = {"peak": (_PEAK_CLIENTS, 1, Retry()), "no retries": (CLIENTS, _CALLERS_EACH, Retry(max_attempts=1))}
_WAYS["retries"] = (CLIENTS, _CALLERS_EACH, Retry())


@dataclass(frozen=True)
class Storm:
    """One way, and what each round gave."""

    way: str
    requests_under_way: int
    answered_per_s: tuple[float, ...]
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


def goodput_share(storms: Sequence[Storm]) -> float:
    """What is answered in spite of the retries, of the peak."""
    by = {storm.way: median(storm.answered_per_s) for storm in storms}
    return by["retries"] / by["peak"]


def table(storms: Sequence[Storm]) -> Table:
    shown = Table(title=f"Requests of {_IMAGES} images: medians of {len(storms[0].answered_per_s)} rounds")
    for heading in ("", "callers", "answered/s", "of the peak", "failed/s", "attempts of those"):
        shown.add_column(heading, justify="right" if heading else "left")
    peak = median(storms[0].answered_per_s)
    for storm in storms:
        answered, failed = median(storm.answered_per_s), median(storm.failed_per_s)
        attempts = f"{median(storm.attempts_of_failed):.1f}" if failed else "—"
        shown.add_row(
            storm.way,
            str(storm.requests_under_way),
            f"{answered:,.0f}",
            f"{answered / peak:.0%}",
            f"{failed:,.0f}",
            attempts,
        )
    return shown


async def _round(
    url: str, batch: list[list[bytes]], clients: int, callers: int, retry: Retry, seconds: float
) -> tuple[float, float, float]:
    """Answers and failures a second, and how often those that failed were sent."""
    begin = time.monotonic() + _WARM_UP_S
    seen: Counter[str] = Counter()

    async def call(client: AsyncClient) -> None:
        while (now := time.monotonic()) < begin + seconds:
            try:
                await client.infer("fashion", {"image": batch}, outputs=["label"])
                found, attempts = "answered", 0
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
    return seen["answered"] / seconds, seen["failed"] / seconds, seen["attempts"] / max(1, seen["failed"])
