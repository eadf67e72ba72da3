"""HTTP as it should not be, from a server that sends what it is told: a request gets its own answer, or a failure."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from clients import (
    AccessDeniedError,
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelNotFoundError,
    OverloadedError,
    Retry,
    Transport,
)
from clients.core.failures import Failure, Kind
from clients.settings import Address
from clients.transports import http_pool
from clients.transports.http_pool import Pool
from tests.clients.http_server import OK, Handler, answer_of, answering, server
from tests.conftest import wait_for

LIMIT = 1 << 20


def ask(pool: Pool, seconds: float = 2, body: bytes = b"") -> tuple[int, bytes]:
    response = pool.send("POST", "/", time.monotonic() + seconds, body, {})
    return response.status, response.body


@contextmanager
def pool_of(handle: Handler) -> Iterator[tuple[Pool, list[socket.socket]]]:
    with server(handle) as (port, connections):
        pool = Pool(Address("http", "127.0.0.1", port), None, None, LIMIT)
        yield pool, connections
        pool.close()


@contextmanager
def redirecting(elsewhere: int) -> Iterator[tuple[int, list[socket.socket]]]:
    """A server that says it has moved there."""
    answer = answer_of(307, b"", b"Location: http://127.0.0.1:%d/" % elsewhere)
    with server(answering(answer, pause_s=0)) as found:
        yield found


def failure(pool: Pool, seconds: float = 2) -> Failure:
    with pytest.raises(Failure) as failed:
        ask(pool, seconds)
    return failed.value


def test_a_connection_is_kept() -> None:
    with pool_of(answering(OK)) as (pool, connections):
        assert [ask(pool) for _ in range(3)] == [(200, b"ok")] * 3
        assert len(connections) == 1


def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    def once(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(OK)

    with pool_of(once) as (pool, connections):
        for _ in range(3):
            assert ask(pool) == (200, b"ok")
            wait_for(lambda: not http_pool._is_silent(pool._idle[-1][1]))  # the end has arrived
        assert len(connections) == 3


def test_one_that_says_it_will_close_is_not_kept() -> None:
    with pool_of(answering(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))) as (pool, connections):
        assert [ask(pool) for _ in range(2)] == [(200, b"ok")] * 2
        assert len(connections) == 2


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    def until_the_end(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000)

    with pool_of(until_the_end) as (pool, _):
        assert ask(pool) == (200, b"x" * 100_000)


def test_chunks_are_put_together() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"
    with pool_of(answering(*chunked)) as (pool, _):
        assert [ask(pool) for _ in range(2)] == [(200, b"abcde")] * 2


def test_hints_before_the_answer_are_not_the_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    late = hints, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", b"def"
    at_once = hints + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", b"def"
    for pieces in (late, at_once):
        with pool_of(answering(*pieces)) as (pool, _):
            assert [ask(pool) for _ in range(2)] == [(200, b"abcdef")] * 2


@pytest.mark.parametrize("second", [OK, OK[:30]])
def test_two_answers_at_once_are_none(second: bytes) -> None:
    with pool_of(answering(OK + second)) as (pool, connections):
        assert failure(pool).kind is Kind.INVALID_RESPONSE
        assert failure(pool).kind is Kind.INVALID_RESPONSE
        assert len(connections) == 2


def test_an_answer_that_nobody_waits_for_is_nobodys() -> None:
    def late(connection: socket.socket) -> None:
        while (request := connection.recv(65536)) != b"":
            name = request.split(b" ")[1]
            time.sleep(1 if name == b"/slow" else 0)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + name)

    with pool_of(late) as (pool, _):
        with pytest.raises(Failure, match="no response in time"):
            pool.send("GET", "/slow", time.monotonic() + 0.1, b"", {})
        time.sleep(1)
        assert pool.send("GET", "/fast", time.monotonic() + 2, b"", {}).body == b"/fast"


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), Kind.INVALID_RESPONSE),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",), Kind.INVALID_RESPONSE),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc",), Kind.DEADLINE_EXCEEDED),
        ((b"HTTP/1.1 200 OK\r\n" + b"x-header: y\r\n" * 200_000 + b"\r\n",), Kind.INVALID_INPUT),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000,), Kind.INVALID_INPUT),
    ],
)
def test_what_is_no_answer_is_told_apart(pieces: tuple[bytes, ...], kind: Kind) -> None:
    with pool_of(answering(*pieces)) as (pool, _):
        assert failure(pool, 0.5 if kind is Kind.DEADLINE_EXCEEDED else 10).kind is kind


def test_an_answer_that_breaks_off_is_not_whole() -> None:
    def cut(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc")

    with pool_of(cut) as (pool, _):
        found = failure(pool)
        assert (found.kind, found.message) == (
            Kind.UNAVAILABLE,
            "it closed the connection before the end of its response",
        )


def test_a_stream_of_bytes_does_not_outlast_the_deadline() -> None:
    def endless(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.0005)

    with pool_of(endless) as (pool, _):
        began = time.monotonic()
        assert failure(pool, 0.3).kind is Kind.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 1.3


def test_a_server_that_reads_nothing_does_not_outlast_it_either() -> None:
    with pool_of(lambda connection: time.sleep(5)) as (pool, _):
        began = time.monotonic()
        with pytest.raises(Failure, match="no response in time"):
            ask(pool, 0.3, b"x" * 50_000_000)
        assert time.monotonic() - began < 1.3


def test_why_an_upload_was_cut_short_is_heard() -> None:
    def too_large(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.2)

    with pool_of(too_large) as (pool, _):
        assert ask(pool, 2, b"x" * 30_000_000)[0] == 413


def test_an_upload_is_not_gone_on_with_once_it_is_refused() -> None:
    """By a server that reads no more of it, and does not close the connection either."""

    def too_large(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n")
        closed.wait(20)

    closed = threading.Event()
    with pool_of(too_large) as (pool, _):
        assert ask(pool, 10, b"x" * 30_000_000)[0] == 413
        assert not pool._idle
        closed.set()


def test_an_upload_is_gone_on_with_if_the_server_says_so() -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        received = 1000
        while received < 20_000_000:
            received += len(connection.recv(1 << 20))
        connection.sendall(OK)

    with pool_of(handle) as (pool, _):
        assert ask(pool, 20, b"x" * 20_000_000) == (200, b"ok")


def test_idle_connections_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are never their turn, as the last that was used is the next."""
    together = threading.Barrier(4)

    def handle(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            if b"/together" in request:
                together.wait(10)
            connection.sendall(OK)

    with pool_of(handle) as (pool, connections), ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(pool.send, "GET", "/together", time.monotonic() + 10, b"", {}) for _ in range(4)]
        assert {call.result().status for call in calls} == {200}
        assert len(pool._idle) == len(connections) == 4
        monkeypatch.setattr(http_pool, "_IDLE_S", 0.2)
        time.sleep(0.3)
        assert ask(pool) == (200, b"ok")
        assert len(pool._idle) == 1 and len(connections) == 5


