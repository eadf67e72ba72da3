"""A load generator for Triton's HTTP protocol that costs little, because it shares the machine with the server.

Requests are whole byte strings, made before. An answer is right if it is, byte for byte, what the idle server gave
to the same request; or, as a batch moves the last digits of numbers, if it is that but for those, and within the
tolerance of the reference's answer where that is known.

In a closed loop each connection sends its next request when it has an answer. In an open loop requests leave on a
schedule, whatever the server does, and latency counts from the scheduled time: a server that stalls cannot hide it (no
coordinated omission).
"""

import asyncio
import gc
import math
import re
import socket
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks import wire, workload
from benchmarks.errors import MeasurementError
from contracts.golden import GoldenRequest
from deploy.triton import payload
from deploy.triton.payload import Tensors

# Triton's HTTP server loses replies, for good, if more than 277 wait for one of its threads; and the connections that
# it takes while it is idle all go to the same thread. See docs/how-to/overload.md.
MAX_CONNECTIONS = 256
_TICK_S = 0.001  # libuv's timers are no finer: what falls due within a tick leaves together
_PATIENCE_S = 10.0  # for an answer
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEADER_LENGTH = re.compile(rb"\r\ninference-header-content-length: *(\d+)", re.IGNORECASE)


class Outcome(IntEnum):
    """How a request ended: with its answer, shed by the server, or by a failure."""

    OK = 0
    QUEUE_FULL = 1
    QUEUE_TIMEOUT = 2
    WRONG = 3  # 200, with another answer
    FAILED = 4  # another status, or the connection broke
    UNANSWERED = 5


SHED = (Outcome.QUEUE_FULL, Outcome.QUEUE_TIMEOUT)


@dataclass(frozen=True)
class Request:
    data: bytes  # the whole HTTP request
    of: GoldenRequest
    answer: bytes = b""  # the whole HTTP response of the idle server
    priority: int = 0  # 0: the server's default


@dataclass(frozen=True)
class Log:
    """What became of the requests, in the order they were sent; times in seconds since the load began."""

    scheduled_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    done_s: NDArray[np.float64]  # inf: never
    outcome: NDArray[np.uint8]
    which: NDArray[np.intp]  # of the requests
    connections: int
    cpu_s: float  # of the generator

    @property
    def latency_s(self) -> NDArray[np.float64]:
        return self.done_s - self.scheduled_s

    def per_s(self, seconds: float) -> float:
        """Return how many right answers came a second within the load's `seconds`: those behind it had more time."""
        return int(((self.outcome == Outcome.OK) & (self.done_s <= seconds)).sum()) / seconds


