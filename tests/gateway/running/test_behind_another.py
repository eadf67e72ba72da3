"""Requests behind another one on the same connection, and what is no request: each gets its own answer, or none."""

import re
import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest

from gateway.running.connections import Guard
from tests.conftest import wait_for
from tests.deploy.echoes import LENGTH, PIXELS
from tests.gateway.served import Gateway, faults, gateway
from tests.gateway.tritons import Running

_KEY = "Authorization: Bearer gk_all\r\n"
_HEADER = PIXELS.header()
_HEAD = f"POST {PIXELS.path} HTTP/1.1\r\nHost: x\r\n{_KEY}{LENGTH}: {len(_HEADER)}\r\n"
_BODY = _HEADER + PIXELS.content
_WHOLE = f"{_HEAD}Content-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY
_LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def door(triton: Running) -> Iterator[Gateway]:
    with gateway(triton.address, guard=Guard(header_s=0.4, body_s=0.4, linger_s=0.3)) as running:
        yield running


def sleepy(seconds: float) -> bytes:
    """A request that takes so long."""
    header = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
    head = f"POST /v2/models/sleeper/infer HTTP/1.1\r\nHost: x\r\n{_KEY}{LENGTH}: {len(header)}\r\n"
    return f"{head}Content-Length: {len(header) + 4}\r\n\r\n".encode() + header + np.float32(seconds).tobytes()


