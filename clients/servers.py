"""The servers that a client may ask, which is asked next, and which are down.

A server that does not answer is asked nothing more until a probe finds it alive: calls that are under way wait for
that instead of trying each for itself, so that a server which comes back is not met by a crowd.

A server that refuses, having too much to do, gets fewer requests at once: each refusal takes a fifth of them, each
answer adds a little, as TCP does with a network (additive increase, multiplicative decrease; RFC 5681). The others wait
here, where that costs the server nothing.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from clients.settings import Address

_STEADY_S = 0.1


@dataclass(eq=False)
class Server:
    """One of them, as all threads of a client see it."""

    address: Address
    under_way: int = 0  # requests
    limit: float = math.inf  # of those, once it has refused one
    steady_until: float = 0  # on the monotonic clock: until then the limit is not cut again
    down: bool = False


class Servers:
    """All of them.

    Args:
        watch: Called when one is down and nobody probes yet: has somebody call `recovered` until none is.
    """

    def __init__(self, addresses: Sequence[Address], watch: Callable[[], None]) -> None:
        self.all = tuple(Server(address) for address in addresses)
        self._watch, self._watched, self._lock = watch, False, threading.Lock()
        self.have_answered = False  # one of them, at least once

    def take(self, avoid: Collection[Server] = ()) -> Server | None:
        """The one with the least to do for this client, of those that are up; one of `avoid` only if there is no other.

        To be given back. None: all are down, or have enough to do.
        """
        with self._lock:
            free = [server for server in self.all if not server.down and server.under_way < server.limit]
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
            self.have_answered = True
            server.limit += 1 / server.limit  # by one, once all of them are answered

    def refused(self, server: Server) -> None:
        """It has too much to do. Of many refusals at once one counts."""
        with self._lock:
            if (now := time.monotonic()) >= server.steady_until:
                server.limit = max(1.0, 0.8 * min(server.limit, server.under_way))
                server.steady_until = now + _STEADY_S

    def all_down(self) -> bool:
        return all(server.down for server in self.all)

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
