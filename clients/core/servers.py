"""The servers that a client may ask: which is asked next, which are down, and who waits.

Health. A server that does not respond gets no more requests until a probe finds it alive: calls under way wait for that
instead of trying each for itself. One that comes back starts slowly: a few requests at once, and one more with each
success, so that it is not met by a thundering herd.

Overload. A server that sheds load is left alone for a moment, longer with each rejection, and then gets fewer requests
at once: a rejection takes a fifth of them, and a success adds a little (additive increase, multiplicative decrease, as
in RFC 5681, but with 0.8 where TCP has 0.5: many clients share the queue, and each of them is told). The others wait
here, in the order in which they came, where that costs the server nothing. They are notified: polling every few
milliseconds would cost as much as the requests. Triton's queues are per model, and so is all of this.

Addresses. A server that redirects is a wrong address, as redirects are not followed. For a minute it gets nothing, as
long as there is a server that does not redirect: no call fails for it, and most never meet it.
"""

import logging
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
READY_PAUSE_S = 0.2  # between questions whether a server is ready
FAILING_S = 1.0  # for so long a server that failed on a model's request is avoided
REDIRECTING_S = 60.0  # for so long one that redirects is: a wrong address rarely becomes a right one
_SLOW_START_LIMIT = 8  # requests at once to a server that has just come back; not tuned
_DECREASE, _INCREASE = 0.8, 0.1  # of the limit: by a rejection; by as many successes as the limit is

log = logging.getLogger(__name__.partition(".")[0])
log.addHandler(logging.NullHandler())  # a program that configures no logging gets none on its stderr


@dataclass(eq=False)
class Queue:
    """One model's queue on one server, as this client sees it."""

    in_flight: int = 0  # requests
    limit: float = math.inf  # of those, once one was rejected or the server was down
    slow_start: bool = False  # after it was down: each success adds one to the limit
    rejections: int = 0  # since the last success
    failing_until: float = 0  # on the monotonic clock: it failed on a request that another server may not fail on
    stalled: bool = False  # a request waited in vain for as long as a probe would: no more until a probe succeeds
    backoff_until: float = 0  # on the monotonic clock

    def is_open(self, now: float) -> bool:
        """Tell whether it may get one more."""
        return self.in_flight + 1 <= self.limit and now >= self.backoff_until


@dataclass(eq=False)
class Server:
    """One of them, as all threads of a client see it."""

    address: Address
    via: str = ""  # the forward proxy that it is asked through
    in_flight: int = 0  # requests to all models
    successes: int = 0
    responded: bool = False  # ever, with whatever: it is there, and worth waiting for
    down: bool = False
    suspect: bool = False  # a request timed out: a probe has to tell why
    probing: bool = False  # somebody does that
    redirecting_until: float = 0  # on the monotonic clock: it is a wrong address
    queues: defaultdict[str, Queue] = field(default_factory=lambda: defaultdict(Queue))

    def queue(self, model: str) -> Queue:
        """Return that model's."""
        return self.queues[model]


@dataclass(eq=False)
class Slot:
    """A request's: it waits in line until a server has room for it, and then holds that room."""

    model: str = ""
    avoid: Collection[Server] = ()  # one of these only if no other is up
    server: Server | None = None
    wakeup: Any = None  # an event, once it waits; set when it has to look again
    recheck_at: float = math.inf  # on the monotonic clock: when a server's backoff ends

    def notify(self) -> None:
        """Have it look again, if it waits."""
        if self.wakeup:
            self.wakeup.set()


