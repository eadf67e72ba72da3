"""What a message does until it has a response: which server is asked, when again, and when it gives up.

Attempts are a generator: it yields what to do next, and is told what came of it. So the same attempts serve threads
and asyncio, and their tests need no network. See docs/decisions/0007-one-plan-four-transports.md.
"""

import random
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from clients.core.deadline import Deadline
from clients.core.failures import Failure, Kind, error_of
from clients.core.request import Query, Request
from clients.core.servers import PROBE_S, Server, Servers, Slot, log
from clients.errors import ClientError
from clients.settings import Retry

# Another server may do better, if there is one: a rolling upgrade, a model that failed to load, a broken GPU.
_ELSEWHERE = (Kind.NOT_FOUND, Kind.ACCESS_DENIED, Kind.SERVER_ERROR)

_NO_SERVER = Failure(Kind.UNAVAILABLE, "it did not respond to an earlier request, nor to a probe since")
_AT_LIMIT = Failure(Kind.OVERLOADED, "it has as many requests of this client as it accepts")
_NO_TIME = Failure(Kind.DEADLINE_EXCEEDED, "no time was left to send it")


@dataclass(frozen=True)
class Send:
    """Send the message there, and come back with the response, or the Failure where there is none."""

    server: Server
    message: Request | Query
    timeout_s: float


@dataclass(frozen=True)
class Pause:
    """Wait for so long, or until the event is set."""

    seconds: float
    until: Any = None


Attempts = Generator[Send | Pause, Any, Any]


class RetryBudget:
    """Of retries that bring a busy server more load: each success earns a share of one. Thread-safe."""

    def __init__(self, retry: Retry) -> None:
        self._share, self._most, self._tokens = retry.budget, max(1.0, retry.burst), float(retry.burst)
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Add the share of a success."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._share)

    def spend(self) -> bool:
        """Take a retry from it; whether there was one."""
        with self._lock:
            affordable = self._tokens >= 1
            self._tokens -= affordable
            return affordable


def attempts(
    message: Request | Query,
    servers: Servers,
    retry: Retry,
    budget: RetryBudget,
    deadline: Deadline,
    tried: set[Server] | None = None,
) -> Attempts:
    """Send a message until there is a response, or the deadline; return the response.

    Args:
        tried: Servers to which it was sent, which are avoided; shared with the other attempts of a hedged request.

    Raises:
        ClientError: there is no response, and none to be had.
    """
    queue, sent = message.queue, 0
    last: Failure | None = None
    where: Server | None = None  # the one to blame; None: all of them
    tried = set() if tried is None else tried
    outages = _Outages()
    while True:
        slot = Slot(queue, tried)
        try:
            servers.acquire(slot)
            waits_for = yield from _wait(slot, servers, deadline)
            if (server := slot.server) is None or not (remaining_s := deadline.remaining_s):
                raise _error(last or waits_for, message, where, servers, sent, deadline)
            sent += 1
            tried.add(server)
            outcome = yield from _send(Send(server, message, remaining_s), servers)
        finally:
            servers.release(slot)  # after what came of it was recorded, which decides who is next
        if not isinstance(outcome, Failure):
            budget.earn()
            return outcome
        last = outcome
        where = None if last.kind is Kind.UNAVAILABLE else server
        # A wrong address is asked no more: no crowd of retries can come of it.
        free = servers.has_right_address() if last.wrong_address else outages.is_new(server, last)
        may_help = _may_help(last) or (last.kind in _ELSEWHERE and servers.has_another(tried))
        if sent >= retry.max_attempts or not message.idempotent or not (free or (may_help and budget.spend())):
            raise _error(last, message, where, servers, sent, deadline)
        pause_s = 0.0
        if not free and all(server.down or server in tried for server in servers.all):
            pause_s = random.uniform(0, retry.backoff_limit_s(sent))  # noqa: S311
        if pause_s >= deadline.remaining_s:
            raise _error(last, message, where, servers, sent, deadline)
        log.info("%s: attempt %d failed, retrying after %.3f s: %s", message.about, sent, pause_s, last.message)
        if pause_s:
            yield Pause(pause_s)


def _error(
    failure: Failure, message: Request | Query, where: Server | None, servers: Servers, sent: int, deadline: Deadline
) -> ClientError:
    server = str(where.address if where else servers)
    return error_of(failure, message.about, server, sent, deadline, (where or servers).via)


class _Outages:
    """Of servers, as one request sees them: to retry after one costs no budget, once for each.

    A server that is gone is not busy, and it is not asked before a probe finds it, nor by all at once. That it answered
    others in between tells one outage from the next.
    """

    def __init__(self) -> None:
        self._successes_then: dict[Server, int] = {}

    def is_new(self, server: Server, failure: Failure) -> bool:
        """Tell whether the failure is an outage that this request has not met yet."""
        if failure.kind is not Kind.UNAVAILABLE or self._successes_then.get(server) == server.successes:
            return False
        self._successes_then[server] = server.successes
        return True


def _wait(slot: Slot, servers: Servers, deadline: Deadline) -> Generator[Pause, Any, Failure]:
    """Wait until the slot has its server, or the deadline; return what it then waited for.

    It does not wait for servers that never responded: the address is wrong, or they have not been started.
    """
    waits_for = _NO_TIME
    while servers.poll(slot) is None and deadline.remaining_s:
        waits_for = _NO_SERVER if servers.none_responds(slot.model) else _AT_LIMIT
        if servers.all_down() and not servers.ever_responded():
            break
        yield Pause(min(slot.recheck_at - time.monotonic(), deadline.remaining_s), slot.wakeup)
    return waits_for


def _send(step: Send, servers: Servers) -> Generator[Send, Any, Any]:
    """Make one attempt, and note what it says of the server; return the response or the Failure."""
    server, queue = step.server, step.message.queue
    began, successes = time.monotonic(), server.successes

    def silent_s() -> float:
        """How long it said nothing to anybody."""
        return time.monotonic() - began if server.successes == successes else 0

    try:
        outcome = yield step
    except BaseException:  # cancelled by the caller, who may have waited for a server that does not respond
        if silent_s() >= PROBE_S:
            servers.record_timeout(server, queue, silent_s())
        raise
    if not isinstance(outcome, Failure):
        server.responded = True
        servers.record_success(server, queue)
        return outcome
    server.responded |= outcome.server_responded
    if outcome.wrong_address:
        servers.record_redirect(server)
    elif outcome.kind is Kind.OVERLOADED:
        servers.record_rejection(server, queue)
    elif outcome.kind is Kind.UNAVAILABLE:
        servers.mark_down(server)
    elif outcome.kind is Kind.DEADLINE_EXCEEDED:
        servers.record_timeout(server, queue, silent_s())
    elif outcome.kind in (*_ELSEWHERE, Kind.INVALID_RESPONSE):
        servers.record_error(server, queue)
    return outcome


def _may_help(failure: Failure) -> bool:
    """Tell whether the same server may do better."""
    return failure.transient or failure.kind in (Kind.OVERLOADED, Kind.UNAVAILABLE, Kind.INVALID_RESPONSE)
