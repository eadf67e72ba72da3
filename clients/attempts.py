"""What a call does until it has a response: which server is asked, when it is asked again, and when it gives up.

A plan is a generator: it yields what to do next, and is told what came of it. So the same plan serves threads and
asyncio, and its tests need no network. See docs/decisions/0007-one-plan-four-transports.md.
"""

import random
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from clients.deadline import Deadline
from clients.failures import Failure, Kind, error_of
from clients.servers import PROBE_S, Server, Servers, Slot, log
from clients.settings import Retry

# Another server may do better, if there is one: a rolling upgrade, a model that failed to load, a broken GPU.
_ELSEWHERE = (Kind.NOT_FOUND, Kind.ACCESS_DENIED, Kind.SERVER_ERROR)

_NO_SERVER = Failure(Kind.UNAVAILABLE, "it did not respond to an earlier request, nor to a probe since")
_AT_LIMIT = Failure(Kind.OVERLOADED, "it has as many requests of this client as it accepts")
_NO_TIME = Failure(Kind.DEADLINE_EXCEEDED, "no time was left to send it")


@dataclass(frozen=True)
class Send:
    """Send the request there, and come back with None or why that failed."""

    server: Server
    timeout_s: float


@dataclass(frozen=True)
class Pause:
    """Wait for so long, or until the event is set."""

    seconds: float
    until: Any = None


Plan = Generator[Send | Pause, Failure | None, None]


class RetryBudget:
    """Of retries that bring a busy server more load: each success earns a share of one. Thread-safe."""

    def __init__(self, retry: Retry) -> None:
        self._share, self._most, self._tokens = retry.budget, max(1.0, retry.burst), float(retry.burst)
        self._lock = threading.Lock()

    def earn(self) -> None:
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._share)

    def spend(self) -> bool:
        with self._lock:
            affordable = self._tokens >= 1
            self._tokens -= affordable
            return affordable


def plan(
    model: str,
    servers: Servers,
    retry: Retry,
    budget: RetryBudget,
    deadline: Deadline,
    *,
    queue: str = "",
    idempotent: bool = True,
    tried: set[Server] | None = None,
) -> Plan:
    """Send until there is a response, or the deadline.

    Args:
        model: What errors are about: a model, or "the server".
        queue: The model whose queue the request waits in, if it does.
        idempotent: Whether the server may see the request twice; of a stateful model it must not.
        tried: Servers to which it was sent, which are avoided; shared with the plan of a hedged request.

    Raises:
        ClientError: there is no response, and none to be had.
    """
    attempts, last, where = 0, None, None  # where: the server to blame; None: all of them
    tried = set() if tried is None else tried
    outages = _Outages()
    while True:
        slot = Slot(queue, tried)
        try:
            servers.acquire(slot)
            waits_for = yield from _wait(slot, servers, deadline)
            if (server := slot.server) is None or not (remaining_s := deadline.remaining_s):
                raise error_of(last or waits_for, model, str(where or servers), attempts, deadline)
            attempts += 1
            tried.add(server)
            last = yield from _send(server, remaining_s, servers, queue)
        finally:
            servers.release(slot)  # after what came of it was recorded, which decides who is next
        if last is None:
            budget.earn()
            return
        where = None if last.kind is Kind.UNAVAILABLE else server.address
        free = outages.is_new(server, last)
        may_help = _may_help(last) or (last.kind in _ELSEWHERE and servers.has_another(tried))
        if attempts >= retry.max_attempts or not idempotent or not (free or (may_help and budget.spend())):
            raise error_of(last, model, str(where or servers), attempts, deadline)
        pause_s = 0.0
        if not free and all(server.down or server in tried for server in servers.all):
            pause_s = random.uniform(0, retry.backoff_limit_s(attempts))  # noqa: S311
        if pause_s >= deadline.remaining_s:
            raise error_of(last, model, str(where or servers), attempts, deadline)
        log.info("%s: attempt %d failed, retrying after %.3f s: %s", model, attempts, pause_s, last.message)
        if pause_s:
            yield Pause(pause_s)


class _Outages:
    """Of servers, as one request sees them: to retry after one costs no budget, once for each.

    A server that is gone is not busy, and it is not asked before a probe finds it, nor by all at once. That it answered
    others in between tells one outage from the next.
    """

    def __init__(self) -> None:
        self._successes_then: dict[Server, int] = {}

    def is_new(self, server: Server, failure: Failure) -> bool:
        if failure.kind is not Kind.UNAVAILABLE or self._successes_then.get(server) == server.successes:
            return False
        self._successes_then[server] = server.successes
        return True


def _wait(slot: Slot, servers: Servers, deadline: Deadline) -> Generator[Pause, Failure | None, Failure]:
    """Until the slot has its server, or the deadline; what it then waited for.

    It does not wait for servers that never responded: the address is wrong, or they have not been started.
    """
    waits_for = _NO_TIME
    while servers.poll(slot) is None and deadline.remaining_s:
        waits_for = _NO_SERVER if servers.none_responds(slot.model) else _AT_LIMIT
        if servers.all_down() and not servers.ever_responded():
            break
        yield Pause(min(slot.recheck_at - time.monotonic(), deadline.remaining_s), slot.wakeup)
    return waits_for


def _send(
    server: Server, timeout_s: float, servers: Servers, queue: str
) -> Generator[Send, Failure | None, Failure | None]:
    """One attempt, and what it says of the server."""
    began, successes = time.monotonic(), server.successes

    def silent_s() -> float:
        """How long it said nothing to anybody."""
        return time.monotonic() - began if server.successes == successes else 0

    try:
        failure = yield Send(server, timeout_s)
    except BaseException:  # cancelled by the caller, who may have waited for a server that does not respond
        if silent_s() >= PROBE_S:
            servers.record_timeout(server, queue, silent_s())
        raise
    if failure is None or failure.server_responded:
        server.responded = True
    if failure is None:
        servers.record_success(server, queue)
    elif failure.kind is Kind.OVERLOADED:
        servers.record_rejection(server, queue)
    elif failure.kind is Kind.UNAVAILABLE:
        servers.mark_down(server)
    elif failure.kind is Kind.DEADLINE_EXCEEDED:
        servers.record_timeout(server, queue, silent_s())
    elif failure.kind in (*_ELSEWHERE, Kind.INVALID_RESPONSE):
        servers.record_error(server, queue)
    return failure


def _may_help(failure: Failure) -> bool:
    return failure.transient or failure.kind in (Kind.OVERLOADED, Kind.UNAVAILABLE, Kind.INVALID_RESPONSE)
