"""What all transports have in common, whatever the protocol, for threads and for asyncio."""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from clients.core.failures import Failure, Kind
from clients.core.request import Query, Request

C = TypeVar("C")


class Transport(ABC):
    """One server over one protocol.

    A transport for threads may be shared by them. One for asyncio belongs to the event loop in which it is made, and
    what its methods return is to be awaited.
    """

    def send(self, message: Request | Query, timeout_s: float) -> Any:
        """Send a message; return its response: arrays, or JSON.

        Raises:
            Failure: there is none in time.
        """
        return self.infer(message, timeout_s) if isinstance(message, Request) else self.query(message, timeout_s)

    @abstractmethod
    def infer(self, request: Request, timeout_s: float) -> Any:
        """Send an inference request; return its outputs."""

    @abstractmethod
    def query(self, query: Query, timeout_s: float) -> Any:
        """Ask the server something; return its JSON, as it is over HTTP."""

    @abstractmethod
    def reconnect(self) -> Any:
        """Use a new connection from now on: one that stalls might do so for minutes."""

    @abstractmethod
    def close(self) -> Any:
        """Close all connections. Requests in flight end with a Failure or an error of the library below."""


class Renewable(Generic[C]):
    """A connection that can be replaced while requests are on it. Thread-safe.

    Args:
        connect: Makes one.

    Attributes:
        current: The one to use.
    """

    def __init__(self, connect: Callable[[], C]) -> None:
        self._connect, self._lock, self._closed = connect, threading.Lock(), False
        self._retired: list[tuple[float, C]] = []  # that stalled, and until when a request may be on them
        self._busy_until = 0.0  # on the monotonic clock
        self.current = connect()

    def keep_until(self, deadline: float) -> None:
        """Note that a request is on the current one, until then at most."""
        self._busy_until = max(self._busy_until, deadline)

    def replace(self) -> list[C]:
        """Connect again; return what is to be closed: connections on which nobody waits any more."""
        with self._lock:
            if self._closed:
                return []
            now = time.monotonic()
            retired = [*self._retired, (self._busy_until, self.current)]
            self.current, self._busy_until = self._connect(), 0.0
            self._retired = [(until, connection) for until, connection in retired if until > now]
            return [connection for until, connection in retired if until <= now]

    def retire_all(self) -> list[C]:
        """Connect no more; return what is to be closed."""
        with self._lock:
            self._closed = True
            return [self.current, *(connection for _, connection in self._retired)]


def caller_is_cancelled() -> bool:
    """Tell whether a CancelledError is the caller's, or a library's, whose connection was closed under a request."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def connection_closed() -> Failure:
    """Make the failure of a request whose connection was closed under it."""
    return Failure(Kind.UNAVAILABLE, "the connection was closed")
