"""The servers that a client may ask, which is asked next, and which are down.

A server that does not answer is asked nothing more until a probe finds it alive: calls that are under way wait for
that instead of trying each for itself. One that comes back gets a few requests at once, and with each answer one more,
so that it is not met by a crowd.

A server that refuses, having too much to do, is left alone for a moment, longer with each refusal, and then gets fewer
requests at once: a refusal takes a fifth of them, each answer adds a little, as TCP does with a network (additive
increase, multiplicative decrease; RFC 5681). The others wait here, where that costs the server nothing. Each model has
a queue of its own: that one is full says nothing of the next.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from clients.settings import Address, Retry

PROBE_S = 1.0  # a server that takes longer to say that it is alive is down
_LOOK_EVERY_S = 0.05
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


class Servers:
    """All of them. `model` is whose queue a request waits in; "" for questions about the server.

    Args:
        watch: Called when one is down or in doubt, and nobody probes it yet: has somebody call `recovered` or `failed`
            for as long as it is `to_be_probed`. Each by itself: one that is slow to fail keeps no other waiting.
    """

    def __init__(self, addresses: Sequence[Address], retry: Retry, watch: Callable[[Server], None]) -> None:
        self.all = tuple(Server(address) for address in addresses)
        self._retry = retry
        self._watch, self._lock = watch, threading.Lock()

    def take(self, model: str = "", avoid: Collection[Server] = ()) -> Server | None:
        """The one with the least to do for this client, of those that are up; one of `avoid` only if there is no other.

        To be given back. None: all are down, or have enough to do.
        """
        with self._lock:
            now = time.monotonic()
            free = [server for server in self.all if not server.down and _is_open(server.queue(model), now)]
            if not free:
                return None
            server = free[0]
            if len(free) > 1:
                candidates = [server for server in free if server not in avoid] or free
                least = min(server.under_way for server in candidates)
                server = random.choice([server for server in candidates if server.under_way == least])  # noqa: S311
            server.under_way += 1
            server.queue(model).under_way += 1
            return server

    def give_back(self, server: Server, model: str = "") -> None:
        with self._lock:
            server.under_way -= 1
            server.queue(model).under_way -= 1

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

    def worth_a_look_in_s(self, model: str = "") -> float:
        """When one of those that are up may be asked again, as far as that can be told; not for all at once."""
        with self._lock:
            first = min((server.queue(model).alone_until for server in self.all if not server.down), default=0.0)
        return max(random.uniform(0.5, 1) * _LOOK_EVERY_S, first - time.monotonic())  # noqa: S311

    def failed(self, server: Server) -> None:
        """It does not answer."""
        with self._lock:
            server.down = True
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

    def to_be_probed(self, server: Server) -> bool:
        """Whether it is down or in doubt. If not, the one who asks has to stop."""
        with self._lock:
            server.watched = server.down or server.doubted
            return server.watched

    def __str__(self) -> str:
        return ", ".join(str(server.address) for server in self.all)

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
    return queue.under_way < queue.limit and now >= queue.alone_until and not queue.silent
