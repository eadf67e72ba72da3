"""So many requests through the gateway in a closed loop, every answer counted: its door, status, rows and id."""

import asyncio
import json
import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from benchmarks.errors import MeasurementError

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nx-request-id: *([0-9a-f]{32})", re.IGNORECASE)
_END = b"\r\n\r\n"
_MOST_BROKEN = 1000  # connections, and it goes on no longer
_PAUSE_S = 0.1  # before another connection, where one was refused or broke
FEATURES = 16  # of a row


@dataclass(frozen=True)
class Sent:
    """A request, as bytes.

    Attributes:
        right: The status that it should get.
    """

    door: str
    rows: int
    right: int
    message: bytes


@dataclass
class Load:
    """Requests that are sent in turn, and what came back.

    Attributes:
        total: How many are sent.
        answers, rows: {(door, status): so many}.
        ids: Sums of the first and of the last 15 hexadecimal digits of all request ids, which tell whether two sets of
            as many are the same.
        wrong: {(door, status): so many} of those that got another status than they should.
        broken: Requests whose connection ended before all of an answer was there.
    """

    requests: Sequence[Sent]
    total: int
    begun: int = 0
    answered: int = 0
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    rows: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: Counter[tuple[str, int]] = field(default_factory=Counter)
    ids: tuple[int, int] = (0, 0)
    broken: int = 0

    def next(self) -> Sent | None:
        """Return the next request; None: all are sent."""
        if self.begun == self.total:
            return None
        self.begun += 1
        return self.requests[self.begun % len(self.requests)]

    def count(self, sent: Sent, status: int, request_id: bytes) -> None:
        """Count an answer."""
        kind = sent.door, status
        self.answered += 1
        self.answers[kind] += 1
        self.rows[kind] += sent.rows
        self.ids = self.ids[0] + int(request_id[:15], 16), self.ids[1] + int(request_id[-15:], 16)
        if status != sent.right:
            self.wrong[kind] += 1


class _Connection(asyncio.Protocol):
    """One request after another."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._sent: Sent | None = None
        self._come = b""
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._next()

    def data_received(self, data: bytes) -> None:
        self._come = come = self._come + data if self._come else data
        head, found, body = come.partition(_END)
        if not found or self._sent is None:
            return
        length = _LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        known = _ID.search(head)
        self._load.count(self._sent, int(head[9:12]), known[1] if known else b"0" * 32)
        self._come = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.broken += self._sent is not None
        if not self.over.done():
            self.over.set_result(None)

    def _next(self) -> None:
        self._sent = self._load.next()
        if self._sent is None:
            self._transport.close()
        else:
            self._transport.write(self._sent.message)


async def ask(load: Load, port: int, connections: int) -> None:
    """Send all of them.

    Raises:
        MeasurementError: too many were not answered.
    """

    async def caller() -> None:
        loop = asyncio.get_running_loop()
        while load.begun < load.total:
            try:
                _, made = await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port)
            except OSError:
                load.broken += 1
            else:
                await made.over
            if load.broken > _MOST_BROKEN:
                raise MeasurementError(f"{load.broken:,} requests of {load.begun:,} got no answer")
            if load.begun < load.total:
                await asyncio.sleep(_PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(caller())


def mixture(model: str, authorization: str) -> list[Sent]:
    """Return what is sent in turn: of a hundred, 88 over the raw door with one to four rows, two that the model refuses
    there, and ten over the typed door."""
    raw = [_raw(model, authorization, rows, 1.0, 200) for rows in (1, 2, 3, 4)] * 22
    failing = [_raw(model, authorization, 1, -1.0, 500)] * 2
    typed = [_typed(model, authorization, 2)] * 10
    every = [*raw, *failing, *typed]
    return [every[37 * number % len(every)] for number in range(len(every))]  # 37 and 100 have no divisor in common


def _raw(model: str, authorization: str, rows: int, value: float, right: int) -> Sent:
    tensor = struct.pack("<f", value) * FEATURES * rows
    described = {
        "name": "IN", "shape": [rows, FEATURES], "datatype": "FP32", "parameters": {"binary_data_size": len(tensor)},
    }  # fmt: skip
    wanted = {"name": "OUT", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [described], "outputs": [wanted]}).encode()
    more = f"Inference-Header-Content-Length: {len(header)}\r\n"
    return Sent("raw", rows, right, _message(f"/v2/models/{model}/infer", authorization, more, header + tensor))


def _typed(model: str, authorization: str, rows: int) -> Sent:
    body = json.dumps({"inputs": {"IN": [[0.5] * FEATURES] * rows}}).encode()
    more = "Content-Type: application/json\r\n"
    return Sent("typed", rows, 200, _message(f"/v1/models/{model}/predict", authorization, more, body))


def _message(path: str, authorization: str, more: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
