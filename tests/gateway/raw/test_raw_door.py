"""The raw door, in front of a real Triton: what comes through, what does not, and what is said."""

import json
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from gateway.raw.body import Limits
from gateway.triton.address import Address
from store.schema import NAME
from tests.deploy.echoes import ECHOES, LENGTH, PIXELS, WORDS, Echo, answer, strings
from tests.deploy.hostile import HTTP, header_twice
from tests.gateway.served import BULK, FEW, KEY, NO_WORDS, Gateway, gateway, process
from tests.gateway.tritons import Running


@pytest.fixture(scope="module")
def door(triton: Running) -> Iterator[Gateway]:
    with gateway(triton.address) as running:
        yield running


def ask(
    door: Gateway, echo: Echo, header: bytes | None = None, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a request with a key; status, headers and body of the answer."""
    header = echo.header() if header is None else header
    connection = door.connect()
    sent = {LENGTH: str(len(header)), **KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request("POST", echo.path, header + echo.content if body is None else body, sent)
    response = connection.getresponse()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def request(path: str, header: bytes, size: int) -> bytes:
    """The begin of a request on the wire, with its JSON; `size` bytes of tensors follow."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer gk_all\r\n{LENGTH}: {len(header)}\r\n"
    return f"{head}Content-Length: {len(header) + size}\r\n\r\n".encode() + header


def is_echo(echo: Echo, said: tuple[int, dict[str, str], bytes]) -> bool:
    status, headers, content = said
    return answer(status, content, int(headers.get(LENGTH.lower(), len(content)))).is_echo_of(echo)


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_what_was_sent_comes_back(door: Gateway, echo: Echo) -> None:
    said = ask(door, echo)
    assert is_echo(echo, said)
    assert len(said[1]["x-request-id"]) == 32
    assert all(part in said[1]["server-timing"] for part in ("gateway;dur=", "queue;dur=", "triton;dur="))
    door.settled()
    record = door.records[-1]
    assert record["id"] == said[1]["x-request-id"] and record["rows"] == 2 and record["key"] == "all"
    assert record["inputs"] == {"IN": {"datatype": echo.datatype, "shape": list(echo.shape)}}
    assert record["outputs"] == {"OUT": {"datatype": echo.datatype, "shape": list(echo.shape)}}


@pytest.mark.parametrize("name", ["mine", "é" * 300, ""])
def test_what_a_caller_calls_it_is_kept_beside_the_inputs(door: Gateway, name: str) -> None:
    assert ask(door, PIXELS, x_request_id=name)[0] == 200
    door.settled()
    assert door.records[-1]["caller_id"] == (name[:NAME] or None)
    assert list(door.records[-1]["inputs"]) == ["IN"]


def test_an_answer_is_written_down_before_it_is_sent(door: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a gateway that is killed at that moment has left a record of it: here that takes a while."""

    def put(record: dict[str, object]) -> None:
        time.sleep(0.3)
        slow.append(record)

    slow: list[dict[str, object]] = []
    monkeypatch.setattr(door.brain, "spool", SimpleNamespace(put=put, lost=0))
    header = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
    failing = Echo("failing", (1,), np.float32(-1).tobytes(), "FP32")
    for echo, sent, status in ((PIXELS, None, 200), (failing, header, 500)):
        began = time.monotonic()
        assert ask(door, echo, sent)[0] == status
        assert time.monotonic() - began > 0.3
    door.settled()
    assert [record["status"] for record in slow] == [200, 500]


@pytest.mark.parametrize(
    "more",
    [
        {"id": "order 17 / Größe 😀"},
        {"parameters": {"priority": 1, "timeout": 5_000_000, "binary_data_output": True}, "outputs": []},
        {"parameters": {"sequence_id": 0}},
    ],
)
def test_what_clients_may_say_passes(door: Gateway, more: dict[str, object]) -> None:
    said = ask(door, PIXELS, PIXELS.header(**more))
    assert is_echo(PIXELS, said)
    if "id" in more:
        assert json.loads(said[2][: int(said[1][LENGTH.lower()])])["id"] == more["id"]
        door.settled()
        assert door.records[-1]["caller_id"] == more["id"]


@pytest.mark.parametrize("attack", HTTP)
def test_a_hostile_request_stops_here(door: Gateway, attack: str) -> None:
    before, sent = door.settled(), HTTP[attack]
    header = sent.header if sent.header is not None else sent.asked.header()
    connection = door.connect()
    content = header + sent.asked.content if sent.body is None else sent.body
    connection.request("POST", sent.asked.path, content, {LENGTH: str(len(header)), **KEY, **sent.headers})
    response = connection.getresponse()
    said = json.loads(response.read())
    assert response.status in (400, 413, 415) and said["error"], said
    assert door.settled() == before  # none reached Triton
    assert is_echo(PIXELS, ask(door, PIXELS))


def test_a_header_that_matters_is_there_once(door: Gateway) -> None:
    request = header_twice().replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer gk_all\r\nConnection: close\r\n\r\n", 1)
    assert b"is there twice" in door.raw(request)
    keys = b"Authorization: Bearer gk_all\r\nAuthorization: Bearer x\r\n"
    twice = b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + keys + b"Connection: close\r\n\r\n"
    assert door.raw(twice).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("key", "status"), [({}, 401), ({"Authorization": "Bearer x"}, 401), (NO_WORDS, 403), (KEY, 200)]
)
def test_nobody_gets_further_than_its_key(door: Gateway, key: dict[str, str], status: int) -> None:
    for path in ("/v2/models/words", "/v2/models/words/config", "/v2/models/words/infer"):
        connection, header = door.connect(), WORDS.header()
        if path.endswith("infer"):
            connection.request("POST", path, header + WORDS.content, {LENGTH: str(len(header)), **key})
        else:
            connection.request("GET", path, headers=key)
        assert connection.getresponse().status == status


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/repository/models/pixels/load",
        "/v2/repository/models/pixels/unload",
        "/v2/systemsharedmemory/region/r/register",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/status",
        "/v2/trace/setting",
        "/v2/models/pixels/trace/setting",
        "/v2/logging",
        "/v2/models/pixels/generate",
        "/v2/models/pixels/generate_stream",
        "/v2/models/stats",
        "/v2/models/pixels/../pixels/infer",
        "/v2/models/pixels%2finfer",
        "/v2/models/pixels/infer/",
        "/v2/models/pixels/infer?x=1",
        "//v2/models/pixels/infer",
        "/V2/models/pixels/infer",
        "/metrics",
        "/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_what_is_not_open_is_closed(door: Gateway, path: str, method: str) -> None:
    connection = door.connect()
    connection.request(method, path, b"{}", headers=KEY)
    response = connection.getresponse()
    assert response.status == 403 and b"not open" in response.read()


def test_a_wrong_model_is_an_error(door: Gateway) -> None:
    status, _, said = ask(door, Echo("nobody", (1, 1, 2, 2), bytes(4), "UINT8"))
    assert status == 404 and b"nobody is not served here" in said
    connection, header = door.connect(), PIXELS.header()
    connection.request(
        "POST", "/v2/models/pixels/versions/9/infer", header + PIXELS.content, {LENGTH: str(len(header)), **KEY}
    )
    assert connection.getresponse().status == 404


def test_quotas_are_told_and_end(door: Gateway) -> None:
    header = PIXELS.header()
    statuses = []
    for _ in range(4):
        connection = door.connect()
        connection.request("POST", PIXELS.path, header + PIXELS.content, {LENGTH: str(len(header)), **FEW})
        response = connection.getresponse()
        statuses.append((response.status, response.headers["RateLimit-Remaining"], response.headers["Retry-After"]))
    assert [status for status, _, _ in statuses] == [200, 200, 200, 429]
    assert statuses[0][1] == "2" and statuses[3][2] == "7"
    assert door.keyring.spent["few"] == [2, 2, 2]


@pytest.mark.parametrize("size", [0, 1, 200_000, 300_000, 10_000_000])
def test_tensors_of_any_size_pass(door: Gateway, size: int) -> None:
    text = np.random.default_rng(size).bytes(size)
    big = Echo("words", (2, 1), strings(text, b"end"), "BYTES")
    assert is_echo(big, ask(door, big))


@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.parametrize("wrong", [b"", b"\0\0\0", b"\xff\xff\xff\x7f"])
def test_strings_are_counted_in_a_stream_too(door: Gateway, size: int, wrong: bytes) -> None:
    """The last string is cut off, or longer than what follows."""
    content = strings(bytes(size)) + wrong
    echo = Echo("words", (2, 1), content, "BYTES")
    status, _, said = ask(door, echo)
    assert status == 400 and b"contradict each other" in said


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_a_body_in_chunks_is_one_that_says_its_length_to_triton(door: Gateway, size: int) -> None:
    echo = Echo("words", (1, 1), strings(bytes(size)), "BYTES")
    header = echo.header()

    def chunks() -> Iterator[bytes]:
        body = header + echo.content
        for start in range(0, len(body), 5000):
            yield body[start : start + 5000]

    connection = door.connect()
    connection.request("POST", echo.path, chunks(), {LENGTH: str(len(header)), **KEY}, encode_chunked=True)  # type: ignore[arg-type]
    response = connection.getresponse()
    content = response.read()
    assert is_echo(echo, (response.status, {LENGTH.lower(): response.headers[LENGTH]}, content))


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize("size", [100, 1_000_000])
def test_a_body_in_chunks_that_is_too_short_or_too_long_is_refused(door: Gateway, size: int, more: int) -> None:
    echo = Echo("words", (1, 1), strings(bytes(size)), "BYTES")
    header = echo.header()
    body = header + (echo.content + b"x" if more > 0 else echo.content[:-1])
    connection = door.connect()
    connection.request("POST", echo.path, iter([body]), {LENGTH: str(len(header)), **KEY}, encode_chunked=True)  # type: ignore[arg-type]
    response = connection.getresponse()
    assert response.status == 400, response.read()


def test_a_body_that_is_too_large_is_not_read(triton: Running) -> None:
    with gateway(triton.address, limits=Limits(most_bytes=100_000)) as small:
        echo = Echo("words", (1, 1), strings(bytes(200_000)), "BYTES")
        status, _, said = ask(small, echo)
        assert status == 413 and b"100,000 bytes" in said
        assert is_echo(PIXELS, ask(small, PIXELS))


def test_what_triton_refuses_comes_back_without_a_traceback(door: Gateway) -> None:
    header = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
    failing = Echo("failing", (1,), np.float32(-1).tobytes(), "FP32")
    status, _, said = ask(door, failing, header)
    assert status == 500 and b"it is broken" in said and b"model.py" not in said
    door.settled()
    assert door.records[-1]["status"] == 500


def test_a_deadline_reaches_tritons_queue(door: Gateway) -> None:
    """One request keeps the model busy; another one waits in Triton's queue no longer than its caller does."""
    header = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":[1,1],"parameters":{"binary_data_size":4}}]}'
    busy = Echo("queued", (1, 1), np.float32(0.8).tobytes(), "FP32")
    first = door.connect()
    first.request("POST", busy.path, header + busy.content, {LENGTH: str(len(header)), **KEY})
    time.sleep(0.1)
    began = time.monotonic()
    status, _, said = ask(door, busy, header, request_timeout_ms="300")
    assert status in (503, 504) and time.monotonic() - began < 0.7, said
    assert first.getresponse().status == 200


def test_a_bad_timeout_is_refused(door: Gateway) -> None:
    assert ask(door, PIXELS, request_timeout_ms="soon")[0] == 400


def test_an_urgent_request_needs_a_key_that_may(door: Gateway) -> None:
    header = PIXELS.header(parameters={"priority": 1})
    connection = door.connect()
    connection.request("POST", PIXELS.path, header + PIXELS.content, {LENGTH: str(len(header)), **BULK})
    assert connection.getresponse().status == 200  # it is of the lowest class all the same


def test_health_needs_no_key(door: Gateway) -> None:
    connection = door.connect()
    for path in ("/v2/health/live", "/v2/health/ready"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        said = response.read()
    assert json.loads(said) == {"gateway": "ready", "triton": "up", "servers": ["up"]}


def test_readiness_tells_triton_is_down_from_i_am_down(triton: Running) -> None:
    with gateway(Address("127.0.0.1", 1), triton.address) as half, gateway(Address("127.0.0.1", 1)) as none:
        for door, status, servers in ((half, 200, ["down", "up"]), (none, 503, ["down"])):
            connection = door.connect()
            connection.request("GET", "/v2/health/ready")
            response = connection.getresponse()
            said = json.loads(response.read())
            assert (response.status, said["gateway"], said["servers"]) == (status, "ready", servers)
        assert is_echo(PIXELS, ask(half, PIXELS))
        status, headers, said_of = ask(none, PIXELS)
        assert status == 503 and headers["retry-after"] == "1", said_of


def test_a_caller_that_goes_frees_its_place_at_once(door: Gateway) -> None:
    header = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
    gate, _ = door.brain.gate("sleeper", "stable")
    unwanted = door.brain.endpoints.all[0].upstream.unwanted
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.sendall(request("/v2/models/sleeper/infer", header, 4) + np.float32(1.5).tobytes())
        time.sleep(0.3)
        assert gate.under_way == 1
    time.sleep(0.2)
    assert gate.under_way == 0
    assert door.records[-1]["status"] == 499
    assert door.brain.endpoints.all[0].upstream.unwanted == unwanted + 1


def test_memory_is_bounded_while_much_is_streamed(triton: Running) -> None:
    """A caller that does not read its answer is not waited for by what piles up."""
    echo = Echo("words", (1, 1), strings(bytes(40_000_000)), "BYTES")
    header = echo.header()
    with process(triton.address) as (port, running), socket.create_connection(("127.0.0.1", port)) as connection:
        before = psutil.Process(running.pid).memory_info().rss
        connection.sendall(request(echo.path, header, len(echo.content)))
        connection.sendall(echo.content)
        first = connection.recv(1000)
        time.sleep(0.5)
        assert first.startswith(b"HTTP/1.1 200")
        assert psutil.Process(running.pid).memory_info().rss - before < 12_000_000
