"""The real nginx and the real Envoy, with the shipped configurations, ask the gateway whether a request may pass."""

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import grpc
import pytest

from tests.deploy.echoes import LENGTH, METHOD, PIXELS, WORDS, Echo, answer
from tests.gateway.authorize import proxies
from tests.gateway.served import FEW, KEY, NO_WORDS, Gateway, gateway
from tests.gateway.tritons import Running

Headers = dict[str, str]


@pytest.fixture(scope="module")
def door(triton: Running) -> Iterator[Gateway]:
    with gateway(triton.address) as running:
        yield running


@pytest.fixture(scope="module", params=["nginx", pytest.param("envoy", marks=pytest.mark.slow)])
def port(
    request: pytest.FixtureRequest, door: Gateway, triton: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Where one of the two listens."""
    start = {"nginx": proxies.nginx, "envoy": proxies.envoy}[request.param]
    with start(tmp_path_factory.mktemp(request.param), door.port, triton) as port:
        yield port


def ask(port: int, echo: Echo, key: Headers, **more: str) -> tuple[int, Headers, bytes]:
    header = echo.header()
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", echo.path, header + echo.content, {LENGTH: str(len(header)), **key, **more})
    response = connection.getresponse()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def is_echo(echo: Echo, said: tuple[int, Headers, bytes]) -> bool:
    return answer(said[0], said[2], int(said[1].get(LENGTH.lower(), len(said[2])))).is_echo_of(echo)


def test_who_may_passes(port: int) -> None:
    for echo in (PIXELS, WORDS):
        said = ask(port, echo, KEY)
        assert is_echo(echo, said) and len(said[1]["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("key", "status", "reason"),
    [
        ({}, 401, "A key is needed"),
        ({"Authorization": "Bearer x"}, 401, "A key is needed"),
        (NO_WORDS, 403, "The key does not allow this"),
    ],
)
def test_who_may_not_is_told_why(port: int, key: Headers, status: int, reason: str) -> None:
    got, headers, said = ask(port, WORDS, key)
    assert got == status and reason in json.loads(said)["error"]
    assert status != 401 or headers["www-authenticate"] == "Bearer"


def test_a_wrong_model_is_an_error(port: int) -> None:
    status, _, said = ask(port, Echo("nobody", (1, 1, 2, 2), bytes(4), "UINT8"), KEY)
    assert status == 404 and "nobody is not served here" in json.loads(said)["error"]


def test_quotas_of_requests_hold(port: int, door: Gateway) -> None:
    door.keyring.spent.clear()
    statuses = [ask(port, PIXELS, FEW) for _ in range(4)]
    assert [status for status, _, _ in statuses] == [200, 200, 200, 429]
    told = {name: value for name, value in statuses[0][1].items() if name.startswith("ratelimit")}
    assert told == {
        "ratelimit-limit": "3", "ratelimit-remaining": "2", "ratelimit-reset": "60",
        "ratelimit-policy": '"requests-short";q=3;w=60',
    }  # fmt: skip
    assert statuses[3][1]["retry-after"] == "7"
    assert door.keyring.spent["few"] == [0, 0, 0]  # rows are in the body, which nobody reads


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/models/pixels/unload",
        "/v2/systemsharedmemory/region/r/register",
        "/v2/models/pixels/generate",
        "/v2/models/pixels/infer?x",
        "/v2/models/pixels%2Finfer",
        "/v2/models/pixels/../../repository/index",
        "/authorize",
        "/authorize/v2/health/live",
    ],
)
def test_what_is_closed_stays_closed(port: int, path: str) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, b"{}", {LENGTH: "2", **KEY})
    response = connection.getresponse()
    assert response.status in (400, 403, 404), response.read()


def test_a_caller_cannot_say_what_it_asks_for(port: int) -> None:
    """The headers by which nginx describes a request are a caller's, too, as far as anybody reads them."""
    described = {"X-Original-URI": "/v2/health/live", "X-Original-Method": "GET"}
    assert ask(port, WORDS, {}, **described)[0] == 401
    assert ask(port, WORDS, NO_WORDS, **described)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        *("/v2/models/pixels/../words/infer", "/v2/models/pixels/%2e%2e/words/infer"),
        *("/v2/models/pixels;/../words/infer", "//v2/models/words/infer", "/v2/models/words/infer/"),
        *("/v2/./models/words/infer", "/v2/models/words/infer#pixels", "http://pixels/v2/models/words/infer"),
        *("/v2/models/words%2finfer", "/v2\\models/words/infer"),
    ],
)  # fmt: skip
def test_a_path_that_two_read_in_two_ways_opens_nothing(port: int, path: str) -> None:
    """With a key for pixels alone."""
    header = WORDS.header()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{LENGTH}: {len(header)}\r\nX-HTTP-Method-Override: GET\r\n"
    head += f"Authorization: {NO_WORDS['Authorization']}\r\nContent-Length: {len(header) + len(WORDS.content)}\r\n\r\n"
    assert 400 <= _status(port, head.encode() + header + WORDS.content) < 500


@pytest.mark.parametrize("second", ["gk_all", "x"])
def test_of_two_keys_none_counts(port: int, second: str) -> None:
    """A proxy may look at the one and the gateway at the other."""
    header = WORDS.header()
    keys = ["Bearer gk_pixels", f"Bearer {second}"]
    for first, last in (keys, keys[::-1]):
        head = f"POST {WORDS.path} HTTP/1.1\r\nHost: x\r\n{LENGTH}: {len(header)}\r\nAuthorization: {first}\r\n"
        head += f"authorization: {last}\r\nContent-Length: {len(header) + len(WORDS.content)}\r\n\r\n"
        assert 400 <= _status(port, head.encode() + header + WORDS.content) < 500


def _status(port: int, sent: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(sent)
        return int(connection.recv(65536).split()[1])


def test_nothing_is_recorded(port: int, door: Gateway) -> None:
    before = door.settled()
    assert ask(port, PIXELS, KEY)[0] == 200
    assert door.settled() == before


@pytest.mark.slow
def test_grpc_passes_envoy_with_a_key_for_every_model(
    door: Gateway, triton: Running, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The model is in the body, which nobody reads: a key for one model could ask for another."""
    with proxies.envoy(tmp_path_factory.mktemp("grpc"), door.port, triton) as port, _channel(port) as channel:
        ask = channel.unary_unary(METHOD)

        def status(key: Headers) -> str:
            metadata = [(name.lower(), value) for name, value in key.items()]
            try:
                ask(PIXELS.message().SerializeToString(), metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        assert [status(key) for key in (KEY, NO_WORDS, {})] == ["OK", "PERMISSION_DENIED", "UNAUTHENTICATED"]


def _channel(port: int) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{port}")
