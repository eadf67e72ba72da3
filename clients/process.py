"""What a client holds in one process: its connections, and who looks after servers that are down.

After a fork the child has its parent's, which it must not use: it makes its own with its first call.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from clients.attempts import Budget, Pause, Plan, plan
from clients.deadline import Deadline
from clients.errors import ClientError
from clients.failures import Failure
from clients.over_grpc import Grpc
from clients.over_http import Http
from clients.request import Ids
from clients.servers import PROBE_S, Server, Servers
from clients.settings import Address, Retry, Transport
from clients.tensors import Known

FIRST_PROBE_PAUSE_S, LONGEST_PROBE_PAUSE_S = 0.05, 1.0

Ask = Callable[[Grpc | Http, float], Any]


class Process:
    """All of that, for threads."""

    def __init__(self, addresses: Sequence[Address], transport: Transport, retry: Retry, concurrency: int) -> None:
        self.inherited = False  # through a fork
        self.signatures, self.ids = Known(), Ids()
        # Not the same: calls wait for their pieces.
        self.calls = ThreadPoolExecutor(concurrency, thread_name_prefix="clients-calls")
        self.pieces = ThreadPoolExecutor(concurrency, thread_name_prefix="clients-pieces")
        self._retry, self._budget, self._closed = retry, Budget(retry), threading.Event()
        self._servers = Servers(addresses, retry, self._start_probing)
        self._transports: dict[Server, Grpc | Http] = {
            server: (Grpc if server.address.protocol == "grpc" else Http)(server.address, transport)
            for server in self._servers.all
        }
        _processes.add(self)

    def run(self, model: str, deadline: Deadline, send: Ask, *, queue: str = "", repeatable: bool = True) -> Any:
        """Send until there is an answer: see `attempts.plan`."""
        steps = plan(model, self._servers, self._retry, self._budget, deadline, queue=queue, repeatable=repeatable)
        try:
            return self._follow(steps, send)
        except ClientError:
            raise
        except Exception as error:
            if self._closed.is_set():
                raise closed() from error
            raise

    def live(self) -> bool:
        return any(transport.alive(PROBE_S) for transport in self._transports.values())

    def close(self) -> None:
        self._closed.set()
        self._servers.call_all()
        for transport in self._transports.values():
            transport.close()
        self.calls.shutdown(cancel_futures=True)
        self.pieces.shutdown(cancel_futures=True)

    @contextmanager
    def closing_is_told(self) -> Iterator[None]:
        """As the end of a call that was closed in its midst, instead of what that did to executors."""
        try:
            yield
        except (RuntimeError, CancelledError) as error:
            if self._closed.is_set():
                raise closed() from error
            raise

    def _follow(self, steps: Plan, send: Ask) -> Any:
        """Do what the plan says; the answer."""
        answer = None
        try:
            step = next(steps)
            while True:
                failure = None
                if self._closed.is_set():
                    raise closed()
                if isinstance(step, Pause):
                    (step.called or self._closed).wait(step.seconds)
                else:
                    try:
                        answer = send(self._transports[step.server], step.timeout_s)
                    except Failure as error:
                        failure = error
                step = steps.send(failure)
        except StopIteration:
            return answer
        finally:
            steps.close()  # on Ctrl-C, too: what it has taken is given back

    def _start_probing(self, server: Server) -> None:
        threading.Thread(target=self._probe, args=(server,), name="clients-probe", daemon=True).start()

    def _probe(self, server: Server) -> None:
        pause_s = FIRST_PROBE_PAUSE_S
        while self._servers.to_be_probed(server) and not self._closed.is_set():
            try:
                alive = self._transports[server].alive(PROBE_S)
                if not alive:
                    self._transports[server].reconnect()
            except Exception:  # whatever it is, somebody has to go on probing
                alive = False
            (self._servers.recovered if alive else self._servers.failed)(server)
            self._closed.wait(FIRST_PROBE_PAUSE_S if alive else pause_s)
            pause_s = FIRST_PROBE_PAUSE_S if alive else min(2 * pause_s, LONGEST_PROBE_PAUSE_S)


_processes: WeakSet[Process] = WeakSet()
_making = threading.Lock()


def own(process: Process, make: Callable[[], Process]) -> Process:
    """It, unless it came through a fork; then a new one, the same for all threads that ask with `make`."""
    if not process.inherited:
        return process
    with _making:
        return make()


def closed() -> ClientError:
    return ClientError("the client is closed", hint="make a new one; it lasts as long as its `with`")


def _forked() -> None:
    global _making
    _making = threading.Lock()  # another thread may have held it, and is not here to give it back
    for process in list(_processes):
        process.inherited = True


os.register_at_fork(after_in_child=_forked)
