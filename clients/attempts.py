"""Which server is asked for one request, how often, and when: everything but the sending.

A plan is a generator: it yields what to do next and is told what came of it. So the same plan serves threads and
asyncio, and needs neither a network nor a clock of its own to be tested.
"""

import random
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass

from clients.errors import ClientError
from clients.failures import Failure, Kind, error_of
from clients.servers import Server, Servers
from clients.settings import Retry

_NOBODY = Failure(Kind.UNREACHABLE, "it did not answer an earlier request, nor a probe since")
_ENOUGH = Failure(Kind.OVERLOADED, "it has as many requests of this client as it accepts")


@dataclass(frozen=True)
class Send:
    """Send the request there, and come back with None or what it failed of."""

    server: Server
    timeout_s: float


@dataclass(frozen=True)
class Pause:
    seconds: float


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
    model: str, servers: Servers, retry: Retry, budget: Budget, timeout_s: float, *, repeatable: bool = True
) -> Plan:
    """Ask until there is an answer, at most `timeout_s`.

    Args:
        repeatable: Whether the server may see the request twice; a stateful model's it must not.

    Raises:
        ClientError: there is none, and none to be had.
    """
    began, attempts, tried, last = time.monotonic(), 0, set[Server](), None
    while True:
        remaining_s = began + timeout_s - time.monotonic()
        if remaining_s <= 0:
            raise _error(last or Failure(Kind.EXPIRED, "no time was left to send it"), model, servers, attempts, began)
        server = servers.take(avoid=tried)
        if server is None:
            down = servers.all_down()
            if last is None:
                last = _NOBODY if down else _ENOUGH
            if down and not servers.have_answered:  # it was never there: a wrong address, or not started yet
                raise _error(last, model, servers, attempts, began)
            yield Pause(min(servers.worth_a_look_in_s(), remaining_s))
            continue
        attempts += 1
        try:
            last = yield Send(server, remaining_s)
        finally:
            servers.give_back(server)
        if last is None:
            servers.answered(server)
            budget.earn()
            return
        if last.kind is Kind.OVERLOADED:
            servers.refused(server)
        if last.kind in (Kind.UNREACHABLE, Kind.EXPIRED):
            servers.failed(server)  # or stalls; if neither, a probe says so at once
        tried.add(server)
        if attempts >= retry.attempts or not repeatable or not _may_help(last, budget):
            raise _error(last, model, servers, attempts, began)
        if last.kind is not Kind.UNREACHABLE and tried.issuperset(servers.all):
            pause_s = random.uniform(0, min(retry.longest_pause_s, retry.first_pause_s * 2**attempts))  # noqa: S311
            if time.monotonic() + pause_s >= began + timeout_s:
                raise _error(last, model, servers, attempts, began)
            yield Pause(pause_s)


def _may_help(failure: Failure, budget: Budget) -> bool:
    if failure.kind is Kind.UNREACHABLE:
        return True
    return (failure.heals or failure.kind in (Kind.OVERLOADED, Kind.BAD_ANSWER)) and budget.spend()


def _error(failure: Failure, model: str, servers: Servers, attempts: int, began: float) -> ClientError:
    return error_of(failure, model, str(servers), attempts, time.monotonic() - began)
