"""Requests that end Triton 2.51, or that it takes for something else than a filter would, stop at the shipped nginx."""

import re
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import grpc
import pytest

from tests.deploy.echoes import BINARY, ECHOES, LENGTH, PIXELS, WORDS, Echo, Front, call, post
from tests.deploy.hostile import GRPC, HTTP, header_twice, raw

HTTP_REFUSALS = {400, 403, 413, 415}
GRPC_REFUSALS = {"INVALID_ARGUMENT", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
_WORKING = "/v2/models/pixels/infer"


@pytest.fixture
def channel(echoing: Front) -> Iterator[grpc.Channel]:
    trusted = grpc.ssl_channel_credentials(echoing.proxy.authority.certificate.read_bytes())
    with grpc.secure_channel(echoing.proxy.grpc, trusted) as channel:
        yield channel


@pytest.mark.parametrize("asked", ECHOES.values(), ids=ECHOES)
def test_an_ordinary_request_is_answered(echoing: Front, channel: grpc.Channel, asked: Echo) -> None:
    assert post(echoing.proxy.connect(), asked).is_echo_of(asked)
    assert call(channel, asked.message().SerializeToString()).is_echo_of(asked)


@pytest.mark.parametrize(
    "more",
    [
        {"id": "order 17 / Größe 😀"},
        {"parameters": {"priority": 1, "timeout": 5_000_000, "binary_data_output": True}, "outputs": []},
        {"outputs": [{"name": "OUT", "parameters": {"binary_data": True}}]},
    ],
    ids=["id", "parameters", "outputs"],
)
def test_what_clients_may_say_of_a_request_passes(echoing: Front, more: dict[str, object]) -> None:
    assert post(echoing.proxy.connect(), PIXELS, PIXELS.header(**more)).is_echo_of(PIXELS)


@pytest.mark.parametrize("attack", HTTP)
def test_a_hostile_request_over_http_stops_at_the_front(echoing: Front, attack: str) -> None:
    sent = HTTP[attack]
    answer = post(echoing.proxy.connect(), sent.asked, sent.header, body=sent.body, headers=sent.headers)
    assert answer.status in HTTP_REFUSALS and answer.reason
    assert echoing.is_alive()
    assert not echoing.passed_on_in_vain()


@pytest.mark.parametrize("attack", GRPC)
def test_a_hostile_request_over_grpc_stops_at_the_front(echoing: Front, channel: grpc.Channel, attack: str) -> None:
    answer = call(channel, GRPC[attack])
    assert answer.status in GRPC_REFUSALS and answer.reason
    assert echoing.is_alive()
    assert not echoing.passed_on_in_vain()


def test_a_client_learns_the_batch_limit_from_a_refusal(echoing: Front, channel: grpc.Channel) -> None:
    """In the words in which Triton says it."""
    sent = HTTP["a batch above the maximum"]
    for answer in (post(echoing.proxy.connect(), sent.asked), call(channel, GRPC["a batch above the maximum"])):
        assert "batch-size must be <= 8" in answer.reason


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ServerLive"])
@pytest.mark.parametrize("message", [b"\x0a\x06pixels\x0a\x05words", b"\x7a\x01x", b"\xff" * 20])
def test_what_asks_about_a_model_over_grpc_is_read_as_strictly(
    echoing: Front, channel: grpc.Channel, method: str, message: bytes
) -> None:
    assert call(channel, message, f"/inference.GRPCInferenceService/{method}").status == "INVALID_ARGUMENT"
    assert echoing.is_alive()


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(header_twice(), id="two header lengths"),
        pytest.param(raw(_WORKING, b"{}", "Content-Length: 500\r\n"), id="two lengths"),
        pytest.param(raw(_WORKING, b"0\r\n\r\n", "Transfer-Encoding: chunked\r\n"), id="length and chunked"),
        pytest.param(raw(_WORKING, b"{}", "Transfer-Encoding : chunked\r\n"), id="chunked, spelled with a blank"),
        pytest.param(raw(_WORKING, b"{}", "Transfer-Encoding: xchunked\r\n"), id="an encoding that is none"),
        pytest.param(raw(_WORKING, b"{}", length="+2"), id="a length with a sign"),
        pytest.param(raw(_WORKING, b"{}", length="-2"), id="a negative length"),
        pytest.param(raw(_WORKING, b"{}", length=2**64 + 2), id="a length of 2^64 + 2"),
        pytest.param(raw(_WORKING, b"0\r\n\r\n", "Transfer-Encoding: chunked\r\n", version="1.0"), id="HTTP/1.0"),
        pytest.param(raw(_WORKING, b"{}", "A: b\n\nPOST / HTTP/1.1\r\n"), id="a header that ends the headers"),
        pytest.param(raw(_WORKING, b"{}", version="9.9"), id="HTTP/9.9"),
        pytest.param(raw("/v2/models/pixels/infer HTTP/1.1\r\nX: y", b"{}"), id="a line in the path"),
        pytest.param(raw("/v2/repository/index", b"{}", "Connection: Upgrade\r\nUpgrade: websocket\r\n"), id="upgrade"),
        pytest.param(raw("http://127.0.0.1/v2/repository/index", b"{}"), id="an absolute address"),
    ],
)
def test_a_request_that_two_servers_may_delimit_differently_is_refused(echoing: Front, request_bytes: bytes) -> None:
    """Nothing that comes after it on the connection is taken for a request of its own, either."""
    answers = say(echoing, request_bytes + raw("/v2/repository/index", b"{}"))
    assert answers and {status for status, _ in answers} <= HTTP_REFUSALS | {405, 501, 505}
    assert echoing.is_alive()
    assert not echoing.passed_on_in_vain()


