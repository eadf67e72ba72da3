"""What a connection may not do: be slow, be long, smuggle; and what becomes of those that are open at the end."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from gateway.raw.body import Limits
from gateway.running.connections import Guard
from tests.conftest import wait_for
from tests.deploy.echoes import LENGTH, PIXELS, Echo, strings
from tests.gateway.served import KEY, Gateway, gateway, process, read_all
from tests.gateway.tritons import Running

_GUARD = Guard(most_connections=20, header_bytes=4096, header_s=0.5, body_s=0.5, linger_s=0.3)
_HEADER = PIXELS.header()
_HEAD = f"POST {PIXELS.path} HTTP/1.1\r\nHost: x\r\n{LENGTH}: {len(_HEADER)}\r\n"
_AUTHORIZED = f"{_HEAD}Authorization: Bearer gk_all\r\n"
_BODY = _HEADER + PIXELS.content
_WHOLE = f"{_AUTHORIZED}Content-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY
_CHUNKS = f"{len(_BODY):x}\r\n".encode() + _BODY + b"\r\n0\r\n"


@pytest.fixture(scope="module")
def door(triton: Running) -> Iterator[Gateway]:
    with gateway(triton.address, guard=_GUARD, limits=Limits(pause_s=0.5)) as running:
        yield running


def slowly(door: Gateway, sent: bytes, pause_s: float = 0.1, most_s: float = 3.0) -> tuple[bytes, float]:
    """Send byte after byte; what came back, and how long the connection stood."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        try:
            for byte in sent:
                connection.sendall(bytes((byte,)))
                time.sleep(pause_s)
                if time.monotonic() - began > most_s:
                    break
        except OSError:
            pass
        return read_all(connection), time.monotonic() - began


def read_answer(connection: socket.socket) -> bytes:
    """An echo's answer, whole, on a connection that stays open."""
    found = b""
    while not found.endswith(PIXELS.content):
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    return found


def test_headers_byte_by_byte_are_cut_off(door: Gateway) -> None:
    said, took_s = slowly(door, _WHOLE)
    assert said == b"" and took_s < 1.5


