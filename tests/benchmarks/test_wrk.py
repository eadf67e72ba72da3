"""The load generator of the peers tells a server that answers right from one that does not, whatever that does."""

import asyncio
import itertools
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import MeasurementError
from benchmarks.peers import wire, wrk
from benchmarks.peers.task import Question
from benchmarks.peers.wrk import Generator, as_measured
from contracts.golden import GoldenRequest

LENGTH = re.compile(rb"Content-Length: (\d+)")
Answer = Callable[[bytes], bytes]  # of a request's body: a whole HTTP response


def question(number: int) -> Question:
    body = b"%d" % number
    request = GoldenRequest("m", {"x": np.array([[body]])}, {"y": np.array([[float(number)]])}, {"y": 1e-3})
    return Question(request, body)


QUESTIONS = [question(number) for number in range(1, 9)]


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def right(body: bytes) -> bytes:
    return ok(b'{"y": [%s.0]}' % body)


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Answer over HTTP in a thread."""

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport, self.received = transport, b""

        def data_received(self, data: bytes) -> None:
            self.received += data
            head, end, body = self.received.partition(b"\r\n\r\n")
            length = LENGTH.search(head)
            if end and length and len(body) >= int(length[1]):
                self.received = b""
                assert isinstance(self.transport, asyncio.Transport)
                said = answer(body)
                if said:
                    self.transport.write(said)
                else:
                    self.transport.close()

    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(loop.create_server(Connection, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        loop.close()


@pytest.fixture
def generator(tmp_path: Path) -> Generator:
    return Generator(QUESTIONS, wire.PLAIN, tmp_path / "requests")


def test_every_answer_is_counted_and_judged(generator: Generator) -> None:
    asked: list[bytes] = []

    def answer(body: bytes) -> bytes:
        asked.append(body)
        return right(body)

    with server(answer) as address:
        alone = generator.closed_loop(address, 1, 1)
        together = generator.closed_loop(address, 16, 1)
    assert alone.different == len(QUESTIONS), "one connection sends the requests in turn"
    assert together.different == wrk.THREADS, "with several, each thread has its own"
    for load in (alone, together):
        assert sum(load.latency_us.values()) == load.answers > 20
        assert 0 < load.p50_ms <= load.p90_ms <= load.p99_ms <= load.most_ms and load.generator_us > 0
    # Beside these are those that were under way at the end, and one each that saw them done.
    assert 2 <= len(asked) - alone.answers - together.answers <= 2 + 1 + 16


def test_last_digits_may_differ_as_in_batches(generator: Generator) -> None:
    count = itertools.count()
    with server(lambda body: ok(b'{"y": [%s.0000%d]}' % (body, next(count) % 10))) as address:
        assert generator.closed_loop(address, 16, 1).different > wrk.THREADS


def wrong_now_and_then() -> Answer:
    count = itertools.count()
    return lambda body: ok(b'{"y": [77.0]}') if next(count) % 50 == 49 else right(body)


def of_another_request() -> Answer:
    """As a batch whose rows are mixed up: each answer is right, and somebody else's."""
    held: list[bytes] = [b"1"]

    def answer(body: bytes) -> bytes:
        held.append(body)
        return right(held.pop(0))

    return answer


def cut_at_a_zero_byte() -> Answer:
    return lambda body: ok(b'{"y": [%s.0]}\0more' % body)


def of_all_in_the_first() -> Answer:
    """As a batch that is not taken apart again: one gets the answers of all, and the others none."""
    count = itertools.count()
    return lambda body: right(body) if next(count) % 50 != 49 else ok(b'{"y": [%s.0, 2.0, 3.0]}' % body)


def of_nothing() -> Answer:
    count = itertools.count()
    return lambda body: right(body) if next(count) % 50 != 49 else ok(b"[]")


def refusing() -> Answer:
    count = itertools.count()
    return lambda body: b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull" if next(count) % 50 == 49 else right(body)


def closing() -> Answer:
    count = itertools.count()
    return lambda body: b"" if next(count) % 50 == 49 else right(body)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (wrong_now_and_then, "a wrong answer: y is 7"),
        (of_another_request, "a wrong answer: y is "),
        (cut_at_a_zero_byte, "not an answer"),
        (of_all_in_the_first, r"a wrong answer: y has shape \[3\], not \[1, 1\]"),
        (of_nothing, "not an answer|without the output"),
        (refusing, "refused with status 503: full"),
        (closing, "requests got no answer: [1-9][0-9]* while reading"),
    ],
)
@pytest.mark.parametrize("connections", [1, 16])
def test_what_is_no_right_answer_is_no_figure(
    answer: Callable[[], Answer], told: str, connections: int, generator: Generator
) -> None:
    with server(answer()) as address, pytest.raises(MeasurementError, match=told):
        generator.closed_loop(address, connections, 1)


@pytest.mark.parametrize("body", [b"[1]", b"[[]]", b"[null]", b'{"y": 1}'])
def test_what_a_server_of_lists_answers_beside_text_is_a_wrong_answer(body: bytes, tmp_path: Path) -> None:
    generator = Generator(QUESTIONS, wire.LISTS, tmp_path / "requests")
    with server(lambda _: ok(body)) as address, pytest.raises(MeasurementError, match="not an answer"):
        generator.ask_once(address)


def test_a_generator_that_does_not_end_is_a_failed_measurement(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stuck := tmp_path / "stuck").write_text("#!/bin/sh\nexec sleep 60\n")
    stuck.chmod(0o755)
    monkeypatch.setattr(generator, "_program", str(stuck))
    monkeypatch.setattr(wrk, "_END_S", -0.8)
    with pytest.raises(MeasurementError, match="did not end within"):
        generator.closed_loop("127.0.0.1:1", 1, 1)


def test_a_server_is_ready_when_it_answers_every_request_right(generator: Generator) -> None:
    told = "within 0 s\nNote: request 7 got an answer without the output 'y'"
    with (
        server(lambda body: right(body) if body != b"8" else ok(b"{}")) as address,
        pytest.raises(MeasurementError, match=told),
    ):
        generator.wait_until_ready(address, 0.1)
    with pytest.raises(MeasurementError, match="no right answer"):
        generator.wait_until_ready(address, 0.1)


def test_the_latencies_that_wrk_makes_up_are_taken_out_again() -> None:
    random_ = random.Random(0)
    for _ in range(50):
        own: dict[int, int] = {}
        for _ in range(300):
            latency = int(random_.lognormvariate(6, 1.2))
            own[latency] = own.get(latency, 0) + 1
        requests, connections = sum(own.values()), random_.choice([1, 4])
        duration_us = random_.randrange(50_000, 400_000)
        made = corrected(own, duration_us // (requests // connections))
        assert as_measured(made, duration_us, requests, connections) == dict(sorted(own.items()))


def corrected(latency_us: dict[int, int], expected: int) -> dict[int, int]:
    """wrk 4's stats_correct."""
    found = dict(latency_us)
    for latency in range(2 * expected, max(found) + 1):
        count, other = found.get(latency, 0), latency - expected
        while count and other > expected:
            found[other] = found.get(other, 0) + count
            other -= expected
    return found
