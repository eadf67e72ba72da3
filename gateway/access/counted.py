"""Counters in memory, as `limits` has them, without its task and lock for each count: nothing here waits.

The library's own costs a task of asyncio for each count, which is most of what a quota costs.
"""

import time
from math import floor
from typing import Any

from limits.aio.storage import MemoryStorage

_SWEEP = 4096  # counts between two looks for what has expired


class InMemory(MemoryStorage):
    """Counts of one process; those of callers that are gone are forgotten."""

    STORAGE_SCHEME = ["async+here"]  # noqa: RUF012  # as `limits` declares it

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions, **options)
        self._counts = 0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, and return how much it is."""
        now = time.time()
        if self.expirations.get(key, 0.0) <= now:
            self.storage[key] = 0
            self.expirations[key] = now + expiry
        self.storage[key] += amount
        self._counts += 1
        if self._counts % _SWEEP == 0:
            self._sweep(now)
        return self.storage[key]

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count, if there is room in the window of so many seconds that ends now."""
        before, before_s, now, _ = self._looked(key, expiry)
        if floor(before * before_s / expiry) + now + amount > limit:
            return False
        await self.incr(self.sliding_window_keys(key, expiry, time.time())[1], 2 * expiry, amount)
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return what was counted in the window before and in that of now, and how long each still matters."""
        return self._looked(key, expiry)

    def _looked(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        at = time.time()
        before, now = self.sliding_window_keys(key, expiry, at)
        left_s = expiry - at % expiry
        return self._count(before, at), left_s, self._count(now, at), left_s + expiry

    def _count(self, key: str, at: float) -> int:
        return self.storage.get(key, 0) if self.expirations.get(key, 0.0) > at else 0

    async def decr(self, key: str, amount: int = 1) -> int:
        """Take back what was counted; not below 0."""
        self.storage[key] = max(self.storage[key] - amount, 0)
        return self.storage[key]

    def _sweep(self, now: float) -> None:
        for key in [key for key, ends in self.expirations.items() if ends <= now]:
            del self.expirations[key]
            self.storage.pop(key, None)
