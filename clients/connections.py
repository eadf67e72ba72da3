"""What a `Client` holds in one process: its transports, its calls, which it drives in threads, and its probers.

After a fork the child has its parent's, which it must not use: it makes its own with its first call.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, TypeVar
from weakref import WeakSet, ref

from clients.core.attempts import Pause, Send
from clients.core.calls import Calls, Step, Steps, Together
from clients.core.deadline import Deadline
from clients.core.failures import Failure, client_closed
from clients.core.probing import LIVE, Probing, probing, weakly
from clients.core.request import Query
from clients.core.servers import PROBE_S, Server
from clients.settings import ClientSettings
from clients.transports import transport_of
from clients.transports.base import Transport

T = TypeVar("T")


class Connections:
    """All of that. Thread-safe."""

    def __init__(self, settings: ClientSettings) -> None:
        self.inherited = False  # through a fork
        self.calls = Calls(settings, weakly(self._start_probing))
        self._concurrency, self._closed = settings.concurrency, threading.Event()
        self._transports = {
            server: transport_of(server.address, settings.transport) for server in self.calls.servers.all
        }
        _all.add(self)

    def run(self, steps: Steps[T]) -> T:
        """Drive a call to its end, in this thread."""
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._send(step) if isinstance(step, Send) else self._do(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as ended:
            result: T = ended.value
            return result
        finally:
            steps.close()  # on Ctrl-C, too: its slot is released

    def any_ready(self, query: Query, deadline: Deadline) -> bool:
        """Tell whether one of the servers says so. Each is asked once, one after the other.

        Raises:
            ClientError: none does, and one responds with an error.
        """
        return self.calls.any_ready(query, self._readiness(query, deadline), deadline)

    def any_alive(self) -> bool:
        """Tell whether one of the servers responds."""
        for server, transport in self._transports.items():
            if _is_alive(transport):
                server.responded = True
                return True
        return False

    def close(self) -> None:
        """Close the connections. Calls in flight end with an error."""
        self._closed.set()
        self.calls.servers.notify_all()
        for transport in self._transports.values():
            transport.close()

    def _send(self, step: Send) -> Any:
        if self._closed.is_set():
            raise client_closed()
        try:
            return self._transports[step.server].send(step.message, step.timeout_s)
        except Exception as error:  # a Failure, or of a library whose connection was closed under it
            if self._closed.is_set():
                raise client_closed() from error
            if isinstance(error, Failure):
                return error
            raise

    def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            if self._closed.is_set():
                raise client_closed()
            return (step.until or self._closed).wait(step.seconds)
        assert isinstance(step, Together)  # calls are hedged in asyncio only
        return self._run_together(step.calls)

    def _run_together(self, calls: Sequence[Steps[Any]]) -> list[Any]:
        with workers(min(self._concurrency, len(calls)), "clients-chunk") as threads:
            futures = [threads.submit(copy_context().run, self.run, call) for call in calls]
            wait(futures, return_when=FIRST_EXCEPTION)
            return [future.result() for future in futures if future.done()]

    def _readiness(self, query: Query, deadline: Deadline) -> Iterator[tuple[Server, bool | Failure]]:
        """Ask one server after the other, until one is ready."""
        for server, transport in self._transports.items():
            try:
                ready = bool(transport.query(query, min(PROBE_S, deadline.remaining_s)))
            except Failure as failure:
                yield server, failure
                continue
            yield server, ready
            if ready:
                return

    def _start_probing(self, server: Server) -> None:
        steps = probing(self.calls.servers, server)
        arguments = (ref(self), steps, self._transports[server], self._closed)
        threading.Thread(target=_probe, args=arguments, name="clients-probe", daemon=True).start()


def of_this_process(held: Connections, renew: Callable[[], Connections]) -> Connections:
    """Return them, unless they came through a fork; then those that `renew` makes, the same for all threads."""
    if not held.inherited:
        return held
    with _renewing:
        return renew()


@contextmanager
def workers(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Hold threads for one call. What it does not wait for any more ends by itself, at its deadline."""
    threads = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _is_alive(transport: Transport) -> bool:
    """Ask whether it responds, with whatever."""
    try:
        return bool(transport.query(LIVE, PROBE_S))
    except Failure as failure:
        return failure.server_responded


def _probe(
    owner: Callable[[], Connections | None], steps: Probing, transport: Transport, closed: threading.Event
) -> None:
    """Probe until the server responds, or its client is closed or gone."""
    with suppress(StopIteration):
        step = next(steps)
        while owner() and not closed.is_set():
            alive = None
            if isinstance(step, Pause):
                closed.wait(step.seconds)
            else:
                try:
                    if not (alive := _is_alive(transport)):
                        transport.reconnect()
                except Exception:  # whatever it is, somebody has to go on probing
                    alive = False
            step = steps.send(alive)


_all: WeakSet[Connections] = WeakSet()
_renewing = threading.Lock()


def _forked() -> None:
    global _renewing
    _renewing = threading.Lock()  # another thread may have held it, and is not here to give it back
    for connections in list(_all):
        connections.inherited = True


os.register_at_fork(after_in_child=_forked)
