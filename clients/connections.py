"""What a `Client` holds in one process: its transports, what it knows of the servers, and their probers.

After a fork the child has its parent's, which it must not use: it makes its own with its first call.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakMethod, WeakSet, ref

from clients.attempts import Pause, Plan, RetryBudget, plan
from clients.deadline import Deadline
from clients.errors import ClientError
from clients.failures import Failure, error_of
from clients.over_grpc import Grpc
from clients.over_http import Http
from clients.request import Query, RequestIds
from clients.servers import PROBE_S, Server, Servers
from clients.settings import Address, Retry, Transport
from clients.tensors import SignatureCache

# Between probes of one server, in seconds: while it does not respond, doubled each time.
FIRST_PROBE_PAUSE_S, LONGEST_PROBE_PAUSE_S = 0.05, 1.0

READY_PAUSE_S = 0.2  # between questions whether a server is ready

SendAttempt = Callable[[Grpc | Http, float], Any]


class Connections:
    """All of that. Thread-safe."""

    def __init__(self, addresses: Sequence[Address], transport: Transport, retry: Retry) -> None:
        self.inherited = False  # through a fork
        self.signatures, self.ids = SignatureCache(), RequestIds()
        self._retry, self._budget, self._closed = retry, RetryBudget(retry), threading.Event()
        self._servers = Servers(addresses, retry, weakly(self._start_probing))
        self._transports: dict[Server, Grpc | Http] = {
            server: (Grpc if server.address.protocol == "grpc" else Http)(server.address, transport)
            for server in self._servers.all
        }
        _all.add(self)

    def call(
        self, model: str, deadline: Deadline, send: SendAttempt, *, queue: str = "", idempotent: bool = True
    ) -> Any:
        """Send until there is a response: see `attempts.plan`."""
        steps = plan(model, self._servers, self._retry, self._budget, deadline, queue=queue, idempotent=idempotent)
        try:
            return self._execute(steps, send)
        except ClientError:
            raise
        except Exception as error:  # of a library whose connection was closed under it
            if self._closed.is_set():
                raise closed() from error
            raise

    def any_is_ready(self, query: Query, deadline: Deadline) -> bool:
        """Whether one of the servers says so. Each is asked once, one after the other.

        Raises:
            ClientError: none does, and one responds with an error.
        """
        failed = None
        for server, transport in self._transports.items():
            try:
                ready = transport.query(query, min(PROBE_S, deadline.remaining_s))
                server.responded = True
                if ready:
                    return True
            except Failure as failure:
                if failure.denies_readiness:
                    failed = error_of(failure, query.model or "the server", str(server.address), 1, deadline)
        if failed:
            raise failed
        return False

    def any_is_alive(self) -> bool:
        """Whether one of the servers responds."""
        for server, transport in self._transports.items():
            if _is_alive(transport):
                server.responded = True
                return True
        return False

    def __str__(self) -> str:
        return str(self._servers)

    def close(self) -> None:
        """Calls in flight end with an error."""
        self._closed.set()
        self._servers.notify_all()
        for transport in self._transports.values():
            transport.close()

    def _execute(self, steps: Plan, send: SendAttempt) -> Any:
        """Do what the plan says; the response."""
        response = None
        try:
            step = next(steps)
            while True:
                failure = None
                if self._closed.is_set():
                    raise closed()
                if isinstance(step, Pause):
                    (step.until or self._closed).wait(step.seconds)
                else:
                    try:
                        response = send(self._transports[step.server], step.timeout_s)
                    except Failure as error:
                        failure = error
                        if self._closed.is_set():  # it may have failed of that
                            raise closed() from error
                step = steps.send(failure)
        except StopIteration:
            return response
        finally:
            steps.close()  # on Ctrl-C, too: the slot is released

    def _start_probing(self, server: Server) -> None:
        arguments = (ref(self), self._servers, server, self._transports[server], self._closed)
        threading.Thread(target=_probe, args=arguments, name="clients-probe", daemon=True).start()


def _is_alive(transport: Grpc | Http) -> bool:
    """Whether it responds, with whatever."""
    try:
        return bool(transport.query(Query("live"), PROBE_S))
    except Failure as failure:
        return failure.server_responded


def _probe(
    owner: Callable[[], Connections | None],
    servers: Servers,
    server: Server,
    transport: Grpc | Http,
    closed: threading.Event,
) -> None:
    """Until the server responds, or its client is closed or gone."""
    pause_s = FIRST_PROBE_PAUSE_S
    while servers.needs_probe(server) and owner() and not closed.is_set():
        try:
            alive = _is_alive(transport)
            if not alive:
                transport.reconnect()
        except Exception:  # whatever it is, somebody has to go on probing
            alive = False
        (servers.mark_up if alive else servers.mark_down)(server)
        closed.wait(FIRST_PROBE_PAUSE_S if alive else pause_s)
        pause_s = FIRST_PROBE_PAUSE_S if alive else min(2 * pause_s, LONGEST_PROBE_PAUSE_S)


_all: WeakSet[Connections] = WeakSet()
_renewing = threading.Lock()


def weakly(start_probing: Callable[[Server], None]) -> Callable[[Server], None]:
    """The method of a client, which a prober must not keep alive: dropped and not closed, it would probe for ever."""
    method = WeakMethod(start_probing)

    def start(server: Server) -> None:
        if alive := method():
            alive(server)

    return start


def of_this_process(held: Connections, renew: Callable[[], Connections]) -> Connections:
    """Them, unless they came through a fork; then those that `renew` makes, the same for all threads."""
    if not held.inherited:
        return held
    with _renewing:
        return renew()


def closed() -> ClientError:
    return ClientError("the client is closed", hint="make a new one; it lasts as long as its `with`")


def _forked() -> None:
    global _renewing
    _renewing = threading.Lock()  # another thread may have held it, and is not here to give it back
    for connections in list(_all):
        connections.inherited = True


os.register_at_fork(after_in_child=_forked)
