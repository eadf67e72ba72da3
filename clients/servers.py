"""The servers that a client may ask, which is asked next, and which are down.

A server that does not answer is asked nothing more until a probe finds it alive: calls that are under way wait for
that instead of trying each for itself. One that comes back gets a few requests at once, and with each answer one more,
so that it is not met by a crowd.

A server that refuses, having too much to do, is left alone for a moment, longer with each refusal, and then gets fewer
requests at once: a refusal takes a fifth of them, each answer adds a little, as TCP does with a network (additive
increase, multiplicative decrease; RFC 5681). The others stand in line here, where that costs the server nothing, and
are called: looking every few milliseconds would cost as much as the requests. Each model has a queue of its own: that
one is full says nothing of the next.
"""

import math
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from clients.settings import Address, Retry

PROBE_S = 1.0  # a server that takes longer to say that it is alive is down
_AT_ONCE_AFTER_A_FAILURE = 8
_MOST_DOUBLINGS = 30  # of a pause, which has its own limit: floats have one, too


@dataclass(eq=False)
class Queue:
    """Of one model on one server, as this client sees it."""

    under_way: int = 0  # requests
    limit: float = math.inf  # of those, once it has refused one or was gone
    opening: bool = False  # after it was gone: each answer makes room for one more
    refusals: int = 0  # without an answer since
    silent: bool = False  # a request waited in vain for as long as a probe would: no more before one is answered
    alone_until: float = 0  # on the monotonic clock


@dataclass(eq=False)
class Server:
    """One of them, as all threads of a client see it."""

    address: Address
    under_way: int = 0  # requests to all models
    answers: int = 0
    down: bool = False
    doubted: bool = False  # a request's time was up: a probe has to tell why
    watched: bool = False  # somebody probes it
    queues: dict[str, Queue] = field(default_factory=dict)

    def queue(self, model: str) -> Queue:
        return self.queues.get(model) or self.queues.setdefault(model, Queue())


@dataclass(eq=False)
class Turn:
    """Of a request: it stands in line until there is a server, and then has it."""

    model: str
    avoid: Collection[Server]
    server: Server | None = None
    called: Any = None  # an event, once it waits: it has to look again
    look_at: float = math.inf  # on the monotonic clock: a server is left alone no longer

    def call(self) -> None:
        if self.called:
            self.called.set()


