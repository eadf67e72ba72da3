"""Which server is asked for one request, how often, and when: everything but the sending.

A plan is a generator: it yields what to do next and is told what came of it. So the same plan serves threads and
asyncio, and needs neither a network nor a clock of its own to be tested.
"""

import random
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from clients.deadline import Deadline
from clients.failures import Failure, Kind, error_of
from clients.servers import Server, Servers, longest_pause_s
from clients.settings import Retry

_NOBODY = Failure(Kind.UNREACHABLE, "it did not answer an earlier request, nor a probe since")
_ENOUGH = Failure(Kind.OVERLOADED, "it has as many requests of this client as it accepts")
_NO_TIME = Failure(Kind.EXPIRED, "no time was left to send it")


@dataclass(frozen=True)
class Send:
    """Send the request there, and come back with None or what it failed of."""

    server: Server
    timeout_s: float


@dataclass(frozen=True)
class Pause:
    seconds: float
    called: Any = None  # an event that ends it


Plan = Generator[Send | Pause, Failure | None, None]


class Budget:
    """Of retries that bring a busy server more load: a share of what it has answered."""

    def __init__(self, retry: Retry) -> None:
        self._share, self._burst, self._tokens = retry.budget, float(retry.burst), float(retry.burst)
        self._lock = threading.Lock()

    def earn(self) -> None:
        with self._lock:
            self._tokens = min(self._burst, self._tokens + self._share)

    def spend(self) -> bool:
        with self._lock:
            affordable = self._tokens >= 1
            self._tokens -= affordable
            return affordable


def plan(
    model: str,
    servers: Servers,
    retry: Retry,
    budget: Budget,
    deadline: Deadline,
    *,
    queue: str = "",
    repeatable: bool = True,
) -> Plan:
    """Ask until there is an answer, or the deadline.

    Args:
        model: Whom to name in an error.
        queue: The model whose queue the request waits in, if it does.
        repeatable: Whether the server may see the request twice; a stateful model's it must not.

    Raises:
        ClientError: there is none, and none to be had.
    """
    attempts, last, waits_for = 0, None, None
    tried: set[Server] = set()
    answers_when_gone: dict[Server, int] = {}
    while True:
        turn = servers.line_up(queue, avoid=tried)
        try:
            while (server := servers.look(turn)) is None and deadline.remaining_s:
                waits_for = _NOBODY if servers.nobody_answers(queue) else _ENOUGH
                if servers.all_down() and not servers.have_answered():  # a wrong address, or not started yet
                    raise error_of(last or waits_for, model, str(servers), attempts, deadline)
                yield Pause(min(turn.look_at - time.monotonic(), deadline.remaining_s), turn.called)
            if server is None or not (remaining_s := deadline.remaining_s):
                raise error_of(last or waits_for or _NO_TIME, model, str(servers), attempts, deadline)
            attempts += 1
            last = yield Send(server, remaining_s)
            _tell(servers, server, queue, last, remaining_s)  # before the next in line gets the place
        finally:
            servers.leave(turn)
        if last is None:
            budget.earn()
            return
        tried.add(server)
        # A server that is gone is busy with nobody, and is not asked before a probe finds it, nor by all at once: that
        # is free, once for each time that it went; that it answered others in between tells one from the next.
        free = last.kind is Kind.UNREACHABLE and answers_when_gone.get(server) != server.answers
        if free:
            answers_when_gone[server] = server.answers
        if attempts >= retry.attempts or not repeatable or not (free or (_may_help(last) and budget.spend())):
            raise error_of(last, model, str(servers), attempts, deadline)
        if not free and all(server.down or server in tried for server in servers.all):
            pause_s = random.uniform(0, longest_pause_s(retry, attempts))  # noqa: S311
            if pause_s >= deadline.remaining_s:
                raise error_of(last, model, str(servers), attempts, deadline)
            yield Pause(pause_s)


def _tell(servers: Servers, server: Server, queue: str, failure: Failure | None, waited_s: float) -> None:
    if failure is None:
        servers.answered(server, queue)
    elif failure.kind is Kind.OVERLOADED:
        servers.refused(server, queue)
    elif failure.kind is Kind.UNREACHABLE:
        servers.failed(server)
    elif failure.kind is Kind.EXPIRED:
        servers.late(server, queue, waited_s)


def _may_help(failure: Failure) -> bool:
    return failure.heals or failure.kind in (Kind.OVERLOADED, Kind.UNREACHABLE, Kind.BAD_ANSWER)
