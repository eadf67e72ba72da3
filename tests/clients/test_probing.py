"""Who looks after servers that are down, seen from calls: a failure costs no more than it has to."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from clients import AsyncClient, Client, ClientError, DeadlineExceededError, Prediction
from clients.transports import grpc
from tests.clients.tcp_proxy import TcpProxy, tcp_proxy
from tests.conftest import RunningServer, free_ports, wait_for
from tests.workspace import FAMILY


def test_a_network_that_goes_on_cutting_connections_slows_calls_down_and_ends_none(
    server: RunningServer, images: list[bytes]
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


def test_a_server_that_says_nothing_keeps_no_other_waiting_for_its_probe(
    server: RunningServer, images: list[bytes]
) -> None:
    with (
        tcp_proxy(server.grpc) as silent,
        tcp_proxy(server.grpc) as cut,
        Client(f"grpc://{silent.address}", f"grpc://{cut.address}") as client,
    ):
        for image in images[:8]:
            client.classify(image)
        silent.stall()
        [stalled, _] = client._held.calls.servers.all
        while not stalled.down:
            with suppress(DeadlineExceededError):
                client.classify(images[0], timeout_s=1.1)
        for image in images[:8]:
            cut.cut()
            client.classify(image, timeout_s=5)


def test_a_name_with_several_addresses_shares_the_load_among_them(
    server: RunningServer, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tcp_proxy(server.grpc) as one, tcp_proxy(server.grpc) as other:
        both = f"ipv4:{one.address},{other.address}"
        monkeypatch.setattr(grpc, "_target", lambda address: both)  # as a name would be resolved
        seen = Counter[int]()
        one.see = lambda chunk: seen.update({1: len(chunk) > 200})
        other.see = lambda chunk: seen.update({2: len(chunk) > 200})
        with Client("grpc://nowhere:1") as client:
            wait_for(lambda: client.classify(images[0]) and min(seen[1], seen[2]))  # both are connected
            seen.clear()
            for image in images[:40]:
                client.classify(image)
    assert min(seen[1], seen[2]) > 10, seen


def test_nobody_is_ready_where_nobody_is() -> None:
    with Client(f"grpc://127.0.0.1:{free_ports(1)[0]}") as client:
        assert not client.ready()
        assert not client.ready(FAMILY)


def test_connections_that_died_without_a_word_are_not_tried_one_after_the_other(
    server: RunningServer, images: list[bytes]
) -> None:
    """As where a firewall forgets them: each would cost a probe, a second and a pause."""

    async def from_coroutines(url: str, between: TcpProxy) -> float:
        async with AsyncClient(url, timeout_s=1.5) as client:
            between.delay_s = 0.3  # so that each has a connection of its own
            await asyncio.gather(*(client.classify(image, timeout_s=10) for image in images[:12]))
            between.delay_s, between.silenced, began = 0, between.connections, time.monotonic()
            while True:
                with suppress(ClientError):
                    await client.classify(images[0])
                    return time.monotonic() - began

    def from_threads(url: str, between: TcpProxy) -> float:
        with Client(url, timeout_s=1.5) as client, ThreadPoolExecutor(12) as threads:
            together, between.delay_s = threading.Barrier(12), 0.3
            list(threads.map(lambda image: together.wait() + 1 and client.classify(image, timeout_s=10), images[:12]))
            between.delay_s, between.silenced, began = 0, between.connections, time.monotonic()
            wait_for(lambda: not isinstance(_outcome(client, images[0]), ClientError), 60)
            return time.monotonic() - began

    def outage_s(of: Callable[[str, TcpProxy], float]) -> float:
        with tcp_proxy(server.http) as between:
            took_s = of(f"http://{between.address}", between)
            assert between.silenced >= 12
            return took_s

    with ThreadPoolExecutor(2) as both:
        for took_s in both.map(outage_s, (from_threads, lambda *of: asyncio.run(from_coroutines(*of)))):
            assert took_s < 6  # a request's 1.5 s, a probe or two


def _outcome(client: Client, image: bytes) -> Prediction | ClientError:
    try:
        return client.classify(image)
    except ClientError as error:
        return error
