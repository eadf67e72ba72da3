"""The servers that a client may ask, which is asked next, and which are down.

A server that does not answer is asked nothing more until a probe finds it alive: calls that are under way wait for
that instead of trying each for itself, so that a server which comes back is not met by a crowd.

A server that refuses, having too much to do, is left alone for a moment, longer with each refusal, and then gets fewer
requests at once: a refusal takes a fifth of them, each answer adds a little, as TCP does with a network (additive
increase, multiplicative decrease; RFC 5681). The others wait here, where that costs the server nothing.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from clients.settings import Address, Retry

_LOOK_EVERY_S = 0.05


@dataclass(eq=False)
class Server:
    """One of them, as all threads of a client see it."""

    address: Address
    under_way: int = 0  # requests
    limit: float = math.inf  # of those, once it has refused one
    refusals: int = 0  # without an answer since
    alone_until: float = 0  # on the monotonic clock
    down: bool = False


class Servers:
    """All of them.

    Args:
        watch: Called when one is down and nobody probes yet: has somebody call `recovered` until none is.
    """

    def __init__(self, addresses: Sequence[Address], retry: Retry, watch: Callable[[], None]) -> None:
        self.all = tuple(Server(address) for address in addresses)
        self._retry = retry
        self._watch, self._watched, self._lock = watch, False, threading.Lock()
        self.have_answered = False  # one of them, at least once

    def take(self, avoid: Collection[Server] = ()) -> Server | None:
        """The one with the least to do for this client, of those that are up; one of `avoid` only if there is no other.

        To be given back. None: all are down, or have enough to do.
        """
        with self._lock:
            now = time.monotonic()
            free = [s for s in self.all if not s.down and s.under_way < s.limit and now >= s.alone_until]
            candidates = [server for server in free if server not in avoid] or free
            if not candidates:
                return None
            least = min(server.under_way for server in candidates)
            server = random.choice([server for server in candidates if server.under_way == least])  # noqa: S311
            server.under_way += 1
            return server

    def give_back(self, server: Server) -> None:
        with self._lock:
            server.under_way -= 1

    def answered(self, server: Server) -> None:
        with self._lock:
            self.have_answered, server.refusals = True, 0
            server.limit += 0.1 / server.limit  # by one, once all of them are answered ten times

    def refused(self, server: Server) -> None:
        """It has too much to do. Of many refusals at once one counts."""
        with self._lock:
            if (now := time.monotonic()) >= server.alone_until:
                server.limit = max(1.0, 0.8 * min(server.limit, server.under_way))
                server.refusals += 1
                longest_s = min(self._retry.longest_pause_s, self._retry.first_pause_s * 2**server.refusals)
                server.alone_until = now + random.uniform(longest_s / 2, longest_s)  # noqa: S311

    def all_down(self) -> bool:
        return all(server.down for server in self.all)

    def worth_a_look_in_s(self) -> float:
        """When one of those that are up may be asked again, as far as that can be told."""
        first = min((server.alone_until for server in self.all if not server.down), default=0.0)
        return max(_LOOK_EVERY_S, first - time.monotonic())

    def failed(self, server: Server) -> None:
        """It does not answer."""
        with self._lock:
            server.down = True
            start, self._watched = not self._watched, True
        if start:
            self._watch()

    def recovered(self, server: Server) -> None:
        with self._lock:
            server.down = False

    def to_probe(self) -> list[Server]:
        """Those that are down. Once there are none, the one who asks has to stop."""
        with self._lock:
            down = [server for server in self.all if server.down]
            self._watched = bool(down)
            return down

    def __str__(self) -> str:
        return ", ".join(str(server.address) for server in self.all)