def build(request: GoldenRequest, priority: int = 0) -> Request:
    """Put a request into HTTP; what the server answers to it is not known yet."""
    body, header_length = wire.body(request, priority)
    head = (
        f"POST /v2/models/{request.model}/infer HTTP/1.1\r\nHost: triton\r\n"
        f"{wire.HEADER_LENGTH}: {header_length}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Request(head.encode() + body, request, priority=priority)


def with_answers(address: str, requests: Sequence[Request]) -> list[Request]:
    """Send the requests one at a time; return them with what the server answers.

    Raises:
        MeasurementError: it does not answer, or not with success, or not as the reference does.
    """
    known = []
    for request, response in zip(requests, responses(address, requests), strict=True):
        if not response.startswith(b"HTTP/1.1 200"):
            raise MeasurementError(f"{address} does not serve it: {response.decode(errors='replace')}")
        if told := request.of.fault(_tensors(response)):
            raise workload.wrong_when_idle(request.of.model, told)
        known.append(replace(request, answer=response))
    return known


def responses(address: str, requests: Sequence[Request]) -> list[bytes]:
    """Send the requests one at a time; return what the server says, head and body.

    Raises:
        MeasurementError: it says nothing.
    """
    try:
        with socket.create_connection(host_and_port(address), timeout=_PATIENCE_S) as connection:
            return [exchange(connection, request) for request in requests]
    except OSError as error:
        raise MeasurementError(f"no answer from {address}: {error}", hint="python -m deploy status") from error


def header_length(head: bytes) -> int | None:
    """Return how long the JSON in a response's body is, as its head says; None where it does not: all of it."""
    length = _HEADER_LENGTH.search(head)
    return int(length[1]) if length else None


def closed_loop(address: str, requests: Sequence[Request], concurrency: int, duration_s: float) -> Log:
    """Keep `concurrency` requests under way for that long, the requests in turn."""
    run = _Run(address, requests)

    def send_next(connection: _Connection) -> None:
        if (now := run.now()) < duration_s:
            run.send(connection, now, len(run.which) % len(requests))

    async def drive() -> None:
        connections = [await run.connect() for _ in range(concurrency)]
        run.begin(send_next)
        for connection in connections:
            send_next(connection)
        await asyncio.sleep(duration_s)

    return run.log(drive)


def open_loop(
    address: str, requests: Sequence[Request], schedule_s: NDArray[np.float64], which: NDArray[np.intp]
) -> Log:
    """Send request `which[i]` at `schedule_s[i]`, ascending, on as many connections as it takes, to MAX_CONNECTIONS.

    Raises:
        MeasurementError: the server takes no connection.
    """
    run = _Run(address, requests)
    times, indices = schedule_s.tolist(), which.tolist()
    idle: list[_Connection] = []

    def overdue() -> int:
        return bisect_right(times, run.now(), len(run.which)) - len(run.which)

    def send_due(connection: _Connection) -> None:
        if connection.closed:
            return
        if overdue():
            run.send(connection, times[len(run.which)], indices[len(run.which)])
        else:
            idle.append(connection)

    async def open_another() -> None:
        send_due(await run.connect())

    async def drive() -> None:
        run.begin(send_due)
        opening: set[asyncio.Task[None]] = set()
        while len(run.which) < len(times):
            for connection in [idle.pop() for _ in range(min(overdue(), len(idle)))]:
                send_due(connection)
            lacking = min(overdue() - len(opening), MAX_CONNECTIONS - run.connections)
            opening |= {asyncio.create_task(open_another()) for _ in range(lacking)}
            position = len(run.which)
            pause_s = times[position] - run.now() if position < len(times) else 0.0
            await asyncio.sleep(max(pause_s, _TICK_S))
            done = {task for task in opening if task.done()}
            opening -= done
            for task in done:
                task.result()  # raises what it raised

    return run.log(drive)


class _Run:
    """The state of one load."""

    def __init__(self, address: str, requests: Sequence[Request]) -> None:
        self.address, self.requests = host_and_port(address), requests
        self.scheduled: list[float] = []
        self.sent: list[float] = []
        self.done: list[float] = []
        self.outcome: list[int] = []
        self.which: list[int] = []
        self.connections = self.under_way = 0
        self.began = 0.0
        self.on_idle: Callable[[_Connection], None] = lambda connection: None
        self.right: dict[int, set[int]] = {}  # by a request's place: hashes of other responses that are right

    async def connect(self) -> "_Connection":
        self.connections += 1
        _, connection = await asyncio.get_running_loop().create_connection(lambda: _Connection(self), *self.address)
        return connection

    def begin(self, on_idle: Callable[["_Connection"], None]) -> None:
        self.on_idle, self.began = on_idle, time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self.began

    def send(self, connection: "_Connection", scheduled: float, which: int) -> None:
        connection.index, connection.which, connection.request = len(self.which), which, self.requests[which]
        self.which.append(which)
        self.scheduled.append(scheduled)
        self.sent.append(self.now())
        self.done.append(math.inf)
        self.outcome.append(Outcome.UNANSWERED)
        self.under_way += 1
        connection.transport.write(connection.request.data)

    def finish(self, connection: "_Connection", outcome: Outcome) -> None:
        self.done[connection.index] = self.now()
        self.outcome[connection.index] = outcome
        connection.request = None
        self.under_way -= 1

    def judged(self, which: int, response: bytes) -> Outcome:
        """Tell what a response is to the request in that place, where it is not what the idle server said."""
        if not response.startswith(b"HTTP/1.1 200"):
            return _refusal(response)
        right = self.right.setdefault(which, set())
        if (seen := hash(response)) not in right:  # of 64 bits, and salted
            if not is_right(self.requests[which], response):
                return Outcome.WRONG
            right.add(seen)
        return Outcome.OK

    def log(self, drive: Callable[[], Awaitable[None]]) -> Log:
        """Drive the load, wait for the last answers, and write down what became of it."""

        async def whole() -> None:
            await drive()
            deadline = time.perf_counter() + _PATIENCE_S
            while self.under_way and time.perf_counter() < deadline:
                await asyncio.sleep(_TICK_S)

        gc.disable()  # nothing here makes cycles, and a collection would be a stall
        cpu = time.process_time()
        try:
            uvloop.run(whole())
        except OSError as error:
            raise MeasurementError(f"no connection to the server: {error}", hint="python -m deploy status") from error
        finally:
            gc.enable()
        return Log(
            scheduled_s=np.array(self.scheduled),
            sent_s=np.array(self.sent),
            done_s=np.array(self.done),
            outcome=np.array(self.outcome, dtype=np.uint8),
            which=np.array(self.which, dtype=np.intp),
            connections=self.connections,
            cpu_s=time.process_time() - cpu,
        )


class _Connection(asyncio.Protocol):
    """An HTTP connection with at most one request under way."""

    def __init__(self, run: _Run) -> None:
        self.run, self.received, self.closed = run, b"", False
        self.request: Request | None = None  # under way
        self.which = 0  # its place among the requests
        self.index = 0  # and in the log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.request is None:
            return
        data = self.received + data
        if data == self.request.answer:
            outcome = Outcome.OK
        elif _whole(data):
            outcome = self.run.judged(self.which, data)
        else:
            self.received = data
            return
        self.received = b""
        self.run.finish(self, outcome)
        self.run.on_idle(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.run.connections -= 1
        if self.request is not None:
            self.run.finish(self, Outcome.FAILED)


def _refusal(response: bytes) -> Outcome:
    if response.startswith(b"HTTP/1.1 503"):
        if b"Exceeds maximum queue size" in response:
            return Outcome.QUEUE_FULL
        if b"Request timeout expired" in response:
            return Outcome.QUEUE_TIMEOUT
    return Outcome.FAILED


def is_right(request: Request, response: bytes) -> bool:
    """Tell whether a response is what the idle server said, but for the last digits."""
    if not request.answer:  # nobody has asked the idle server
        return False
    try:
        answer, idle = _tensors(response), _tensors(request.answer)
    except ValueError:
        return False
    return payload.fault(request.of, answer, idle) is None


def _tensors(response: bytes) -> Tensors:
    head, _, body = response.partition(b"\r\n\r\n")
    return wire.answer(body, header_length(head))


def exchange(connection: socket.socket, request: Request) -> bytes:
    """Send a request; return the response, head and body.

    Raises:
        OSError: the connection broke, or is closed.
    """
    connection.sendall(request.data)
    response = b""
    while not _whole(response):
        if not (more := connection.recv(65536)):
            raise ConnectionError("the server closed the connection")
        response += more
    return response


def _whole(response: bytes) -> bool:
    head, end, body = response.partition(b"\r\n\r\n")
    length = _CONTENT_LENGTH.search(head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def host_and_port(address: str) -> tuple[str, int]:
    """Return the parts of host:port."""
    parts = urlsplit(f"//{address}")
    return parts.hostname or "127.0.0.1", parts.port or 80
