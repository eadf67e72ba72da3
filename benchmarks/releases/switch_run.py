"""Switch between two releases under load, 1 → 2 → 1 → 2 → killed server → 1, and look at every answer."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path

import numpy as np
import psutil

from benchmarks import own_server
from benchmarks.releases import two_releases
from benchmarks.releases.asking import MIXED, Asked, Asking
from benchmarks.releases.two_releases import KINDS, NETWORK
from cli.progress import Bar, bar
from deploy.drill import kills
from deploy.drill.server_copy import DrillCopy, server_over_a_copy

_QUIET_S = 2.0  # at least, between the changes
_LOOK_EVERY_S = 0.25  # at the memory
_KILL = "server killed"
# What is done, and the release that answers from then on.
_CHANGES: tuple[tuple[str, Callable[[DrillCopy], str], int], ...] = (
    ("1 → 2, reload", lambda copy: copy.must("reload"), 2),
    ("2 → 1, rollback", lambda copy: copy.must("rollback", NETWORK), 1),
    ("1 → 2, promote", lambda copy: copy.must("promote", NETWORK), 2),
    (_KILL, kills.kill_server, 2),
    ("2 → 1, rollback again", lambda copy: copy.must("rollback", NETWORK), 1),
)


@dataclass(frozen=True)
class Settings:
    """How much is asked."""

    requests: int = 100_000  # at least
    connections: int = 16


@dataclass(frozen=True)
class Change:
    """Something that was done; times in seconds since the asking began."""

    name: str
    release: int  # that answers from then on
    start_s: float
    end_s: float  # the command has ended, and every connection is answered again


@dataclass(frozen=True)
class Memory:
    """What the server and its workers take together at one time."""

    at_s: float
    rss_mb: float  # pages that they share count once for each
    pss_mb: float  # and here once


@dataclass(frozen=True)
class SwitchRun:
    """A run: what was asked, what was done, and the memory meanwhile."""

    settings: Settings
    asked: tuple[Asked, ...]  # in the order that they ended
    changes: tuple[Change, ...]
    memory: tuple[Memory, ...]

    @property
    def kill(self) -> Change:
        return next(change for change in self.changes if change.name == _KILL)

    @cached_property
    def back_s(self) -> float:
        """When the first request was answered that was sent after the kill had been felt; infinity: never."""
        felt_s = min((one.end_s for one in self._unanswered if one.end_s >= self.kill.start_s), default=inf)
        return min((one.end_s for one in self.asked if not one.error and one.start_s > felt_s), default=inf)

    @cached_property
    def mixed(self) -> list[Asked]:
        """The answers that no release gives."""
        return [one for one in self.asked if one.error.startswith(MIXED)]

    @cached_property
    def failed(self) -> list[Asked]:
        """The requests that got no answer, but for those that the kill explains."""
        return [one for one in self._unanswered if not self._is_excused(one)]

    @cached_property
    def excused(self) -> list[Asked]:
        """The requests that the killed server held, or that came before it was back."""
        return [one for one in self._unanswered if self._is_excused(one)]

    @cached_property
    def steady(self) -> list[Asked]:
        """The right answers that came while nothing was done."""
        busy = [(change.start_s, change.end_s) for change in self.changes]
        return [one for one in self.asked if not one.error and not any(a <= one.end_s <= b for a, b in busy)]

    def during(self, change: Change) -> list[Asked]:
        """Return the requests that ended during a change."""
        return [one for one in self.asked if change.start_s <= one.end_s <= change.end_s]

    def handover_ms(self, change: Change) -> float | None:
        """Return the time from the first answer of the release that takes over to the last of the one before.

        It is negative where there is a pause between the two; None without answers of both.
        """
        own = [one for one in self.during(change) if not one.error]
        new = [one.end_s for one in own if one.release == change.release]
        old = [one.end_s for one in own if one.release != change.release]
        return 1e3 * (max(old) - min(new)) if old and new else None

    @property
    def findings(self) -> list[str]:
        """What does not hold of what has to."""
        found = []
        if self.failed:
            found.append(f"{len(self.failed):,} requests failed: {self.failed[0].error}")
        if self.mixed:
            found.append(f"{len(self.mixed):,} answers mix releases: {self.mixed[0].error}")
        if len(self.asked) < self.settings.requests:
            found.append(f"{len(self.asked):,} requests, and not {self.settings.requests:,}")
        for change in self.changes:
            after = [one for one in self.asked if one.start_s > change.end_s and not one.error]
            if not after or after[0].release != change.release:
                found.append(f"after {change.name} release {after[0].release if after else 'none'} answers")
        return found

    @cached_property
    def _unanswered(self) -> list[Asked]:
        return [one for one in self.asked if one.error and not one.error.startswith(MIXED)]

    def _is_excused(self, one: Asked) -> bool:
        return one.end_s >= self.kill.start_s and one.start_s < self.back_s


def run(settings: Settings) -> SwitchRun:
    """Serve release 1, publish release 2, and switch under load; say on stderr how far it is.

    Raises:
        DrillError: the server does not start, or a command fails.
        MeasurementError: a connection is not answered any more.
    """
    done: list[Change] = []
    with bar("switch", settings.requests, "requests") as shown, own_server.scratch_repository() as made:
        two_releases.publish(made, KINDS[0])
        with server_over_a_copy(made, NETWORK, shown.say) as copy, Asking(copy.http, settings.connections) as asking:
            with _watched(copy, asking) as memory:
                asking.wait_until_answered()
                two_releases.publish(copy.repository, KINDS[1])
                for number, (name, act, release) in enumerate(_CHANGES, start=1):
                    _quiet(asking, number / (len(_CHANGES) + 1) * settings.requests, shown)
                    start_s = asking.now_s()
                    said = act(copy)
                    asking.wait_until_answered()
                    done.append(Change(name, release, start_s, asking.now_s()))
                    shown.say(f"{name}: {said}")
                _quiet(asking, settings.requests, shown)
            asked = asking.asked()
    return SwitchRun(settings, tuple(asked), tuple(done), tuple(memory))


def percentile_ms(asked: Sequence[Asked], percent: float) -> float | None:
    """Return a percentile of the latencies; None of nothing."""
    return float(np.percentile([one.latency_ms for one in asked], percent)) if asked else None


def _quiet(asking: Asking, until: float, shown: Bar) -> None:
    """Leave the server in peace for a while, until so many requests have ended."""
    until_s = asking.now_s() + _QUIET_S
    while asking.now_s() < until_s or asking.count() < until:
        shown.reach(asking.count())
        time.sleep(0.1)


@contextmanager
def _watched(copy: DrillCopy, asking: Asking) -> Iterator[list[Memory]]:
    """Look at the memory of the copy's processes, again and again, for as long as the block runs."""
    found: list[Memory] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_S):
            found.append(Memory(asking.now_s(), *_memory_mb(copy.artifacts)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _memory_mb(artifacts: Path) -> tuple[float, float]:
    """Return RSS and PSS of the processes that work in that place: the server and its workers."""
    rss = pss = 0
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{artifacts}/" in word for word in process.info["cmdline"] or ()):
            with suppress(psutil.Error):
                memory = process.memory_full_info()
                rss, pss = rss + memory.rss, pss + memory.pss
    return rss / 1e6, pss / 1e6