class Servers:
    """All of them. `model` is whose queue a request waits in; "" for questions about the server.

    Args:
        watch: Called when one is down or in doubt, and nobody probes it yet: has somebody call `recovered` or `failed`
            for as long as it is `to_be_probed`. Each by itself: one that is slow to fail keeps no other waiting.
        event: threading.Event or asyncio.Event: what those in line wait for.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        retry: Retry,
        watch: Callable[[Server], None],
        event: Callable[[], Any] = threading.Event,
    ) -> None:
        self.all = tuple(Server(address) for address in addresses)
        self._retry = retry
        self._watch, self._event, self._lock = watch, event, threading.Lock()
        self._lines: defaultdict[str, deque[Turn]] = defaultdict(deque)  # of the models' queues

    def line_up(self, model: str = "", avoid: Collection[Server] = ()) -> Turn:
        """For the server with the least to do for this client, one of `avoid` only if there is no other that is up.

        To be ended with `leave`.
        """
        turn = Turn(model, avoid)
        with self._lock:
            self._lines[model].append(turn)
            self._hand_out(model)
        return turn

    def look(self, turn: Turn) -> Server | None:
        """The server that it has; None: all are down, or have enough to do, or others are first."""
        with self._lock:
            if turn.server is None:
                self._hand_out(turn.model)
            if turn.server is None:
                turn.called, turn.look_at = turn.called or self._event(), self._end_of_pause(turn.model)
                turn.called.clear()
            return turn.server

    def leave(self, turn: Turn) -> None:
        """The line, or the server, if it had one."""
        with self._lock:
            if turn.server is None:
                self._lines[turn.model].remove(turn)
            else:
                turn.server.under_way -= 1
                turn.server.queue(turn.model).under_way -= 1
            self._hand_out(turn.model)

    def call_all(self) -> None:
        """Everybody in every line has to look again."""
        with self._lock:
            for line in self._lines.values():
                for turn in line:
                    turn.call()

    def answered(self, server: Server, model: str = "") -> None:
        with self._lock:
            queue = server.queue(model)
            server.answers += 1
            queue.refusals = 0
            # By one each; or by one once all of them are answered ten times.
            queue.limit += 1 if queue.opening else 0.1 / queue.limit

    def refused(self, server: Server, model: str = "") -> None:
        """It has too much to do. Of many refusals at once one counts."""
        with self._lock:
            queue = server.queue(model)
            if (now := time.monotonic()) >= queue.alone_until:
                queue.limit = max(1.0, 0.8 * min(queue.limit, queue.under_way))
                queue.opening = False
                queue.refusals += 1
                longest_s = longest_pause_s(self._retry, queue.refusals)
                queue.alone_until = now + random.uniform(longest_s / 2, longest_s)  # noqa: S311

    def all_down(self) -> bool:
        return all(server.down for server in self.all)

    def nobody_answers(self, model: str = "") -> bool:
        """Whether that is what a request waits for, and not its turn."""
        with self._lock:
            return all(server.down or server.queue(model).silent for server in self.all)

    def have_answered(self) -> bool:
        """One of them, at least once."""
        return any(server.answers for server in self.all)

    def failed(self, server: Server) -> None:
        """It does not answer."""
        with self._lock:
            server.down = True
        self.call_all()
        self._have_it_watched(server)

    def late(self, server: Server, model: str, waited_s: float) -> None:
        """It has not answered in time: that may be the server's fault, or the model's, or there was little time.

        What a stalled network holds back arrives all at once and would overflow the model's queue: it gets no more.
        """
        with self._lock:
            server.doubted = True
            server.queue(model).silent |= waited_s >= PROBE_S
        self._have_it_watched(server)

    def recovered(self, server: Server) -> None:
        with self._lock:
            for queue in server.queues.values():
                if server.down or queue.silent:
                    queue.limit, queue.opening = min(queue.limit, _AT_ONCE_AFTER_A_FAILURE), True
                queue.silent = False
            server.down = server.doubted = False
            for model in server.queues:
                self._hand_out(model)

    def to_be_probed(self, server: Server) -> bool:
        """Whether it is down or in doubt. If not, the one who asks has to stop."""
        with self._lock:
            server.watched = server.down or server.doubted
            return server.watched

    def __str__(self) -> str:
        return ", ".join(str(server.address) for server in self.all)

    def _hand_out(self, model: str) -> None:
        """What is free, first come first served; with the lock held."""
        line = self._lines[model]
        while line and (server := self._free(model, line[0].avoid)):
            server.under_way += 1
            server.queue(model).under_way += 1
            line[0].server = server
            line.popleft().call()
        if line and line[0].look_at != self._end_of_pause(model):
            line[0].call()  # who is first has to know when

    def _free(self, model: str, avoid: Collection[Server]) -> Server | None:
        now = time.monotonic()
        free = [server for server in self.all if not server.down and _is_open(server.queue(model), now)]
        if len(free) < 2:
            return free[0] if free else None
        candidates = [server for server in free if server not in avoid] or free
        least = min(server.under_way for server in candidates)
        return random.choice([server for server in candidates if server.under_way == least])  # noqa: S311

    def _end_of_pause(self, model: str) -> float:
        """Of the first of those that are left alone; infinite if there is none."""
        now = time.monotonic()
        return min([until for server in self.all if (until := server.queue(model).alone_until) > now], default=math.inf)

    def _have_it_watched(self, server: Server) -> None:
        with self._lock:
            start, server.watched = not server.watched, True
        if not start:
            return
        try:
            self._watch(server)
        except RuntimeError:  # no thread is to be had, or the event loop ends: then each call tries for itself
            self.recovered(server)
            server.watched = False


def longest_pause_s(retry: Retry, doublings: int) -> float:
    return min(retry.longest_pause_s, retry.first_pause_s * 2.0 ** min(doublings, _MOST_DOUBLINGS))


def _is_open(queue: Queue, now: float) -> bool:
    return queue.under_way + 1 <= queue.limit and now >= queue.alone_until and not queue.silent