def test_requests_that_are_sent_at_once_are_answered_in_turn(echoing: Front) -> None:
    header = PIXELS.header(outputs=[BINARY])
    right = raw(PIXELS.path, header + PIXELS.content, f"{LENGTH}: {len(header)}\r\n")
    wrong = raw(PIXELS.path, header, f"{LENGTH}: {len(header)}\r\n")
    answers = say(echoing, (right + wrong) * 10)
    assert [status for status, _ in answers] == [200, 400] * 10
    assert all(body.endswith(PIXELS.content) for status, body in answers if status == 200)


@pytest.mark.parametrize("path", ["..", ".", "pixels..", "pixels%2f", "pixels;a", "-pixels", "x" * 300])
def test_a_model_that_is_none_is_not_asked_for(echoing: Front, path: str) -> None:
    answer = post(echoing.proxy.connect(), PIXELS, path=f"/v2/models/{path}/infer")
    assert answer.status in HTTP_REFUSALS and answer.reason
    assert not echoing.passed_on_in_vain()


def test_a_path_with_a_zero_is_refused(echoing: Front) -> None:
    [(status, _)] = say(echoing, raw("/v2/models/pixels%00/infer", b"{}"))
    assert status >= 400


def test_a_version_is_the_one_of_the_path(echoing: Front) -> None:
    assert post(echoing.proxy.connect(), PIXELS, path="/v2/models/pixels/versions/1/infer").is_echo_of(PIXELS)
    for version in ("2", "-1", "4294967297", "1/../1", "18446744073709551617"):
        path = f"/v2/models/pixels/versions/{version}/infer"
        assert post(echoing.proxy.connect(), PIXELS, path=path).status in HTTP_REFUSALS


def test_neighbours_of_attackers_get_their_answers(echoing: Front) -> None:
    """All at once, on connections of their own."""

    def attack() -> None:
        connection = echoing.proxy.connect()
        for sent in HTTP.values():
            post(connection, sent.asked, sent.header, body=sent.body, headers=sent.headers)

    with ThreadPoolExecutor() as pool:
        attackers = [pool.submit(attack) for _ in range(2)]
        connection, answered = echoing.proxy.connect(), 0
        while not all(attacker.done() for attacker in attackers):
            asked = replace(PIXELS, content=bytes((answered + i) % 256 for i in range(8)))
            assert post(connection, asked).is_echo_of(asked)
            answered += 1
        assert answered > 10
        for attacker in attackers:
            attacker.result()
    assert echoing.is_alive()


def test_a_client_that_does_not_send_all_that_it_promised_keeps_nobody_waiting(echoing: Front) -> None:
    promised = raw(PIXELS.path, b"{", f"{LENGTH}: 100\r\n", length=30_000_000)
    context = ssl.create_default_context(cafile=echoing.proxy.authority.certificate)
    plain = socket.create_connection(("localhost", echoing.proxy.https_port), 10)
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(promised)
        assert post(echoing.proxy.connect(), WORDS).is_echo_of(WORDS)


def say(front: Front, request: bytes) -> list[tuple[int, bytes]]:
    """Send bytes over TLS, and read every answer until there is none: its status and body."""
    context = ssl.create_default_context(cafile=front.proxy.authority.certificate)
    plain = socket.create_connection(("localhost", front.proxy.https_port), 10)
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(request)
        secure.settimeout(0.5)
        return list(_answers(b"".join(_received(secure))))


def _received(connection: ssl.SSLSocket) -> Iterator[bytes]:
    with suppress(OSError):
        while some := connection.recv(1 << 16):
            yield some


def _answers(received: bytes) -> Iterator[tuple[int, bytes]]:
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        end = int(length[1]) if length else 0
        yield int(head.split()[1]), rest[:end]
        received = rest[end:]