def test_a_connection_that_says_nothing_is_closed(door: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        assert connection.recv(1) == b""


def test_a_second_request_may_be_no_slower(door: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        connection.sendall(_WHOLE)
        assert read_answer(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(b"POST /v2/models/")
        began = time.monotonic()
        read_all(connection)
        assert 0.3 < time.monotonic() - began < 1.5


def test_a_body_that_stops_is_told_and_takes_no_place(door: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        connection.sendall(_WHOLE[:-3])
        time.sleep(0.2)
        assert door.brain.gate("pixels", "stable")[0].under_way == 0
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def test_who_does_not_read_its_answer_is_not_waited_for(door: Gateway) -> None:
    echo = Echo("words", (1, 1), strings(bytes(20_000_000)), "BYTES")
    header = echo.header()
    head = f"POST {echo.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer gk_all\r\n{LENGTH}: {len(header)}\r\n"
    head += f"Request-Timeout-Ms: 2000\r\nContent-Length: {len(header) + len(echo.content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(head.encode() + header + echo.content)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        gate, _ = door.brain.gate("words", "stable")
        assert gate.under_way == 1
        wait_for(lambda: gate.under_way == 0, 5)
        time.sleep(0.1)
        mine = [c for c in psutil.Process().net_connections() if c.laddr and c.laddr.port == door.port and c.raddr]
        assert not [
            c for c in mine if c.status == psutil.CONN_ESTABLISHED and c.raddr.port == connection.getsockname()[1]
        ]


def test_a_body_after_a_refusal_is_not_waited_for(door: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        connection.sendall(f"{_HEAD}Content-Length: 1000000\r\n\r\n".encode())
        began = time.monotonic()
        said = b""
        try:
            for _ in range(40):
                connection.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            pass
        said = read_all(connection)
        assert time.monotonic() - began < 1.5 and said.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "sent",
    [
        _AUTHORIZED.encode() + b"X-Long: " + b"a" * 5000 + b"\r\n\r\n",
        _AUTHORIZED.encode() + b"X: y\r\n" * 2000 + b"\r\n",
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 400_000,
    ],
    ids=["one header", "many headers", "a path", "an endless one"],
)
def test_headers_have_an_end(door: Gateway, sent: bytes) -> None:
    assert door.raw(sent).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "sent",
    [
        f"{_AUTHORIZED}Content-Length: {len(_BODY)}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + _CHUNKS + b"\r\n",
        f"{_AUTHORIZED}Content-Length: {len(_BODY)}\r\nContent-Length: 2\r\n\r\n".encode() + _BODY,
        f"{_AUTHORIZED}Content-Length: -5\r\n\r\n".encode() + _BODY,
        f"{_AUTHORIZED}Content-Length: +{len(_BODY)}\r\n\r\n".encode() + _BODY,
        f"{_AUTHORIZED}Content-Length: {2**70}\r\n\r\n".encode() + _BODY,
        f"{_AUTHORIZED}Content-Length: 0x10\r\n\r\n".encode() + _BODY,
        f"{_AUTHORIZED}Transfer-Encoding: gzip, chunked, x\r\n\r\n".encode() + _CHUNKS,
        f"{_AUTHORIZED}Transfer-Encoding: chunked\r\n\r\n".encode() + b"-5\r\n" + _BODY,
        f"{_AUTHORIZED}Transfer-Encoding: chunked\r\n\r\n".encode() + b"ffffffffffffffffff\r\n" + _BODY,
        f"{_AUTHORIZED}Content-Length : {len(_BODY)}\r\n\r\n".encode() + _BODY,
        f"{_AUTHORIZED}\tContent-Length: 5\r\n\r\n".encode() + _BODY,
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
    ],
)
def test_what_two_parsers_could_read_as_two_things_is_refused(door: Gateway, sent: bytes) -> None:
    before = door.settled()
    said = door.raw(sent, timeout_s=3)
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")), said
    assert door.settled() == before


def test_trailers_are_no_headers(door: Gateway) -> None:
    head = f"{_HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert door.raw(head + _CHUNKS + b"Authorization: Bearer gk_all\r\n\r\n").startswith(b"HTTP/1.1 401")
    head = f"{_AUTHORIZED}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert door.raw(head + _CHUNKS + f"{LENGTH}: 3\r\n\r\n".encode()).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_get_their_answers_in_order(door: Gateway) -> None:
    asked = [_WHOLE, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", _WHOLE.replace(b"gk_all", b"gk_xxx")]
    said = door.raw(b"".join(asked), timeout_s=1)
    statuses = [line.split()[1] for line in said.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert statuses == [b"200", b"200", b"401"]


def test_answers_on_a_kept_connection_do_not_wait_for_acknowledgements(door: Gateway) -> None:
    """The port's socket is one that names no protocol, as workers share it: asyncio leaves TCP_NODELAY out then."""
    refused = b"GET /v2/models/none HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer gk_all\r\n\r\n"  # told in two pieces
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        took_s = []
        for _ in range(20):
            began, said = time.monotonic(), b""
            connection.sendall(refused)
            while not said.endswith(b"}"):
                said += connection.recv(65536)
            took_s.append(time.monotonic() - began)
    # A busy machine slows some of them; waiting for acknowledgements, all but the first few, to 0.04 and more.
    assert min(took_s[10:]) < 0.03, took_s


def test_too_many_connections_are_told_to_come_back(door: Gateway) -> None:
    held = []
    try:
        for _ in range(30):
            held.append(socket.create_connection(("127.0.0.1", door.port), 5))
        assert read_all(held[-1]).startswith(b"HTTP/1.1 503")
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.1)
    assert door.raw(_WHOLE, timeout_s=1).startswith(b"HTTP/1.1 200")


def test_sigterm_ends_what_was_begun_and_loses_nothing(triton: Running) -> None:
    """Answers under way come; until the port closes every request is answered, and told that its connection ends."""
    body = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
    slow = f"POST /v2/models/sleeper/infer HTTP/1.1\r\nHost: x\r\n{LENGTH}: {len(body)}\r\n"
    slow += f"Authorization: {KEY['Authorization']}\r\n"
    slow_request = f"{slow}Content-Length: {len(body) + 4}\r\n\r\n".encode() + body + np.float32(2.0).tobytes()
    said: list[bytes] = []
    with process(triton.address, notice_s=1.0) as (port, running):

        def ask() -> None:
            with socket.create_connection(("127.0.0.1", port), 10) as connection:
                connection.sendall(slow_request)
                said.append(read_all(connection))

        kept = socket.create_connection(("127.0.0.1", port), 5)
        kept.sendall(_WHOLE)
        assert b"close" not in read_answer(kept)
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.3)
        running.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        kept.sendall(_WHOLE)  # on a connection that was open: answered, and its last
        last = read_all(kept)
        assert last.startswith(b"HTTP/1.1 200") and b"connection: close" in last.lower()
        with socket.create_connection(("127.0.0.1", port), 5) as late:  # within the notice
            late.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = read_all(late)
            assert (
                answer.startswith(b"HTTP/1.1 503") and json.loads(answer.split(b"\r\n\r\n")[1])["gateway"] == "draining"
            )
        asking.join(10)
        _, log = running.communicate(timeout=15)
    assert said[0].startswith(b"HTTP/1.1 200")
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["status"] for line in lines if line["event"] == "answered"] == [200] * 3, log
    assert KEY["Authorization"].split()[1] not in log
