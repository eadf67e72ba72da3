"""What of its limits a caller has left, counted by the library `limits`: in memory, or in Redis for several processes.

Windows of a short and a long time slide; a day's budget is a calendar day's, in UTC. Where Redis is gone each process
counts for itself, or refuses: a setting says which.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import floor
from typing import Any, NamedTuple

from limits.aio.storage import Storage
from limits.storage import storage_from_string
from redis.asyncio import BlockingConnectionPool

from gateway.access.counted import InMemory
from gateway.caller import Caller
from gateway.errors import SettingsError
from gateway.limits import DAY_S, Window

_CONNECTIONS = 16  # to Redis
_AGAIN_S = 1.0  # after which a Redis that was gone is asked again
log = logging.getLogger("gateway.access")


@dataclass(frozen=True)
class Standing:
    """How a caller stands after a request was counted.

    Attributes:
        allowed: Whether all windows had room for it.
        headers: RateLimit-Policy of all windows; RateLimit-Limit, -Remaining and -Reset of the one nearest to its end.
        retry_after: Seconds until there may be room; None: it is allowed, or never will be.
        window: The one that had none.
    """

    allowed: bool
    headers: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    window: Window | None = None


_UNLIMITED = Standing(True)


class GoneError(Exception):
    """What counts cannot be reached."""


class Quotas:
    """Counts what callers ask.

    Args:
        storage: "memory://", or a Redis as in "redis://:password@host:6379".
        wait_s: For the storage; longer is as if it were gone.
        refuse_when_gone: Whether nothing is allowed without the storage; else each process counts for itself.
        on_gone: Told of each request that was counted without the storage.

    Raises:
        SettingsError: there is no such storage.
    """

    def __init__(
        self,
        storage: str = "memory://",
        *,
        wait_s: float = 1.0,
        refuse_when_gone: bool = False,
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._own = _Counters(InMemory())
        self._shared = _Counters(_storage(storage)) if not storage.startswith("memory:") else None
        self._wait_s, self._refuse, self._on_gone, self._asked_again_at = wait_s, refuse_when_gone, on_gone, 0.0
        self._is_gone = False

    async def take(self, caller: Caller, rows: int = 1) -> Standing:
        """Count a request of so many rows, in each window of the caller's limits.

        Raises:
            GoneError: the storage is, and nothing is allowed without.
        """
        windows = caller.limits.windows
        if not windows or caller.key_id is None:
            return _UNLIMITED
        for window in windows:  # before it counts in any: it is no use to ask again
            if _cost(window, rows) > window.amount:
                return Standing(False, {"ratelimit-policy": _policy(windows)}, None, window)
        if self._shared is None:
            return await self._own.take(caller.key_id, windows, rows)
        if time.monotonic() >= self._asked_again_at:
            try:
                async with asyncio.timeout(self._wait_s):
                    found = await self._shared.take(caller.key_id, windows, rows)
                self._is_gone = False
                return found
            except Exception as error:  # of its client, of the network, of time
                self._asked_again_at = time.monotonic() + _AGAIN_S
                if not self._is_gone:
                    log.warning("quotas: their storage is gone: %s", type(error).__name__)
                self._is_gone = True
        self._on_gone()
        if self._refuse:
            raise GoneError
        return await self._own.take(caller.key_id, windows, rows)


class _Counters:
    """What the library's strategies do with a storage, with one look at each window: they would take two."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    async def take(self, key_id: str, windows: tuple[Window, ...], rows: int) -> Standing:
        """Count in one window after the other, the shortest first, until one has no room."""
        left: list[_Left] = []
        for window in windows:
            cost = _cost(window, rows)
            found = await (self._of_day if window.name == "day" else self._within)(window, key_id, cost)
            left.append(found)
            if not found.taken:
                return Standing(False, _headers(windows, left[-1:]), max(found.reset_s, 0.1), window)
        return Standing(True, _headers(windows, left))

    async def _within(self, window: Window, key_id: str, cost: int) -> "_Left":
        # Without the amount: what was counted stays when a limit is changed.
        name = f"gateway/{key_id}/{window.unit}/{window.seconds}"
        taken = await self._storage.acquire_sliding_window_entry(name, window.amount, window.seconds, cost)
        before, before_s, now, now_s = await self._storage.get_sliding_window(name, window.seconds)
        used = floor(before * before_s / window.seconds) + now
        ends_s = max(0.0, now_s - window.seconds)  # of the window that is now
        reset_s = ends_s if taken else _wait_s(window, cost, before, before_s, now, ends_s)
        return _Left(bool(taken), window, max(0, window.amount - used), reset_s)

    async def _of_day(self, window: Window, key_id: str, cost: int) -> "_Left":
        now = time.time()
        day = int(now // DAY_S)
        name = f"gateway/{key_id}/{window.unit}/day/{day}"
        used = await self._storage.incr(name, DAY_S, cost)
        ends_s = (day + 1) * DAY_S - now
        if used <= window.amount:
            return _Left(True, window, window.amount - used, ends_s)
        await self._storage.incr(name, DAY_S, -cost)  # a refused request uses nothing up
        return _Left(False, window, max(0, window.amount - used + cost), ends_s)


class _Left(NamedTuple):
    taken: bool
    window: Window
    remaining: int
    reset_s: float


def _cost(window: Window, rows: int) -> int:
    return rows if window.unit == "inferences" else 1


def _wait_s(window: Window, cost: int, before: int, before_s: float, now: int, ends_s: float) -> float:
    """Return after how long a request of this cost will fit, if nothing else comes.

    What was counted in the window before weighs less and less, by the share of it that a window back from now covers.
    """
    if now + cost <= window.amount:
        return before_s - (window.amount - cost - now + 1) * window.seconds / max(before, 1)
    # Not before this window is the one before.
    return ends_s + window.seconds * (1 - (window.amount - cost + 1) / max(now, 1))


def _headers(windows: tuple[Window, ...], left: list[_Left]) -> dict[str, str]:
    """Write the headers of draft-ietf-httpapi-ratelimit-headers."""
    nearest = min(left, key=lambda each: each.remaining / each.window.amount)
    return {
        "ratelimit-policy": _policy(windows),
        "ratelimit-limit": str(nearest.window.amount),
        "ratelimit-remaining": str(nearest.remaining),
        "ratelimit-reset": str(max(0, round(nearest.reset_s))),
    }


@lru_cache(4096)
def _policy(windows: tuple[Window, ...]) -> str:
    return ", ".join(f'"{each.unit}-{each.name}";q={each.amount};w={each.seconds}' for each in windows)


def _storage(url: str) -> Storage:
    try:
        # A bounded pool: redis-py's own opens a connection for each of a thousand requests at once.
        pool = BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, timeout=None)
        found = storage_from_string(f"async+{url}", implementation="redispy", connection_pool=pool)  # type: ignore[arg-type]
    except Exception as error:  # of `limits`, of redis, of urllib
        raise SettingsError(
            "quota.storage cannot be used", note=str(error) or type(error).__name__, hint="redis://HOST:6379"
        ) from error
    if not isinstance(found, Storage):
        raise SettingsError("quota.storage cannot be used from asyncio")
    return found
