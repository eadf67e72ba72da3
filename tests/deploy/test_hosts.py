"""What a server may be told to listen on: an address that Triton would misread is translated or refused by name."""

import socket

import pytest

from deploy.errors import SettingsError
from deploy.neighbours import hosts
from deploy.triton import arguments
from deploy.triton.settings import Settings


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name have these addresses."""
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("127.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_host_is_the_address_that_it_names(host: str, address: str) -> None:
    assert hosts.address_of(host) == address


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize(("host", "address"), [("::1", "::1"), ("[::1]", "::1"), ("::", "::"), ("0:0::1", "::1")])
def test_an_ipv6_address_is_one(host: str, address: str) -> None:
    assert hosts.address_of(host) == address


@pytest.mark.parametrize("listed", [("::1", "127.0.0.1"), ("192.0.2.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")])
def test_of_a_names_addresses_one_of_this_machine_is_taken(
    listed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, *listed)
    assert hosts.address_of("this-machine") == "127.0.0.1"


@pytest.mark.parametrize("host", ["", "no.such.host.invalid", "fe80::1%eth0", "a" * 70, "256.1.1.1", "127.0.0.1:80"])
def test_what_is_no_address_is_refused_by_name(host: str) -> None:
    with pytest.raises(SettingsError) as refused:
        hosts.address_of(host)
    assert (host or "an empty host") in str(refused.value) and "\nHint: " in str(refused.value)


def test_an_address_of_another_machine_is_refused_with_what_the_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "192.0.2.1")
    with pytest.raises(SettingsError, match=r"^elsewhere is no address of this machine\nNote: it is 192\.0\.2\.1\n"):
        hosts.address_of("elsewhere")


def test_triton_is_told_an_ipv6_address_in_the_words_of_each_of_its_servers() -> None:
    """`::1` alone binds its HTTP to 255.255.255.255."""
    told = set(arguments._addresses(Settings(host="::1")))
    assert told >= {"--http-address=ipv6:::1", "--metrics-address=ipv6:::1", "--grpc-address=[::1]"}
    told = set(arguments._addresses(Settings(host="127.0.0.1")))
    assert told >= {"--http-address=127.0.0.1", "--metrics-address=127.0.0.1", "--grpc-address=127.0.0.1"}
