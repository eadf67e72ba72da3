"""A network that misbehaves before a real Triton: every call ends in time, with its own answer or an error.

A caller's answer is its own if its score is the one that the same image got on a good day.
"""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from clients import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    Prediction,
    ServerUnavailableError,
    Transport,
)
from tests.clients.conftest import PROTOCOLS
from tests.clients.tcp_proxy import TcpProxy, tcp_proxy
from tests.conftest import RunningServer, Workspace, free_ports, port_options, wait_for

TIMEOUT_S = 2.0
SLACK_S = 1.0  # of a machine that is busy


class Call(NamedTuple):
    """One that has ended; times are on the monotonic clock."""

    image: int
    outcome: Prediction | ClientError
    began: float
    ended: float

    @property
    def took_s(self) -> float:
        return self.ended - self.began


@pytest.fixture(params=PROTOCOLS)
def proxy(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[tuple[str, TcpProxy]]:
    """The URL of the server behind a proxy, and that proxy."""
    with tcp_proxy(getattr(server, request.param)) as between:
        yield f"{request.param}://{between.address}", between


def by_threads(url: str, images: list[bytes], seconds: float, timeout_s: float, transport: Transport | None = None):  # type: ignore[no-untyped-def]
    """What came of the calls of eight threads that share a client."""
    until = time.monotonic() + seconds

    def work(client: Client, first: int) -> list[Call]:
        found, number = [], first
        while time.monotonic() < until:
            which, began = number % len(images), time.monotonic()
            try:
                outcome: Prediction | ClientError = client.classify(images[which])
            except ClientError as error:
                outcome = error
                time.sleep(0.01)
            found.append(Call(which, outcome, began, time.monotonic()))
            number += 8
        return found

    with Client(url, timeout_s=timeout_s, transport=transport) as client, ThreadPoolExecutor(8) as pool:
        return [one for found in [pool.submit(work, client, i) for i in range(8)] for one in found.result()]


def by_coroutines(url: str, images: list[bytes], seconds: float, timeout_s: float, transport: Transport | None = None):  # type: ignore[no-untyped-def]
    """Sixty-four coroutines that share one."""

    async def run() -> list[Call]:
        until = time.monotonic() + seconds

        async def work(client: AsyncClient, first: int) -> list[Call]:
            found, number = [], first
            while time.monotonic() < until:
                which, began = number % len(images), time.monotonic()
                try:
                    outcome: Prediction | ClientError = await client.classify(images[which])
                except ClientError as error:
                    outcome = error
                    await asyncio.sleep(0.01)
                found.append(Call(which, outcome, began, time.monotonic()))
                number += 64
            return found

        async with AsyncClient(url, timeout_s=timeout_s, transport=transport) as client:
            every = await asyncio.gather(*(work(client, i) for i in range(64)))
        return [one for found in every for one in found]

    return asyncio.run(run())


@pytest.fixture(params=[by_threads, by_coroutines], ids=["threads", "coroutines"])
def callers(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    return request.param


def verify(found: list[Call], right: list[float], timeout_s: float) -> Counter[str]:
    """Everybody got their own answer or an error, in time; how many of what."""
    for call in found:
        assert call.took_s < timeout_s + SLACK_S, call.outcome
        if isinstance(call.outcome, Prediction):
            assert call.outcome.score == pytest.approx(right[call.image], abs=1e-4)
    return Counter(type(call.outcome).__name__ for call in found)


def succeed_after(found: list[Call], moment: float) -> bool:
    """Whether all calls succeed that were begun after it; and there are some."""
    outcomes = [call.outcome for call in found if call.began > moment]
    return len(outcomes) >= 8 and all(isinstance(outcome, Prediction) for outcome in outcomes)


def during(action: Callable[[], None], after_s: float) -> threading.Thread:
    thread = threading.Timer(after_s, action)
    thread.start()
    return thread


def test_answers_that_are_late_are_still_right(proxy, callers, images: list[bytes], right: list[float]) -> None:  # type: ignore[no-untyped-def]
    url, between = proxy
    between.delay_s = 0.2
    assert set(verify(callers(url, images, 1.5, 10), right, 10)) == {"Prediction"}


def test_connections_that_are_cut_cost_no_request(proxy, callers, images: list[bytes], right: list[float]) -> None:  # type: ignore[no-untyped-def]
    url, between = proxy
    answered = threading.Event()

    def note(chunk: bytes) -> bytes:
        answered.set()
        return chunk

    def cut_what_is_in_use() -> None:
        for _ in range(4):
            answered.clear()
            answered.wait(5)
            between.cut()
            time.sleep(0.5)

    between.change = note
    cuts = during(cut_what_is_in_use, 0.5)
    seen = verify(callers(url, images, 3, 10), right, 10)
    cuts.join()
    assert between.cut_connections >= 4
    assert set(seen) == {"Prediction"}


def test_a_network_that_stalls_ends_calls_at_their_deadline_and_the_next_ones_succeed(  # type: ignore[no-untyped-def]
    proxy, callers, images: list[bytes], right: list[float]
) -> None:
    url, between = proxy
    flowing = time.monotonic() + 4
    stall, flow = during(between.stall, 0.5), during(between.flow, 4)
    found = callers(url, images, 8, TIMEOUT_S)
    stall.join()
    flow.join()
    seen = verify(found, right, TIMEOUT_S)
    assert set(seen) <= {"Prediction", "DeadlineExceededError", "ServerUnavailableError"}
    assert seen["DeadlineExceededError"] >= 8 or seen["ServerUnavailableError"] >= 8
    assert succeed_after(found, flowing + 1.5)  # a probe or two


def test_an_answer_a_byte_at_a_time_does_not_outlast_the_deadline(proxy, images: list[bytes]) -> None:  # type: ignore[no-untyped-def]
    url, between = proxy
    with Client(url, timeout_s=TIMEOUT_S) as client:
        client.classify(images[0])
        between.drip_s = 0.2
        began = time.monotonic()
        with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
            client.classify(images[0])
        assert time.monotonic() - began < TIMEOUT_S + SLACK_S


def test_bytes_that_are_changed_end_in_typed_errors(proxy, callers, images: list[bytes]) -> None:  # type: ignore[no-untyped-def]
    """Without TLS nobody can tell a changed pixel from another one; that nothing breaks or hangs is what can be had."""
    url, between = proxy
    random_ = random.Random(0)

    def change(chunk: bytes) -> bytes:
        changed = bytearray(chunk)
        for _ in range(3):
            changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
        return bytes(changed)

    between.change = change
    found = callers(url, images[:8], 2, TIMEOUT_S)
    assert len(found) >= 8
    assert all(call.took_s < TIMEOUT_S + SLACK_S for call in found)
    between.change = lambda chunk: chunk
    with Client(url) as client:
        assert client.classify(images[0])


def test_a_batch_that_is_looked_through_for_the_bad_image_keeps_its_deadline(
    server: RunningServer, images: list[bytes]
) -> None:
    async def by_coroutine(url: str, batch: list[bytes]) -> list[Prediction | ClientError]:
        async with AsyncClient(url, timeout_s=0.5) as client:
            return [outcome async for outcome in client.classify_many(batch)]

    def by_thread(url: str, batch: list[bytes]) -> list[Prediction | ClientError]:
        with Client(url, timeout_s=0.5) as client:
            return list(client.classify_many(batch))

    for call in (by_thread, lambda url, batch: asyncio.run(by_coroutine(url, batch))):
        with tcp_proxy(server.http) as between:

            def stall_after_a_refusal(chunk: bytes, between: TcpProxy = between) -> bytes:
                if b" 400 " in chunk:
                    between.stall()
                return chunk

            between.change = stall_after_a_refusal
            began = time.monotonic()
            outcomes = call(f"http://{between.address}", [b"no image", *images[:15]])
            assert time.monotonic() - began < 0.5 + SLACK_S
            assert {type(outcome) for outcome in outcomes} == {DeadlineExceededError}


def test_a_server_killed_and_restarted_under_load(
    released: Workspace, callers, images: list[bytes], right: list[float]
) -> None:  # type: ignore[no-untyped-def]
    ports = free_ports()
    released.must("deploy", "up", "--detach", "--repository", released.repository, *port_options(ports))
    try:
        for protocol, port in zip(("http", "grpc"), ports, strict=False):
            pid = json.loads(released.must("deploy", "status", "--json"))["pid"]
            kill = during(lambda pid=pid: os.kill(pid, signal.SIGKILL), 1)  # type: ignore[misc]
            found = callers(f"{protocol}://127.0.0.1:{port}", images, 10, 10)
            kill.join()
            seen = verify(found, right, 10)
            assert set(seen) <= {"Prediction", "ServerUnavailableError", "DeadlineExceededError", "InferenceError"}, (
                seen
            )
            assert seen["Prediction"] > 0.99 * seen.total(), seen
            assert succeed_after(found, max(call.ended for call in found) - 1)
            wait_for(lambda pid=pid: json.loads(released.must("deploy", "status", "--json"))["pid"] != pid)  # type: ignore[misc]
    finally:
        released.must("deploy", "down")
