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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple, Protocol

import pytest

from clients import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    Prediction,
    ServerUnavailableError,
)
from tests.clients.conftest import PROTOCOLS
from tests.clients.tcp_proxy import TcpProxy, tcp_proxy
from tests.conftest import RunningServer, Workspace, free_ports, port_options, wait_for

TIMEOUT_S = 2.0
SLACK_S = 1.0  # of a machine that is busy
THINKS_S = {8: 0.08, 64: 0.5}  # a caller, after each call, by how many callers there are: some 100 calls a second


class Call(NamedTuple):
    """One that has ended; times are on the monotonic clock."""

    image: int
    outcome: Prediction | ClientError
    began: float
    ended: float

    @property
    def took_s(self) -> float:
        return self.ended - self.began


def by_threads(
    url: str, images: list[bytes], seconds: float, timeout_s: float, answered: Callable[[], None] = lambda: None
) -> list[Call]:
    """What came of the calls of eight threads that share a client."""
    until = time.monotonic() + seconds

    def work(client: Client, first: int) -> list[Call]:
        found, number = [], first
        while time.monotonic() < until:
            which, began = number % len(images), time.monotonic()
            try:
                outcome: Prediction | ClientError = client.classify(images[which])
                answered()
            except ClientError as error:
                outcome = error
            found.append(Call(which, outcome, began, time.monotonic()))
            number += 8
            time.sleep(THINKS_S[8])
        return found

    with Client(url, timeout_s=timeout_s) as client, ThreadPoolExecutor(8) as pool:
        return [one for found in [pool.submit(work, client, i) for i in range(8)] for one in found.result()]


def by_coroutines(
    url: str, images: list[bytes], seconds: float, timeout_s: float, answered: Callable[[], None] = lambda: None
) -> list[Call]:
    """Sixty-four coroutines that share one."""

    async def run() -> list[Call]:
        until = time.monotonic() + seconds

        async def work(client: AsyncClient, first: int) -> list[Call]:
            found, number = [], first
            while time.monotonic() < until:
                which, began = number % len(images), time.monotonic()
                try:
                    outcome: Prediction | ClientError = await client.classify(images[which])
                    answered()
                except ClientError as error:
                    outcome = error
                found.append(Call(which, outcome, began, time.monotonic()))
                number += 64
                await asyncio.sleep(THINKS_S[64])
            return found

        async with AsyncClient(url, timeout_s=timeout_s) as client:
            every = await asyncio.gather(*(work(client, i) for i in range(64)))
        return [one for found in every for one in found]

    return asyncio.run(run())


Callers = Callable[..., list[Call]]
CALLERS: dict[str, Callers] = {"threads": by_threads, "coroutines": by_coroutines}


class Way(NamedTuple):
    """One of the four ways to call: from what, over which protocol, through a proxy of its own."""

    name: str  # "grpc, threads"
    url: str
    proxy: TcpProxy
    callers: Callers


class EveryWay(Protocol):
    """Runs a check on all four ways to call, so many at the same time."""

    def __call__(self, check: Callable[[Way], None], at_once: int = 4) -> None: ...


@pytest.fixture
def every_way(server: RunningServer) -> EveryWay:
    """Runs a check on all four ways at the same time, as most of it is waiting; the first that fails is named."""

    def run(check: Callable[[Way], None], at_once: int = 4) -> None:
        with ExitStack() as proxies, ThreadPoolExecutor(at_once) as together:
            ways = [
                Way(f"{protocol}, {of}", f"{protocol}://{between.address}", between, callers)
                for protocol in PROTOCOLS
                for of, callers in CALLERS.items()
                for between in [proxies.enter_context(tcp_proxy(getattr(server, protocol)))]
            ]
            for way, checked in [(way, together.submit(check, way)) for way in ways]:
                if error := checked.exception():
                    raise AssertionError(f"{way.name}: {error}") from error

    return run


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


def test_answers_that_are_late_are_still_right(every_way: EveryWay, images: list[bytes], right: list[float]) -> None:
    def check(way: Way) -> None:
        way.proxy.delay_s = 0.2
        assert set(verify(way.callers(way.url, images, 1.5, 10), right, 10)) == {"Prediction"}

    every_way(check)


def refused(server: RunningServer) -> int:
    """How many requests the server's queues were too full for, so far."""
    models = json.loads(server.workspace.must("deploy", "status", "--json"))["models"]
    return sum(model.get("failures_by_reason", {}).get("REJECTED", 0) for model in models)


def test_connections_that_are_cut_cost_no_request(
    every_way: EveryWay, server: RunningServer, images: list[bytes], right: list[float]
) -> None:
    before = refused(server)

    def check(way: Way) -> None:
        answered = threading.Event()

        def cut_what_is_in_use() -> None:
            # After an answer each, however long that takes on a busy machine: a call that is cut twice with none in
            # between may have to be paid for.
            for _ in range(4):
                answered.clear()
                if not answered.wait(30):
                    return
                way.proxy.cut()
                time.sleep(0.5)

        cuts = during(cut_what_is_in_use, 0.5)
        seen = verify(way.callers(way.url, images, 6, 10, answered.set), right, 10)
        cuts.join()
        assert way.proxy.cut_connections >= 4
        # What is cut stays in the queue of a server that has no time, where it may take the place of another.
        assert set(seen) == {"Prediction"} or (
            set(seen) == {"Prediction", "OverloadedError"} and refused(server) > before
        )

    every_way(check)


