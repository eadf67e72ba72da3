"""Requests over plain sockets, so that a client's own cost is small and the same for every side."""

import asyncio
import json
import re
import socket
import time
from dataclasses import dataclass
from statistics import quantiles

from benchmarks.errors import MeasurementError
from benchmarks.gateway.sides import MODEL, Side

_LENGTH = re.compile(rb"\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)


@dataclass(frozen=True)
class Figures:
    """Of one side in one round.

    Attributes:
        cpu_us: Of the side's processes, a request.
        memory_mib: The most that they had at a look after each request; of large requests alone.
    """

    p50_us: float
    p90_us: float
    cpu_us: float
    memory_mib: float = 0.0


def request(side: Side, size: int) -> bytes:
    """Return a request with `size` bytes of FP32 on the wire, as this side takes it."""
    count = size // 4
    if side.name == "typed":
        body = json.dumps({"inputs": {"IN": [0.5] * count}}).encode()
        path, more = f"/v1/models/{MODEL}/predict", "Content-Type: application/json\r\n"
    else:
        described = {"name": "IN", "shape": [count], "datatype": "FP32", "parameters": {"binary_data_size": size}}
        wanted = {"name": "OUT", "parameters": {"binary_data": True}}
        header = json.dumps({"inputs": [described], "outputs": [wanted]}).encode()
        body, path = header + bytes(size), f"/v2/models/{MODEL}/infer"
        more = f"Inference-Header-Content-Length: {len(header)}\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}{side.headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def closed(side: Side, size: int, seconds: float, *, look_at_memory: bool = False) -> Figures:
    """Send requests one after another on one connection for so long.

    Raises:
        MeasurementError: one was not answered with 200.
    """
    sent, taken, most = request(side, size), list[float](), 0
    with socket.create_connection(("127.0.0.1", side.port), 30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(3):
            _ask(connection, sent)
        before, end = side.cpu_s(), time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            _ask(connection, sent)
            taken.append((time.perf_counter() - began) * 1e6)
            if look_at_memory:
                most = max(most, side.memory_bytes())
        cpu_us = (side.cpu_s() - before) / len(taken) * 1e6
    cuts = quantiles(taken, n=10) if len(taken) > 1 else taken * 9
    return Figures(cuts[4], cuts[8], cpu_us, most / 2**20)


async def opened(side: Side, size: int, per_s: float, seconds: float, connections: int = 16) -> tuple[float, float]:
    """Send requests at a rate, whether those before are answered or not; p50 and p99 in µs, from when each was due.

    Raises:
        MeasurementError: one was not answered with 200.
    """
    sent, taken = request(side, size), list[float]()
    due: asyncio.Queue[float | None] = asyncio.Queue()

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        while (at := await due.get()) is not None:
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            _check(head)
            found = _LENGTH.search(head)
            if found:
                await reader.readexactly(int(found[1]))
            taken.append((time.perf_counter() - at) * 1e6)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(caller())
        start = time.perf_counter() + 0.1
        for number in range(int(per_s * seconds)):
            at = start + number / per_s
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            due.put_nowait(at)
        for _ in range(connections):
            due.put_nowait(None)
    cuts = quantiles(taken, n=100)
    return cuts[49], cuts[98]


def _ask(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    said = b""
    while b"\r\n\r\n" not in said:
        if not (piece := connection.recv(65536)):
            raise MeasurementError("the connection was closed", note=f"after {said[:200].decode(errors='replace')!r}")
        said += piece
    head, _, body = said.partition(b"\r\n\r\n")
    _check(head, body)
    found = _LENGTH.search(head)
    left = int(found[1]) - len(body) if found else 0
    while left > 0:
        left -= len(connection.recv(min(left, 1 << 20)))


def _check(head: bytes, body: bytes = b"") -> None:
    if not head.startswith(b"HTTP/1.1 200") or _CHUNKED.search(head):
        raise MeasurementError("a request was not answered", note=(head + b"\n" + body)[:500].decode(errors="replace"))
