"""The raw door and `/authorize`, served by uvicorn as the gateway serves them: in a thread, or as a process of its own.

python -m tests.gateway.served PORT TRITON…
"""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from typing import Any, ClassVar

import uvicorn

from contracts import layout
from gateway.authorize.app import Authorize
from gateway.brain.decide import Brain, Rules
from gateway.brain.endpoints import Endpoints
from gateway.caller import Caller
from gateway.errors import Refusal
from gateway.raw.app import RawDoor
from gateway.raw.body import Limits
from gateway.running.connections import Guard, guarded
from gateway.running.draining import Server
from gateway.seen import logs
from gateway.seen.metrics import Metrics
from gateway.seen.traces import Traces
from gateway.seen.watching import Seen
from gateway.triton.address import Address
from gateway.triton.upstream import Upstream
from tests.conftest import free_ports, wait_for

KEY = {"Authorization": "Bearer gk_all"}
NO_WORDS = {"Authorization": "Bearer gk_pixels"}  # may ask pixels alone
BULK = {"Authorization": "Bearer gk_bulk"}  # of the lowest class
FEW = {"Authorization": "Bearer gk_few"}  # has 3 requests


class Keyring:
    """Four keys; counts what they spend."""

    callers: ClassVar = {
        "Bearer gk_all": Caller("all", "all"),
        "Bearer gk_pixels": Caller("pixels", "pixels"),
        "Bearer gk_bulk": Caller("bulk", "bulk", priority_most=3),
        "Bearer gk_few": Caller("few", "few"),
    }

    def __init__(self) -> None:
        self.spent: dict[str, list[int]] = {}

    async def check(self, authorization: str | None) -> Caller:
        if (caller := self.callers.get(authorization or "")) is None:
            headers = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, "no-key", "A key is needed", "send it as Authorization: Bearer …", headers=headers)
        return caller

    def permit(self, caller: Caller, model: str, action: str) -> None:
        if caller.name == "pixels" and model != "pixels":
            raise Refusal(403, "no-scope", "The key does not allow this", "ask for one that does")

    async def spend(self, caller: Caller, model: str, rows: int) -> Mapping[str, str]:
        spent = self.spent.setdefault(caller.name, [])
        if caller.name == "few" and len(spent) == 3:
            raise Refusal(429, "quota-exceeded", "The quota is used up", "3 requests", retry_after_s=7.0)
        spent.append(rows)
        if caller.name != "few":
            return {}
        standing = {
            "limit": "3",
            "remaining": str(3 - len(spent)),
            "reset": "60",
            "policy": '"requests-short";q=3;w=60',
        }
        return {f"ratelimit-{name}": value for name, value in standing.items()}


@dataclass
class Kept:
    """A spool that keeps records in memory."""

    lost = 0
    records: list[dict[str, Any]] = field(default_factory=list)

    def put(self, record: dict[str, Any]) -> None:
        self.records.append(record)


class App:
    """Both doors on one port."""

    def __init__(self, brain: Brain, limits: Limits) -> None:
        self._raw, self._authorize = RawDoor(brain, limits), Authorize(brain)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        door = self._authorize if scope["raw_path"].startswith(b"/authorize") else self._raw
        await door(scope, receive, send)


@dataclass
class Gateway:
    """One that runs in a thread of this process."""

    port: int
    brain: Brain
    records: list[dict[str, Any]]
    keyring: Keyring
    guard: Guard
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def settled(self) -> int:
        """How many records there are once nothing is under way any more: an answer comes before its record."""

        async def count() -> int:
            while any(admission.under_way for admission, _ in self.brain._gates.values()):
                await asyncio.sleep(0.001)
            return len(self.records)

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(40)  # no request has longer

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=30)

    def raw(self, sent: bytes, *, timeout_s: float = 10) -> bytes:
        """Everything that comes back for these bytes, until the connection is closed or nothing comes any more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as connection:
            connection.sendall(sent)
            return read_all(connection)


@contextmanager
def faults() -> Iterator[list[str]]:
    """What uvicorn says of faults of ours, while a gateway runs in this process."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(handler.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except (TimeoutError, ConnectionResetError):
        pass
    return found


@contextmanager
def gateway(
    *tritons: Address,
    rules: Rules | None = None,
    limits: Limits | None = None,
    guard: Guard | None = None,
    traces: Traces | None = None,
    access_log: bool = False,
    idle_s: int = 5,
) -> Iterator[Gateway]:
    """A gateway in front of these."""
    guard, keyring, kept = guard or Guard(), Keyring(), Kept()
    made: dict[str, Any] = {}
    ready = threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))

        async def main() -> None:
            endpoints = Endpoints([Upstream(address) for address in tritons])
            seen = Seen(Metrics(), traces, access_log=access_log)
            brain = Brain(access=keyring, endpoints=endpoints, spool=kept, metrics=seen, rules=rules)
            config = uvicorn.Config(
                *(App(brain, limits or Limits()),),
                http=guarded(guard), lifespan="off", log_level="warning", timeout_keep_alive=idle_s,
            )  # fmt: skip
            server = uvicorn.Server(config)
            made.update(brain=brain, server=server, loop=asyncio.get_running_loop())
            ready.set()
            await server.serve(sockets=[listener])
            await endpoints.close()

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        ready.wait(10)
        port = listener.getsockname()[1]
        wait_for(lambda: made["server"].started, 10)
        try:
            yield Gateway(port, made["brain"], kept.records, keyring, guard, made["loop"])
        finally:
            made["server"].should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def process(*tritons: Address, notice_s: float = 1.0) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """The same in a process of its own; its port. What it prints on stderr is its log."""
    [port, *_] = free_ports()
    command = [sys.executable, "-m", "tests.gateway.served", str(port), str(notice_s), *map(str, tritons)]
    running = subprocess.Popen(command, cwd=layout.ROOT, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: running.poll() is not None or _listens(port), 20)
        assert running.poll() is None, running.communicate()
        yield port, running
    finally:
        running.kill()
        running.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Serve until a signal."""
    port, notice_s, *tritons = sys.argv[1:]
    logs.configure()
    guard = Guard()

    async def serve() -> None:
        endpoints = Endpoints([Upstream(Address.of(each)) for each in tritons])
        brain = Brain(access=Keyring(), endpoints=endpoints, spool=Kept(), metrics=Seen())
        config = uvicorn.Config(
            *(App(brain, Limits()), "127.0.0.1", int(port)),
            http=guarded(guard), lifespan="off", log_config=None, loop="none",
        )  # fmt: skip

        def drain() -> None:
            brain.readiness = replace(brain.readiness, draining=True)

        await Server(config, guard, drain, notice_s=float(notice_s), drain_s=20).serve()
        await endpoints.close()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