def test_a_network_that_stalls_ends_calls_at_their_deadline_and_the_next_ones_succeed(
    every_way: EveryWay, images: list[bytes], right: list[float]
) -> None:
    def check(way: Way) -> None:
        flowing = time.monotonic() + 4
        stall, flow = during(way.proxy.stall, 0.5), during(way.proxy.flow, 4)
        found = way.callers(way.url, images, 8, TIMEOUT_S)
        stall.join()
        flow.join()
        seen = verify(found, right, TIMEOUT_S)
        assert set(seen) <= {"Prediction", "DeadlineExceededError", "ServerUnavailableError"}
        assert seen["DeadlineExceededError"] >= 8 or seen["ServerUnavailableError"] >= 8
        assert succeed_after(found, flowing + 1.5)  # a probe or two

    every_way(check, at_once=1)  # what stood still comes at once, and a queue of the server has 64 places


def test_an_answer_a_byte_at_a_time_does_not_outlast_the_deadline(every_way: EveryWay, images: list[bytes]) -> None:
    """Of a client that is connected and knows the model."""

    async def ask(way: Way) -> float:
        async with AsyncClient(way.url, timeout_s=TIMEOUT_S) as client:
            await client.classify(images[0])
            way.proxy.drip_s, began = 0.2, time.monotonic()
            with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
                await client.classify(images[0])
            return time.monotonic() - began

    def check(way: Way) -> None:
        if way.callers is by_coroutines:
            assert asyncio.run(ask(way)) < TIMEOUT_S + SLACK_S
            return
        with Client(way.url, timeout_s=TIMEOUT_S) as client:
            client.classify(images[0])
            way.proxy.drip_s, began = 0.2, time.monotonic()
            with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
                client.classify(images[0])
            assert time.monotonic() - began < TIMEOUT_S + SLACK_S

    every_way(check)


def test_bytes_that_are_changed_end_in_typed_errors(every_way: EveryWay, images: list[bytes]) -> None:
    """Without TLS nobody can tell a changed pixel from another one; that nothing breaks or hangs is what can be had."""

    def check(way: Way) -> None:
        random_ = random.Random(0)

        def change(chunk: bytes) -> bytes:
            changed = bytearray(chunk)
            for _ in range(3):
                changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
            return bytes(changed)

        way.proxy.change = change
        found = way.callers(way.url, images[:8], 2, TIMEOUT_S)
        assert len(found) >= 8
        assert all(call.took_s < TIMEOUT_S + SLACK_S for call in found)
        way.proxy.change = lambda chunk: chunk
        with Client(way.url) as client:
            assert client.classify(images[0])

    every_way(check)


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


def test_a_server_killed_and_restarted_under_load(released: Workspace, images: list[bytes], right: list[float]) -> None:
    for config in released.repository.rglob("*.pbtxt"):  # all callers come back at once: none is to be refused
        config.write_text(config.read_text().replace("max_queue_size: 64", "max_queue_size: 512"))
    released.seal()
    ports = free_ports()
    released.must("deploy", "up", "--detach", "--repository", released.repository, *port_options(ports))
    try:
        urls = [f"{protocol}://127.0.0.1:{port}" for protocol, port in zip(("http", "grpc"), ports, strict=False)]
        pid = json.loads(released.must("deploy", "status", "--json"))["pid"]
        ways = [(url, callers) for url in urls for callers in CALLERS.values()]
        answered = [threading.Semaphore(0) for _ in ways]

        def kill() -> None:
            # However busy the machine: not before the crowd that connects at once is through. A server that has never
            # responded to a client is not waited for, nor is a second outage without an answer in between.
            for answers, callers in zip(answered, (8, 64) * 2, strict=True):
                assert all(answers.acquire(timeout=30) for _ in range(callers))
            os.kill(pid, signal.SIGKILL)

        with ThreadPoolExecutor(5) as together:
            killed = together.submit(kill)
            calls = [
                together.submit(callers, url, images, 10, 10, answers.release)
                for (url, callers), answers in zip(ways, answered, strict=True)
            ]
            every = [call.result() for call in calls]
        killed.result()
        for (url, callers), found in zip(ways, every, strict=True):
            seen = verify(found, right, 10)
            assert set(seen) <= {"Prediction", "ServerUnavailableError", "DeadlineExceededError", "InferenceError"}, (
                url,
                callers,
                seen,
            )
            failed = [call for call in found if isinstance(call.outcome, ClientError)]
            assert len(failed) < 0.01 * len(found), (url, callers, seen, failed[:3])
            assert succeed_after(found, max(call.ended for call in found) - 1), (url, callers)
        wait_for(lambda: json.loads(released.must("deploy", "status", "--json"))["pid"] != pid)
    finally:
        released.must("deploy", "down")