def statuses(said: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def answers(connection: socket.socket, count: int) -> list[int]:
    """So many answers, and any that come within a moment."""
    said = b""
    connection.settimeout(5)
    try:
        while piece := connection.recv(65536):
            said += piece
            if len(statuses(said)) >= count:
                connection.settimeout(0.15)
    except (TimeoutError, ConnectionResetError):
        pass
    return statuses(said)


def test_a_caller_that_goes_with_two_requests_under_way_is_no_fault(door: Gateway) -> None:
    gate, _ = door.brain.gate("sleeper", "stable")
    with faults() as found:
        with socket.create_connection(("127.0.0.1", door.port)) as connection:
            connection.sendall(sleepy(1.0) + sleepy(1.0))
            wait_for(lambda: gate.under_way == 1, 5)
        wait_for(lambda: gate.under_way == 0, 0.8)  # at once, and the second is never begun
        assert door.settled() and door.records[-1]["status"] == 499
        assert not found


@pytest.mark.parametrize(
    ("behind", "status"),
    [
        (b"no HTTP\r\n\r\n", 400),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
        (f"{_HEAD}Transfer-Encoding: chunked\r\n\r\n-5\r\n".encode(), 400),
        (_LIVE + b"no HTTP\r\n\r\n", 400),
    ],
    ids=["no request", "too long", "a bad chunk", "a request, and none"],
)
def test_what_is_no_request_is_told_after_the_answers_before_it(door: Gateway, behind: bytes, status: int) -> None:
    asked = sleepy(0.3) + behind
    said = door.raw(asked, timeout_s=3)
    assert statuses(said) == [200, *([200] if behind.startswith(_LIVE) else []), status]


def test_a_line_end_too_many_behind_a_request_does_not_end_it(door: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        connection.sendall(sleepy(1.0))
        time.sleep(0.1)
        connection.sendall(b"\r\n")  # as some clients send it; the next request has 0.4 s from here
        assert answers(connection, 1) == [200]


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_no_other_protocol_is_gone_over_to(door: Gateway, protocol: str) -> None:
    more = f"Connection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Key: {'x' * 22}==\r\n\r\n".encode()
    asking = _LIVE.removesuffix(b"\r\n") + more
    with socket.create_connection(("127.0.0.1", door.port), 1) as connection:
        for _ in range(3):  # a connection with such requests stays good: Java's client sends them first
            connection.sendall(asking)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(_WHOLE.replace(b"\r\n\r\n", b"\r\n" + more, 1))
        assert connection.recv(65536).endswith(PIXELS.content)
    # What stands behind one is a request, and what stands in one is not: in one piece, and in many.
    many = asking + _WHOLE.replace(b"\r\n\r\n", b"\r\n" + more, 1) * 2 + asking + _WHOLE
    inner = asking.removesuffix(b"\r\n") + f"Content-Length: {len(_WHOLE)}\r\n\r\n".encode() + _WHOLE
    before = door.settled()
    for size in (len(many), 3):
        with socket.create_connection(("127.0.0.1", door.port), 1) as connection:
            for start in range(0, len(many), size):
                connection.sendall(many[start : start + size])
            assert answers(connection, 5) == [200] * 5
        with socket.create_connection(("127.0.0.1", door.port), 1) as connection:
            for start in range(0, len(inner), size):
                connection.sendall(inner[start : start + size])
            assert answers(connection, 1) == [200]
    assert door.settled() == before + 6


def test_what_goes_between_chunks_is_no_body(door: Gateway) -> None:
    """Extensions without end, a byte now and then, would hold a connection for ever."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        connection.sendall(f"{_HEAD}Transfer-Encoding: chunked\r\n\r\n1;".encode())
        try:
            while time.monotonic() - began < 3:
                connection.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            pass
        took_s = time.monotonic() - began
        assert took_s < 2, took_s


def _chunked(*pieces: bytes) -> bytes:
    return f"{_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(pieces)


def _piece(content: bytes, more: bytes = b"", end: bytes = b"\r\n") -> bytes:
    return b"%x%s\r\n%s%s" % (len(content), more, content, end)


@pytest.mark.parametrize(
    "sent",
    [
        _chunked(_piece(_BODY, b";a\nb"), b"0\r\n\r\n"),
        _chunked(_piece(_BODY, b";\x00"), b"0\r\n\r\n"),
        _chunked(_piece(_BODY, b';a="\r\n0\r\n\r\n"'), b"0\r\n\r\n"),
        _chunked(_piece(_BODY, end=b"XX"), b"0\r\n\r\n"),
        _chunked(_piece(_BODY, end=b"\n\n"), b"0\r\n\r\n"),
        _chunked(b"1" + b"0" * 16 + b"\r\n" + _BODY),
        _chunked(b"\r\n", _piece(_BODY), b"0\r\n\r\n"),
        _chunked(_piece(_BODY), b"0\n\n"),
        _WHOLE.replace(b"\r\n", b"\n", 4),
        _WHOLE.replace(b"Host: x\r\n", b"Host: x\r"),
        _WHOLE.replace(b"Host: x", b"Ho\x00st: x"),
        _WHOLE.replace(b"Host: x", b"Host: x\x00y"),
        _WHOLE.replace(b"Content-Length", b"Content-Length: 1\r\nContent-Length"),
        b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x, chunked, y\r\n\r\n0\r\n\r\n",
    ],
    ids=[
        *("a line end in an extension", "a zero in one", "a quoted line end", "no end of a chunk", "half an end"),
        *("2^64", "an empty line before a chunk", "a last chunk of half ends", "half line ends", "the other half"),
        *("a zero in a name", "a zero in a value", "two lengths", "CONNECT", "chunked in the middle"),
    ],
)  # fmt: skip
def test_what_a_proxy_may_read_in_another_way_ends_the_connection(door: Gateway, sent: bytes) -> None:
    """None of these gets an answer of a model, and what stands behind it none at all."""
    before = door.settled()
    said = door.raw(sent + _WHOLE, timeout_s=3)
    assert statuses(said) == [400], said
    assert door.settled() == before


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "HEAD"])
def test_a_body_where_none_is_expected_is_no_request(door: Gateway, method: str) -> None:
    before = door.settled()
    for length in (f"Content-Length: {len(_WHOLE)}\r\n\r\n".encode() + _WHOLE, b"Transfer-Encoding: chunked\r\n\r\n"):
        body = b"" if length.endswith(_WHOLE) else _piece(_WHOLE) + b"0\r\n\r\n"
        head = f"{method} /v2/health/live HTTP/1.1\r\nHost: x\r\n".encode()
        with socket.create_connection(("127.0.0.1", door.port)) as connection:
            connection.sendall(head + length + body + _LIVE)
            assert answers(connection, 2) == [200 if method == "GET" else 403, 200]
    assert door.settled() == before
