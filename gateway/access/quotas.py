"""What of its limits a caller has left, counted by the library `limits`: in memory, or in Redis for several processes.

Windows of a short and a long time slide; a day's budget is a calendar day's, in UTC. Where Redis is gone each process
counts for itself, or refuses: a setting says which.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from limits.storage import storage_from_string
from redis.asyncio import BlockingConnectionPool

from gateway.access.counted import InMemory
from gateway.access.limits import DAY_S, Window
from gateway.caller import Caller
from gateway.errors import SettingsError

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
        wait_s: float = 0.25,
        refuse_when_gone: bool = False,
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._own = _Counters(InMemory())
        self._shared = _Counters(_storage(storage)) if not storage.startswith("memory:") else None
        self._wait_s, self._refuse, self._on_gone, self._asked_again_at = wait_s, refuse_when_gone, on_gone, 0.0
        self._is_gone = False

    @property
    def is_shared(self) -> bool:
        """Whether several processes count together."""
        return self._shared is not None

    async def take(self, caller: Caller, rows: int = 1) -> Standing:
        """Count a request of so many rows, in each window of the caller's limits.

        Raises:
            GoneError: the storage is, and nothing is allowed without.
        """
        windows = caller.limits.windows
        if not windows or caller.key_id is None:
            return _UNLIMITED
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
    def __init__(self, storage: Storage) -> None:
        self._sliding, self._fixed, self._storage = (
            SlidingWindowCounterRateLimiter(storage),
            FixedWindowRateLimiter(storage),
            storage,
        )

    async def take(self, key_id: str, windows: tuple[Window, ...], rows: int) -> Standing:
        """Count in one window after the other, the shortest first, until one has no room."""
        left: list[tuple[Window, int, float]] = []
        for window in windows:
            cost = rows if window.unit == "inferences" else 1
            if cost > window.amount:
                return Standing(False, _headers(windows, [(window, window.amount, 0.0)]), None, window)
            taken = await (self._of_day if window.name == "day" else self._within)(window, key_id, cost)
            left.append((window, *taken[1:]))
            if not taken[0]:
                return Standing(False, _headers(windows, left[-1:]), max(taken[2], 0.1), window)
        return Standing(True, _headers(windows, left))

    async def _within(self, window: Window, key_id: str, cost: int) -> tuple[bool, int, float]:
        item = RateLimitItemPerSecond(window.amount, window.seconds)
        names = (key_id, window.unit, window.name)
        taken = await self._sliding.hit(item, *names, cost=cost)
        reset, remaining = await self._sliding.get_window_stats(item, *names)
        return taken, remaining, reset - time.time()

    async def _of_day(self, window: Window, key_id: str, cost: int) -> tuple[bool, int, float]:
        day = int(time.time() // DAY_S)
        name = _item(window.amount).key_for(key_id, window.unit, str(day))
        used = await self._storage.incr(name, DAY_S, cost)
        ends = (day + 1) * DAY_S - time.time()
        if used <= window.amount:
            return True, window.amount - used, ends
        await self._storage.incr(name, DAY_S, -cost)  # a refused request uses nothing up
        return False, max(0, window.amount - used + cost), ends


def _item(amount: int) -> RateLimitItem:
    return RateLimitItemPerSecond(amount, DAY_S)


def _headers(windows: tuple[Window, ...], left: list[tuple[Window, int, float]]) -> dict[str, str]:
    """Write the headers of draft-ietf-httpapi-ratelimit-headers."""
    nearest, remaining, reset = min(left, key=lambda each: each[1] / each[0].amount)
    return {
        "ratelimit-policy": ", ".join(
            f'"{each.unit}-{each.name}";q={each.amount};w={each.seconds}' for each in windows
        ),
        "ratelimit-limit": str(nearest.amount),
        "ratelimit-remaining": str(remaining),
        "ratelimit-reset": str(max(0, round(reset))),
    }


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