def test_a_pool_that_is_closed_ends_what_is_under_way() -> None:
    with pool_of(lambda connection: time.sleep(5)) as (pool, _):
        threading.Timer(0.2, pool.close).start()
        began = time.monotonic()
        assert failure(pool, 5).kind is Kind.UNAVAILABLE
        assert time.monotonic() - began < 2


def test_a_connection_that_is_made_while_the_pool_is_closed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*where: Any) -> socket.socket:
        time.sleep(0.3)
        return connected(*where)

    connected = http_pool._tcp
    monkeypatch.setattr(http_pool, "_tcp", slow)
    with pool_of(lambda connection: time.sleep(5)) as (pool, _):
        threading.Timer(0.1, pool.close).start()
        began = time.monotonic()
        assert failure(pool, 5).kind is Kind.UNAVAILABLE
        assert time.monotonic() - began < 2


def test_a_proxy_without_a_server_is_waited_for() -> None:
    busy = answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    with server(busy) as (port, _), Client(f"http://127.0.0.1:{port}") as client:
        assert not client.ready()
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="is not ready after"):
            client.wait_until_ready(timeout_s=0.5)
        assert 0.5 <= time.monotonic() - began < 1.5


def test_closing_while_a_name_is_resolved_is_no_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async def forever(*_: object, **__: object) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", forever)
        client = AsyncClient("http://somewhere.example")
        call = asyncio.create_task(client.server_metadata())
        await asyncio.sleep(0.2)
        await client.close()
        with pytest.raises(ClientError, match="the client is closed"):
            await call
        assert not call.cancelled()

    asyncio.run(run())


def test_an_address_that_the_system_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool_of(answering(OK)) as (pool, _):
        [known] = socket.getaddrinfo("127.0.0.1", pool._address.port, type=socket.SOCK_STREAM)
        unknown = (9999, *known[1:])  # as IPv6 is where it is off
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unknown, known])
        assert ask(pool) == (200, b"ok")


