"""What a client is told: addresses, headers, timeouts. Nonsense is refused, and passwords are not repeated."""

import asyncio
import math

import numpy as np
import pytest

from clients import AsyncClient, Client, InvalidInputError, Tls, Transport
from clients.deadline import Deadline
from clients.settings import Address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("host", Address("grpc", "host", 8001)),
        ("http://host", Address("http", "host", 8000)),
        ("https://host/", Address("http", "host", 443, tls=True)),
        ("grpcs://[::1]:9", Address("grpc", "::1", 9, tls=True)),
        ("http://bücher.example", Address("http", "xn--bcher-kva.example", 8000)),
    ],
)
def test_an_address_says_the_protocol(url: str, address: Address) -> None:
    assert Address.of(url) == address
    assert Address.of(str(address)) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host",
        "host:port",
        "host:99999",
        "http://a..b",
        "http://ho st",
        "http://",
        "http://h/path",
        "http://h?q",
        "http://h#f",
        "http://me:pw@h",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="is no address of a server"):
        Address.of(url)


@pytest.mark.parametrize("proxy", ["socks5://proxy:1080", "http://proxy:99999", "http://", "http://pro xy"])
def test_what_is_no_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(InvalidInputError, match="is no proxy"):
        Client("http://host", transport=Transport(proxy=proxy))


def test_passwords_are_not_repeated() -> None:
    secret = "s3cret"
    transport = Transport(headers={"authorization": secret}, admin_key=secret, proxy=f"http://me:{secret}@proxy:1")
    assert secret not in repr(transport)
    for make in (
        lambda: Client("http://host", transport=Transport(proxy=f"https://me:{secret}@proxy")),
        lambda: Client("http://host", transport=Transport(proxy=f"http://me:/{secret}@proxy")),
        lambda: Client(f"http://me:{secret}@host/path"),
        lambda: Transport(headers={"authorization": f"{secret}\n"}),
    ):
        with pytest.raises(InvalidInputError) as refused:
            make()
        assert secret not in str(refused.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\n\r\nGET /smuggled HTTP/1.1"},
        {"x\r\ny": "a"},
        {"x:": "a"},
        {"": "a"},
        {"x": "é"},
        {"Content-Length": "0"},
        {"transfer-encoding": "chunked"},
        {"x-bin": "a"},
    ],
)
def test_a_header_that_would_be_another_is_refused(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="header"):
        Transport(headers=headers)
    with Client(url) as client, pytest.raises(InvalidInputError, match="header"):
        client.infer("fashion", {"image": [[b"image"]]}, headers=headers)


@pytest.mark.parametrize("limit", [0, 4 << 30])
def test_a_limit_that_a_protocol_does_not_have_is_refused(limit: int) -> None:
    with pytest.raises(InvalidInputError, match="max_message_bytes"):
        Transport(max_message_bytes=limit)


def test_a_timeout_may_be_numpys() -> None:
    assert 0.9 < Deadline.after(np.float32(1)).remaining_s <= 1


def test_headers_may_be_in_capitals(url: str) -> None:
    with Client(url, transport=Transport(headers={"Authorization": "Bearer me", "X-Tenant": "us"})) as client:
        assert client.ready("fashion")


@pytest.mark.parametrize("version", ["1 HTTP/1.1\r\n\r\n", "1/../2", "x", -1])
def test_a_version_is_a_number(url: str, version: str | int) -> None:
    with Client(url) as client:
        for ask in (client.signature, client.ready):
            with pytest.raises(InvalidInputError, match="the version"):
                ask("fashion", version)
        assert client.signature("fashion", "1") == client.signature("fashion", 1)


@pytest.mark.parametrize("timeout_s", [math.inf, math.nan, -1, 1e12, "soon"])
def test_a_timeout_is_a_time(timeout_s: float) -> None:
    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            await client.infer("fashion", {}, timeout_s=timeout_s)

    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInputError, match="a timeout of"):
        client.infer("fashion", {}, timeout_s=timeout_s)
    with pytest.raises(InvalidInputError, match="a timeout of"):
        asyncio.run(ask())


def test_nothing_at_once_is_refused(url: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidInputError, match="a concurrency of 0"):
            kind(url, concurrency=0)
    with Client(url) as client, pytest.raises(InvalidInputError, match="batches of 0 images"):
        list(client.classify_many([b"image"], batch=0))


def test_a_path_is_no_image(url: str) -> None:
    with Client(url) as client, pytest.raises(InvalidInputError, match="an image is its bytes, and not a str"):
        client.classify("shoe.png")  # type: ignore[arg-type]


def test_what_is_nothing_to_ask_is_refused_and_so_is_what_one_of_several_would_do(url: str) -> None:
    with Client(url) as client, pytest.raises(InvalidInputError, match="'weather' is nothing to ask"):
        client.ask("weather")  # type: ignore[arg-type]
    with (
        Client(url, url) as client,
        pytest.raises(InvalidInputError, match="'unload' is for one server, and there are 2"),
    ):
        client.ask("unload", "fashion")


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_certificates_may_be_named_by_strings(scheme: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot use the certificates"):
        Client(f"{scheme}://127.0.0.1:1", transport=Transport(tls=Tls(ca="not-there.pem")))