class Servers:
    """All servers of a client. `model` is whose queue a request waits in; "" for queries about a server.

    Invariant: whenever a server has room for the first in a line, that slot has the server; and the first in a line
    knows when the next backoff ends. Whatever makes room or changes who is first goes through `_dispatch`.

    Args:
        probe: Starts probing a server that is down or suspect: `mark_up` or `mark_down`, for as long as `needs_probe`.
            Each server has a prober of its own, so that one that is slow to fail keeps no other waiting.
        event: threading.Event or asyncio.Event: what waiting slots are notified with.
        via: Returns the forward proxy that a server is asked through, for errors; "" for none.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        retry: Retry,
        probe: Callable[[Server], None],
        event: Callable[[], Any] = threading.Event,
        via: Callable[[Address], str] = lambda address: "",
    ) -> None:
        self.all = tuple(Server(address, via(address)) for address in addresses)
        self._retry = retry
        self._probe, self._event, self._lock = probe, event, threading.Lock()
        self._lines: defaultdict[str, deque[Slot]] = defaultdict(deque)  # by model
        self._redirecting = False  # one of them does, or did

    def acquire(self, slot: Slot) -> Slot:
        """Have a slot wait for the server with the fewest requests of this client. See `poll`; `release` ends it."""
        with self._lock:
            self._lines[slot.model].append(slot)
            self._dispatch(slot.model)
        return slot

    def poll(self, slot: Slot) -> Server | None:
        """Return the slot's server; None: wait for `wakeup`, until `recheck_at`, and poll again."""
        with self._lock:
            if slot.server is None:
                self._dispatch(slot.model)
            if slot.server is None:
                slot.wakeup, slot.recheck_at = slot.wakeup or self._event(), self._recheck_at(slot.model)
                slot.wakeup.clear()
            return slot.server

    def release(self, slot: Slot) -> None:
        """Give up the server, or the place in the line; nothing, if it has neither."""
        with self._lock:
            if (server := slot.server) is not None:
                slot.server = None
                server.in_flight -= 1
                server.queue(slot.model).in_flight -= 1
            elif slot in (line := self._lines[slot.model]):
                line.remove(slot)
            self._dispatch(slot.model)

    def notify_all(self) -> None:
        """Have everybody who waits look again."""
        with self._lock:
            for line in self._lines.values():
                for slot in line:
                    slot.notify()

    def record_success(self, server: Server, model: str = "") -> None:
        """Note that it responded: its queue takes a little more from now on."""
        with self._lock:
            queue = server.queue(model)
            server.successes += 1
            queue.rejections = 0
            queue.failing_until = 0
            queue.limit += 1 if queue.slow_start else _INCREASE / queue.limit

    def record_rejection(self, server: Server, model: str = "") -> None:
        """Note that it sheds load. Of many rejections at once, one counts."""
        with self._lock:
            queue = server.queue(model)
            if (now := time.monotonic()) >= queue.backoff_until:
                queue.limit = max(1.0, _DECREASE * min(queue.limit, queue.in_flight))
                queue.slow_start = False
                queue.rejections += 1
                limit_s = self._retry.backoff_limit_s(queue.rejections)
                queue.backoff_until = now + random.uniform(limit_s / 2, limit_s)  # noqa: S311
                log.debug("%s sheds load of %r: at most %.0f requests at once", server.address, model, queue.limit)

    def record_error(self, server: Server, model: str) -> None:
        """Note that it failed on a request, or does not serve the model: for a moment others are asked, if any.

        A server that fails fast has the fewest requests, and would attract all of them.
        """
        if not model:  # a query, about this model or that
            return
        with self._lock:
            server.queue(model).failing_until = time.monotonic() + FAILING_S

    def record_redirect(self, server: Server) -> None:
        """Note that it is a wrong address: others are asked, if there are any that are none."""
        with self._lock:
            newly, server.redirecting_until = not server.redirecting_until, time.monotonic() + REDIRECTING_S
            self._redirecting = True
        if newly:
            log.warning("%s redirects, which is not followed; others are asked, if there are any", server.address)

    def record_timeout(self, server: Server, model: str, silent_s: float) -> None:
        """Note that it has not responded in time: its fault, or the model's, or there was little time.

        If it said nothing to anybody for so long, the model gets no more: what a stalled network holds back arrives all
        at once, and would overflow the queue.
        """
        with self._lock:
            server.suspect = True
            server.queue(model).stalled |= silent_s >= PROBE_S
        self._have_it_probed(server)

    def mark_down(self, server: Server) -> None:
        """Give it no more requests until a probe succeeds."""
        with self._lock:
            newly, server.down = not server.down, True
        if newly:
            log.warning("%s does not respond; it gets no requests until a probe succeeds", server.address)
        self.notify_all()
        self._have_it_probed(server)

    def mark_up(self, server: Server) -> None:
        """Give it requests again, a few at first."""
        with self._lock:
            newly = server.down
            for queue in server.queues.values():
                if server.down or queue.stalled:
                    queue.limit, queue.slow_start = min(queue.limit, _SLOW_START_LIMIT), True
                queue.stalled = False
            server.down, server.suspect, server.responded = False, False, True
            for model in list(server.queues):
                self._dispatch(model)
        if newly:
            log.warning("%s responds again", server.address)

    def needs_probe(self, server: Server) -> bool:
        """Tell whether it is down or suspect. If not, whoever probes it has to stop."""
        with self._lock:
            server.probing = server.down or server.suspect
            return server.probing

    def all_down(self) -> bool:
        """Tell whether no server is up."""
        return all(server.down for server in self._addressed())

    def has_another(self, tried: Collection[Server]) -> bool:
        """Tell whether there is one that may be asked instead."""
        return any(not server.down and server not in tried for server in self._addressed())

    def has_right_address(self) -> bool:
        """Tell whether one of them does not redirect."""
        return not self._redirecting or any(time.monotonic() >= server.redirecting_until for server in self.all)

    def none_responds(self, model: str) -> bool:
        """Tell whether that is what a request waits for, and not its turn."""
        with self._lock:
            return all(server.down or server.queue(model).stalled for server in self._addressed())

    def ever_responded(self) -> bool:
        """Tell whether one of them did, to this client."""
        return any(server.responded for server in self._addressed())

    @property
    def via(self) -> str:
        """The forward proxies that they are asked through."""
        return ", ".join(dict.fromkeys(server.via for server in self.all if server.via))

    def __str__(self) -> str:
        return ", ".join(str(server.address) for server in self.all)

    def _dispatch(self, model: str) -> None:
        """Hand out what room there is, first come first served; with the lock held."""
        line = self._lines[model]
        while line and (server := self._pick(model, line[0].avoid)):
            server.in_flight += 1
            server.queue(model).in_flight += 1
            line[0].server = server
            line.popleft().notify()
        if line and line[0].recheck_at != self._recheck_at(model):
            line[0].notify()

    def _addressed(self) -> Sequence[Server]:
        """Return all but those that redirect; where all do, all."""
        if not self._redirecting:
            return self.all
        now = time.monotonic()
        return [server for server in self.all if now >= server.redirecting_until] or self.all

    def _pick(self, model: str, avoid: Collection[Server]) -> Server | None:
        now = time.monotonic()
        up = [server for server in self._addressed() if not (server.down or server.queue(model).stalled)]
        sound = [server for server in up if now >= server.queue(model).failing_until] or up
        open_ = [server for server in sound if server.queue(model).is_open(now)]
        if len(open_) < 2:
            return open_[0] if open_ else None
        candidates = [server for server in open_ if server not in avoid] or open_
        least = min(server.in_flight for server in candidates)
        return random.choice([server for server in candidates if server.in_flight == least])  # noqa: S311

    def _recheck_at(self, model: str) -> float:
        """Return when the next server ends its backoff, or is no longer avoided; infinite if there is none."""
        now, queues = time.monotonic(), [server.queue(model) for server in self.all]
        ends = [end for queue in queues for end in (queue.backoff_until, queue.failing_until) if end > now]
        if self._redirecting:
            ends += [server.redirecting_until for server in self.all if server.redirecting_until > now]
        return min(ends, default=math.inf)

    def _have_it_probed(self, server: Server) -> None:
        with self._lock:
            start, server.probing = not server.probing, True
        if not start:
            return
        try:
            self._probe(server)
        except RuntimeError:  # no thread is to be had, or the event loop ends: then each call tries for itself
            self.mark_up(server)
            server.probing = False
