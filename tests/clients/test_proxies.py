"""The environment's proxy is read in one way for gRPC and HTTP, an error names it, and a caller's own is obeyed."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from clients import AsyncClient, Client, InvalidInputError, ServerUnavailableError, Transport, proxies
from tests.refusing_proxy import RefusingProxy, refusing_proxy

INPUTS = {"IN": np.zeros(1, np.float32)}
VARIABLES = [
    *(f"{name}_proxy" for name in ("http", "https", "grpc", "all", "no", "no_grpc")),
    *(f"{name}_PROXY" for name in ("HTTP", "HTTPS", "GRPC", "ALL", "NO", "NO_GRPC")),
]
ELSEWHERE = "192.0.2.1"  # for documentation: nobody has it


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    """One that no variable names yet."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with refusing_proxy() as found:
        yield found


@pytest.mark.parametrize(
    ("no_proxy", "named"),
    [
        *((text, True) for text in ("*", "a, *", "192.0.2.1", "192.0.2.0/24", "0.0.0.0/0", " 10.0.0.1 192.0.2.1")),
        *((text, True) for text in ("192.0.2.1:8000", "192.0.2.1/32", "192.0.2.77/24")),
        *((text, False) for text in ("", "192.0.2.2", "192.0.3.0/24", "192.0.2.1:8001", "2.1", "example.com", "::/0")),
    ],
)
def test_what_no_proxy_says_of_an_address(no_proxy: str, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv("HTTP_PROXY", "http://p:3128")
        monkeypatch.setenv(variable, no_proxy)
        assert proxies.of_environment(ELSEWHERE, 8000, tls=False) == (None if named else "http://p:3128")
        monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    ("host", "no_proxy", "named"),
    [
        *(("gpu.example.com", text, True) for text in ("example.com", ".example.com", "*.example.com", "EXAMPLE.COM")),
        *(
            ("gpu.example.com", text, True)
            for text in ("gpu.example.com", "com", "example.com.", "gpu.example.com:8000")
        ),
        *(
            ("gpu.example.com", text, False)
            for text in ("ample.com", "u.example.com", "gpu", "10.0.0.0/8", "example.co")
        ),
        *(("example.com", text, True) for text in (".example.com", "example.com")),
        *(("GPU.Example.Com.", text, True) for text in ("example.com",)),
        *(
            ("2001:db8::1", text, True)
            for text in ("2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:8000", "2001:db8::/32")
        ),
        *(("2001:db8::1", text, False) for text in ("2001:db9::/32", "[2001:db8::1]:1", "0.0.0.0/0", "10.0.0.0/99")),
    ],
)
def test_what_no_proxy_says_of_a_name(host: str, no_proxy: str, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://p:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxies.of_environment(host, 8000, tls=False) == (None if named else "http://p:3128")


def test_with_tls_it_is_another_variable_and_lower_case_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{name}")
    assert proxies.of_environment(ELSEWHERE, 1, tls=False) == "http://HTTP_PROXY"
    assert proxies.of_environment(ELSEWHERE, 1, tls=True) == "http://https_proxy"


def ask(url: str, kind: str, transport: Transport | None = None) -> str:
    """What the client says of a server that nobody reaches."""

    async def from_coroutine() -> None:
        async with AsyncClient(url, timeout_s=1, transport=transport) as client:
            await client.infer("m", INPUTS)

    def from_thread() -> None:
        with Client(url, timeout_s=1, transport=transport) as client:
            client.infer("m", INPUTS)

    with pytest.raises(Exception) as told:
        asyncio.run(from_coroutine()) if kind == "asyncio" else from_thread()
    return str(told.value)


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({"HTTP_PROXY": "http://{}"}, True),
        ({"http_proxy": "{}"}, True),
        ({"http_proxy": "http://{}", "no_grpc_proxy": ELSEWHERE}, True),
        ({"https_proxy": "http://{}", "grpc_proxy": "http://{}"}, False),
        ({"http_proxy": "http://{}", "NO_PROXY": "*"}, False),
        ({"http_proxy": "http://{}", "no_proxy": "192.0.2.0/24"}, False),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_grpc_and_http_ask_the_same_proxy(
    variables: dict[str, str],
    asked: bool,
    scheme: str,
    kind: str,
    proxy: RefusingProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(proxy.address))
    told = ask(f"{scheme}://{ELSEWHERE}:8000", kind)
    assert bool(proxy.seen) == asked
    assert (f"{ELSEWHERE}:8000 through the proxy http://{proxy.address}" in told) == asked
    if asked:
        assert b"192.0.2.1:8000" in proxy.seen[0]
        assert "a server that needs no proxy belongs into no_proxy" in told


@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpcs"])
def test_a_callers_own_proxy_is_asked_whatever_no_proxy_says_and_its_password_is_not_repeated(
    scheme: str, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    told = ask(f"{scheme}://{ELSEWHERE}:8000", "threads", Transport(proxy=f"http://me:s3cret@{proxy.address}"))
    assert b"roxy-" in proxy.seen[0] and b"Basic bWU6czNjcmV0" in proxy.seen[0]
    assert f"through the proxy http://{proxy.address}" in told and "s3cret" not in told


def test_a_call_that_finds_the_server_down_names_the_proxy_too(
    proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.address)
    with Client(f"http://{ELSEWHERE}:8000", timeout_s=1) as client:
        for _ in range(2):
            with pytest.raises(ServerUnavailableError, match=f"through the proxy http://{proxy.address}"):
                client.infer("m", INPUTS)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_proxy_of_the_environment_that_cannot_be_used_is_named_with_its_variable(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC would log a line and ask the server itself."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "socks5://me:s3cret@proxy:1080")
    with pytest.raises(InvalidInputError) as told:
        Client(f"{scheme}://{ELSEWHERE}:8000")
    assert str(told.value).splitlines() == [
        "invalid proxy URL 'socks5://…@proxy:1080', which http_proxy names",
        "Hint: as in http://proxy:3128; a server that needs no proxy belongs into no_proxy",
    ]
