"""Who looks after servers that are down, seen from calls: a failure costs no more than it has to."""

import time
from collections import Counter
from contextlib import suppress

import pytest

from clients import Client, DeadlineExceededError
from clients.settings import Address
from tests.clients.tcp_proxy import tcp_proxy
from tests.conftest import Served, free_ports


def test_a_network_that_goes_on_cutting_connections_slows_calls_down_and_ends_none(
    server: Served, images: list[bytes]
) -> None:
    """As probes find the server each time, they must not become rare."""
    with tcp_proxy(server.grpc) as between, Client(f"grpc://{between.address}", timeout_s=2) as client:
        took_s = []
        for image in images[:40]:
            between.cut()
            began = time.monotonic()
            client.classify(image)
            took_s.append(time.monotonic() - began)
    assert max(took_s[20:]) < 1, took_s


def test_a_server_that_says_nothing_keeps_no_other_waiting_for_its_probe(server: Served, images: list[bytes]) -> None:
    with (
        tcp_proxy(server.grpc) as silent,
        tcp_proxy(server.grpc) as cut,
        Client(f"grpc://{silent.address}", f"grpc://{cut.address}") as client,
    ):
        for image in images[:8]:
            client.classify(image)
        silent.stall()
        [stalled, _] = client._held._servers.all
        while not stalled.down:
            with suppress(DeadlineExceededError):
                client.classify(images[0], timeout_s=1.1)
        for image in images[:8]:
            cut.cut()
            client.classify(image, timeout_s=1)


def test_a_name_with_several_addresses_shares_the_load_among_them(
    server: Served, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tcp_proxy(server.grpc) as one, tcp_proxy(server.grpc) as other:
        both = f"ipv4:{one.address},{other.address}"
        monkeypatch.setattr(Address, "netloc", both)  # as a name would be resolved
        seen = Counter[int]()
        one.see = lambda chunk: seen.update({1: len(chunk) > 200})
        other.see = lambda chunk: seen.update({2: len(chunk) > 200})
        with Client("grpc://nowhere:1") as client:
            for image in images[:40]:
                client.classify(image)
    assert min(seen[1], seen[2]) > 10, seen


def test_nobody_is_ready_where_nobody_is() -> None:
    with Client(f"grpc://127.0.0.1:{free_ports(1)[0]}") as client:
        assert not client.ready()
        assert not client.ready("fashion")