@pytest.mark.parametrize("of", ["threads", "coroutines"])
def test_nobody_is_redirected(of: str) -> None:
    """The headers, keys among them, are not for somebody else."""

    async def ask_from_a_coroutine(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.server_metadata()

    with server(answering(OK)) as (elsewhere, followed), redirecting(elsewhere) as (port, _):
        moved = f"HTTP status 307, moved to http://127.0.0.1:{elsewhere}/"
        with pytest.raises(InferenceError, match=f"{moved}\nHint: redirects are not followed"):
            if of == "coroutines":
                asyncio.run(ask_from_a_coroutine(f"http://127.0.0.1:{port}"))
            with Client(f"http://127.0.0.1:{port}") as client:
                client.server_metadata()
        assert not followed


@pytest.mark.parametrize("of", ["threads", "coroutines"])
def test_a_server_that_redirects_costs_no_call_and_is_not_asked_again(of: str) -> None:
    """Not even where there is no budget of retries; and whichever is asked first, which is chance."""
    retry = Retry(budget=0, burst=0)

    async def ask_from_coroutines(*urls: str) -> list[dict[str, Any]]:
        async with AsyncClient(*urls, retry=retry) as client:
            return [await client.server_metadata() for _ in range(20)]

    with server(answering(answer_of(200, b"{}"), pause_s=0)) as (right, _), redirecting(right) as (wrong, met):
        for asked in range(1, 9):
            urls = f"http://127.0.0.1:{wrong}", f"http://127.0.0.1:{right}"
            if of == "coroutines":
                assert asyncio.run(ask_from_coroutines(*urls)) == [{}] * 20
            else:
                with Client(*urls, retry=retry) as client:
                    assert [client.server_metadata() for _ in range(20)] == [{}] * 20
            assert len(met) <= asked


PAGE = b"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n</html>"
NO_MODEL = b'{"error":"Request for unknown model: \'m\' is not found"}'


def test_of_a_proxys_page_the_title_is_told_and_it_is_no_answer_of_tritons() -> None:
    with server(answering(answer_of(400, PAGE))) as (port, _), Client(f"http://127.0.0.1:{port}") as client:
        for ask_it in (client.ready, client.wait_until_ready, client.server_metadata):
            with pytest.raises(InvalidInputError, match=r"HTTP status 400: 400 The plain HTTP request was sent"):
                ask_it()
    nginxs = answer_of(400, b'{"error":"not a valid HTTPS request"}')  # deploy/nginx/nginx.conf
    with (
        server(answering(nginxs)) as (port, _),
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(InvalidInputError, match="not a valid HTTPS request"),
    ):
        client.wait_until_ready()
    for not_ready in (answer_of(400, b""), answer_of(400, NO_MODEL)):
        with server(answering(not_ready)) as (port, _), Client(f"http://127.0.0.1:{port}") as client:
            assert not client.ready("m")


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (answer_of(400, gzip.compress(NO_MODEL), b"Content-Encoding: gzip"), ModelNotFoundError, "unknown model"),
        (answer_of(200, gzip.compress(b" " * 2000), b"Content-Encoding: gzip"), InvalidInputError, "more than 1,000"),
        (answer_of(200, gzip.compress(b"{}")[:-9], b"Content-Encoding: gzip"), InferenceError, "its end is missing"),
        (answer_of(200, gzip.compress(b"{}") + b"junk", b"Content-Encoding: gzip"), InferenceError, "cannot be inflat"),
        (answer_of(200, b"{}", b"Content-Encoding: gzip"), InferenceError, "cannot be inflated"),
        (answer_of(401, b"what", b"Content-Encoding: br"), AccessDeniedError, "HTTP status 401"),
        (answer_of(503, b"", b"Content-Encoding: gzip"), OverloadedError, "HTTP status 503"),
        (answer_of(500, b"<title>" + b" " * 900, b"Content-Encoding: Identity"), InferenceError, "HTTP status 500"),
    ],
    # Named: gzip writes the time into its header, and the processes of a run would not agree what the tests are called.
    ids=["error", "too large", "cut short", "more behind it", "not compressed", "brotli", "empty", "identity"],
)
def test_what_was_compressed_is_read_up_to_the_limit(answer: bytes, error: type[ClientError], message: str) -> None:
    transport = Transport(max_message_bytes=1000)
    with (
        server(answering(answer)) as (port, _),
        Client(f"http://127.0.0.1:{port}", transport=transport, retry=Retry(max_attempts=1)) as client,
        pytest.raises(error, match=message),
    ):
        client.model_metadata("m")


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"1","outputs":["x"]}',
        b'{"id":"1","outputs":[{"name":"a","datatype":"FP99","shape":[1],"data":[1]}]}',
        b'{"id":"1","outputs":[{"name":"a","datatype":"UINT8","shape":[1],"data":[300]}]}',
        b'{"id":"1","outputs":[{"name":"a","datatype":"FP32","shape":[1],"data":[1],"parameters":[1]}]}',
        b"[" * 100_000,
    ],
)
def test_an_answer_that_cannot_be_read_is_one_error(body: bytes) -> None:
    metadata = b'{"name":"m","inputs":[],"outputs":[]}'

    def handle(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            content = body if b"/infer" in request else metadata
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))

    with (
        server(handle) as (port, _),
        Client(f"http://127.0.0.1:{port}", retry=Retry(initial_backoff_s=0.001)) as client,
        pytest.raises(InferenceError, match="invalid response"),
    ):
        client.infer("m", {}, request_id="1")
