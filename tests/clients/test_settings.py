"""What a client is told: addresses, headers, timeouts. Nonsense is refused, and passwords are not repeated."""

import asyncio
import math
from typing import Any

import numpy as np
import pytest

from clients import AsyncClient, Client, InvalidInputError, Retry, Tls, Transport
from clients.core.deadline import Deadline
from clients.core.tasks import images_to_arrays
from clients.settings import Address
from tests.workspace import FAMILY


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
        "http://h:0",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="invalid server URL"):
        Address.of(url)


@pytest.mark.parametrize("proxy", ["socks5://proxy:1080", "http://proxy:99999", "http://", "http://pro xy"])
def test_what_is_no_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(InvalidInputError, match="invalid proxy URL"):
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
        client.infer(FAMILY, {"image": [[b"image"]]}, headers=headers)


@pytest.mark.parametrize("files", [{"ca": "ca.pem"}, {"certificate": "mine.pem"}])
def test_certificates_do_not_travel_without_tls(files: dict[str, str]) -> None:
    for servers in ((), ("http://h",), ("grpcs://h", "grpc://h")):
        for client in (Client, AsyncClient):
            with pytest.raises(InvalidInputError, match=r"certificates are given, and \w+://[\w.:]+ is without TLS"):
                client(*servers, transport=Transport(tls=Tls(**files)))


@pytest.mark.parametrize("settings", [{"max_attempts": 0}, {"budget": -1}, {"burst": -1}, {"max_backoff_s": math.nan}])
def test_retries_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="max_attempts must be 1 or more"):
        Retry(**settings)


def test_a_compression_that_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="gzip, deflate or None"):
        Transport(compression="br")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, 4 << 30])
def test_a_limit_that_a_protocol_does_not_have_is_refused(limit: int) -> None:
    with pytest.raises(InvalidInputError, match="max_message_bytes"):
        Transport(max_message_bytes=limit)


def test_a_timeout_may_be_numpys() -> None:
    assert 0.9 < Deadline.after(np.float32(1)).remaining_s <= 1


def test_headers_may_be_in_capitals(url: str) -> None:
    with Client(url, transport=Transport(headers={"Authorization": "Bearer me", "X-Tenant": "us"})) as client:
        assert client.ready(FAMILY)


@pytest.mark.parametrize("version", ["1 HTTP/1.1\r\n\r\n", "1/../2", "x", -1])
def test_a_version_is_a_number(url: str, version: str | int) -> None:
    with Client(url) as client:
        for ask in (client.metadata, client.ready):
            with pytest.raises(InvalidInputError, match="invalid model version"):
                ask(FAMILY, version)
        assert client.metadata(FAMILY, "1") == client.metadata(FAMILY, 1)


@pytest.mark.parametrize("timeout_s", [math.inf, math.nan, -1, 1e12, 10**400, "soon"])
def test_a_timeout_is_a_time(timeout_s: float) -> None:
    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            await client.infer(FAMILY, {}, timeout_s=timeout_s)

    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(InvalidInputError, match="timeout_s must be 0 to"),
    ):
        client.infer(FAMILY, {}, timeout_s=timeout_s)
    with pytest.raises(InvalidInputError, match="timeout_s must be 0 to"):
        asyncio.run(ask())


def test_nothing_at_once_is_refused(nobody: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidInputError, match="concurrency must be 1 or more, and is 0"):
            kind(nobody, concurrency=0)
    with (
        Client(nobody) as client,
        pytest.raises(InvalidInputError, match="batch_size must be 1 to 2,147,483,647, and is 0"),
    ):
        list(client.classify_many([b"image"], batch_size=0))


def test_a_path_is_no_image(nobody: str) -> None:
    with Client(nobody) as client, pytest.raises(InvalidInputError, match="an image must be bytes, and is str"):
        client.classify("shoe.png")  # type: ignore[arg-type]


def test_what_one_of_several_servers_would_do_is_refused(nobody: str) -> None:
    with (
        Client(nobody, nobody) as client,
        pytest.raises(InvalidInputError, match="unload_model is for one server, and there are 2"),
    ):
        client.unload_model(FAMILY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": -1}, "priority must be 0"),
        ({"parameters": {"timeout": 1}}, "'timeout' is set by the client"),
        ({"parameters": {"triton_x": 1}}, "'triton_x' is set by the client"),
        ({"parameters": {"a": [1]}}, r"'a' must be a str, bool, int64 or float, and is \[1\]"),
        ({"parameters": {"a": 2**63}}, "must be a str, bool, int64 or float"),
        ({"parameters": {"a": "\ud800"}}, "cannot be sent as text"),
        ({"parameters": {5: "a"}}, "5 cannot be sent as text"),
        ({"request_id": "\ud800"}, "cannot be sent as text"),
        ({"outputs": "label"}, "outputs must be a list of names, and is 'label'"),
        ({"headers": {"a": 5}}, "the header a"),
        ({"parameters": {"sequence_start": True}}, "a sequence needs a sequence_id"),
    ],
)
def test_options_that_cannot_be_sent_are_refused(url: str, options, message: str) -> None:  # type: ignore[no-untyped-def]
    with Client(url) as client, pytest.raises(InvalidInputError, match=message):
        client.infer(FAMILY, {"image": [[b"image"]]}, **options)


@pytest.mark.parametrize("image", [None, "shoe.png", 1])
def test_an_image_is_bytes_of_any_kind(image: object) -> None:
    for kind in (bytes, bytearray, memoryview):
        assert images_to_arrays([kind(b"an image\0")])["image"][0, 0] == b"an image\0"
    with pytest.raises(InvalidInputError, match="an image must be bytes"):
        images_to_arrays([b"an image", image])  # type: ignore[list-item]


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_certificates_may_be_named_by_strings(scheme: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot use the certificates"):
        Client(f"{scheme}://127.0.0.1:1", transport=Transport(tls=Tls(ca="not-there.pem")))
