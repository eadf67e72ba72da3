"""Who is let through to Triton: as many at once as it works on well, the others by class, then in their order.

Triton's own queue would keep them too, but there nobody can say how long it will take, a queue-full looks like a dead
server, and a caller that is gone keeps its place. So they wait here, only as long as they can still be answered in
time; who cannot is told so at once, with when to come back.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from gateway.deadline import Deadline, passed
from gateway.errors import Refusal

CLASSES = (1, 2, 3)  # 1 before 2 before 3
DEFAULT_CLASS = 2
_SMOOTHING = 0.1  # of a new duration in the mean


@dataclass(frozen=True)
class Room:
    """How many may be under way.

    Attributes:
        at_once: Requests of a model, of all callers together.
        waiting: More of them, until one is done.
    """

    at_once: int = 64
    waiting: int = 256


class Admission:
    """The gate before a model's arm.

    Attributes:
        under_way: Requests that were let through and are not done.
        waiting: Those that are not let through yet.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._queues: dict[int, OrderedDict[asyncio.Future[None], None]] = {each: OrderedDict() for each in CLASSES}
        self._mean_s = 0.0
        self.under_way = 0
        self.waiting = 0

    async def enter(self, priority: int, deadline: Deadline) -> None:
        """Wait for a place; `leave` gives it back.

        Raises:
            Refusal: 503 if all places to wait are taken by requests at least as urgent, or the wait would outlast the
                deadline; 504 if it did.
        """
        if self.under_way < self._room.at_once and not self.waiting:
            self.under_way += 1
            return
        expected_s = self._expected_s(priority)
        if expected_s > deadline.remaining_s:
            raise self._overloaded(expected_s)
        if self.waiting >= self._room.waiting and not self._evict_below(priority):
            raise self._overloaded(expected_s)
        await self._wait(priority, deadline)

    def leave(self, took_s: float | None = None) -> None:
        """Give a place back, and tell how long it was taken."""
        if took_s is not None:
            self._mean_s += (took_s - self._mean_s) * (_SMOOTHING if self._mean_s else 1)
        self.under_way -= 1
        while self.waiting and self.under_way < self._room.at_once:
            self._let_in()

    async def _wait(self, priority: int, deadline: Deadline) -> None:
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        queue = self._queues[priority]
        queue[place] = None
        self.waiting += 1
        timer = loop.call_at(deadline.at, _fail, place, passed())
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # let in at the moment in which its caller went
            raise
        finally:
            timer.cancel()
            if place in queue:
                del queue[place]
                self.waiting -= 1

    def _let_in(self) -> None:
        for each in CLASSES:
            while self._queues[each]:
                place, _ = self._queues[each].popitem(last=False)
                self.waiting -= 1
                if not place.done():
                    self.under_way += 1
                    place.set_result(None)
                    return

    def _evict_below(self, priority: int) -> bool:
        """Refuse the youngest of the lowest class that waits, if that is below this one."""
        for each in reversed(CLASSES):
            if each <= priority:
                return False
            if self._queues[each]:
                place, _ = self._queues[each].popitem()
                self.waiting -= 1
                _fail(place, self._overloaded(self._expected_s(each)))
                return True
        return False

    def _expected_s(self, priority: int) -> float:
        before = sum(len(self._queues[each]) for each in CLASSES if each <= priority)
        return self._mean_s * (before + 1) / self._room.at_once

    def _overloaded(self, expected_s: float) -> Refusal:
        detail = f"{self.under_way} requests are under way and {self.waiting} wait; yours would not be answered in time"
        return Refusal(503, "overloaded", "The model is overloaded", detail, retry_after_s=max(1.0, expected_s))


def _fail(place: asyncio.Future[None], why: Refusal) -> None:
    if not place.done():
        place.set_exception(why)
