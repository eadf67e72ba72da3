"""What becomes of a request, with real Tritons behind."""

import asyncio
import signal
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.brain.admission import Admission, Room
from gateway.brain.breaker import Breaker, Rule
from gateway.brain.decide import Brain, Rules
from gateway.brain.endpoints import Endpoints
from gateway.caller import Caller
from gateway.deadline import Deadline
from gateway.errors import Refusal
from gateway.outcome import Asked, Outcome
from gateway.triton.address import Address
from gateway.triton.upstream import Upstream
from tests.deploy.echoes import LENGTH
from tests.gateway import tritons
from tests.gateway.tritons import Running

ANYONE = Caller("k1", "anyone", (("*", "infer"),))


class Open:
    """Lets everybody do everything but ask for `closed`, and counts rows."""

    def __init__(self) -> None:
        self.rows = 0

    async def check(self, authorization: str | None) -> Caller:
        return ANYONE

    def permit(self, caller: Caller, model: str, action: str) -> None:
        if model == "closed":
            raise Refusal(403, "no-scope", "The key does not allow this", "its scopes are others")

    async def spend(self, caller: Caller, model: str, rows: int) -> Mapping[str, str]:
        self.rows += rows
        if self.rows > 1000:
            raise Refusal(429, "quota-exceeded", "The quota is used up", "1,000 rows", retry_after_s=3.0)
        return {"RateLimit": f'"rows";r={1000 - self.rows};t=60'}


@dataclass
class Seen:
    """Keeps what it is told."""

    records: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    lost: int = 0

    def put(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def finished(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def refused(self, door: str, refusal: Refusal, request_id: str) -> None:
        self.refusals.append(refusal)

    def span(self, outcome: Outcome) -> None:
        return None

    def watch(self, read: object) -> None:
        pass


def brain(*running: Running, rules: Rules | None = None) -> tuple[Brain, Seen]:
    """One over these Tritons, and what it has told."""
    seen = Seen()
    endpoints = Endpoints([Upstream(each.address) for each in running])
    return Brain(access=Open(), endpoints=endpoints, spool=seen, metrics=seen, rules=rules), seen


def about(model: str, *, rows: int = 1, priority: int | None = None, timeout_s: float = 30, name: str = "r1") -> Asked:
    """A request to a model."""
    return Asked("raw", model, None, "infer", rows, priority, Deadline.after(timeout_s), name)


async def ask(
    mind: Brain, model: str, value: float = 0.0, *, batch: bool = False, timeout_s: float = 30, priority: int = 2
) -> tuple[int, bytes]:
    """Send one number; the status, and what was said."""
    shape = b"[1,1]" if batch else b"[1]"
    header = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":' + shape + b',"parameters":{"binary_data_size":4}}]}'
    body = header + struct.pack("<f", value)
    async with (
        mind.admitted(ANYONE, about(model, timeout_s=timeout_s, priority=priority)) as admitted,
        await admitted.infer({LENGTH: str(len(header))}, body) as answer,
    ):
        return answer.status, await answer.read()


def test_the_span_of_a_request_that_is_not_let_through_ends(triton: Running) -> None:
    ended: list[int] = []

    class Span:
        traceparent = ""

        def end(self, outcome: Outcome) -> None:
            ended.append(outcome.status)

    async def main() -> None:
        mind, seen = brain(triton, rules=Rules(Room(at_once=1, waiting=1)))
        seen.span = lambda outcome: Span()  # type: ignore[method-assign,assignment]
        first, waiting = (asyncio.create_task(ask(mind, "sleeper", 0.5)) for _ in range(2))
        await asyncio.sleep(0.2)
        with pytest.raises(Refusal, match="overloaded"):
            await ask(mind, "sleeper")
        waiting.cancel()  # its caller goes
        await asyncio.wait([first, waiting])
        await mind.endpoints.close()

    asyncio.run(main())
    assert ended == [503, 499, 200]


def test_a_request_is_answered_recorded_and_counted(triton: Running) -> None:
    async def main() -> tuple[int, Seen]:
        mind, seen = brain(triton)
        status, _ = await ask(mind, "sleeper")
        await mind.endpoints.close()
        return status, seen

    status, seen = asyncio.run(main())
    assert status == 200
    [record] = seen.records
    assert (record["id"], record["model"], record["release"], record["arm"]) == ("r1", "sleeper", "1", "stable")
    assert (record["status"], record["rows"], record["key"], record["door"]) == (200, 1, "k1", "raw")
    assert 0 < record["triton_ms"] <= record["latency_ms"]
    assert [outcome.status for outcome in seen.outcomes] == [200]


@pytest.mark.parametrize(("model", "status"), [("closed", 403), ("none-such", 404)])
def test_who_may_not_or_asks_for_what_is_not_there_pays_no_quota(triton: Running, model: str, status: int) -> None:
    async def main() -> None:
        mind, seen = brain(triton)
        with pytest.raises(Refusal) as refused:
            await ask(mind, model)
        assert refused.value.status == status
        assert (mind.access.rows, seen.records) == (0, [])  # type: ignore[attr-defined]
        await mind.endpoints.close()

    asyncio.run(main())


def test_the_rows_of_a_request_are_what_it_pays(triton: Running) -> None:
    async def main() -> Refusal:
        mind, _ = brain(triton)
        async with mind.admitted(ANYONE, about("pixels", rows=999)) as admitted:
            assert admitted.headers["RateLimit"] == '"rows";r=1;t=60'
        with pytest.raises(Refusal) as refused:
            async with mind.admitted(ANYONE, about("pixels", rows=2)):
                pass
        await mind.endpoints.close()
        return refused.value

    refusal = asyncio.run(main())
    assert refusal.status == 429 and refusal.all_headers["Retry-After"] == "3"


@pytest.mark.heavy
def test_a_triton_that_dies_costs_no_request(triton: Running, tmp_path: Path) -> None:
    with tritons.triton(tritons.repository(tmp_path / "models")) as victim:

        async def main() -> list[int]:
            mind, seen = brain(triton, victim)
            await ask(mind, "queued", batch=True)
            asked = [asyncio.create_task(ask(mind, "queued", 0.05, batch=True)) for _ in range(20)]
            while not mind.endpoints.all[1].upstream.in_flight:
                await asyncio.sleep(0.01)
            victim.kill()
            statuses = [status for status, _ in await asyncio.gather(*asked)]
            assert len(seen.records) == 21
            assert [endpoint.is_up for endpoint in mind.endpoints.all] == [True, False]
            await mind.endpoints.close()
            return statuses

        assert asyncio.run(main()) == [200] * 20


@pytest.mark.slow
@pytest.mark.heavy
def test_a_triton_that_stops_costs_no_request(triton: Running, tmp_path: Path) -> None:
    """It ends what it has begun, and says of the rest that it is exiting, or that its models are not there."""
    with tritons.triton(tritons.repository(tmp_path / "models")) as stopping:

        async def main() -> list[int]:
            mind, seen = brain(triton, stopping)
            mind.access.rows = -(10**9)  # type: ignore[attr-defined]  # as many as it takes
            statuses = []

            async def ask_on() -> None:
                while stopping.process.status() != psutil.STATUS_ZOMBIE:
                    statuses.append((await ask(mind, "queued", batch=True))[0])

            asking = [asyncio.create_task(ask_on()) for _ in range(8)]
            while {str(stopping.address)} - {outcome.endpoint for outcome in seen.outcomes}:
                await asyncio.sleep(0.01)
            stopping.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*asking)
            assert seen.outcomes[-1].endpoint == str(triton.address)
            await mind.endpoints.close()
            return statuses

        statuses = asyncio.run(main())
        assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("streamed", "sequence", "most_kept", "expected"),
    [
        (False, None, 100, [200] * 5),
        (True, None, 100, [200] * 5),
        (True, "s", 100, [200] * 5),
        (True, None, 1, [200, 503, 200, 503, 200]),
    ],
    ids=["whole", "streamed", "of a sequence", "too long to be kept"],
)
def test_a_kept_connection_that_was_closed_costs_no_request_that_is_here(
    streamed: bool, sequence: str | None, most_kept: int, expected: list[int]
) -> None:
    """A server that says keep-alive and closes is there all the same."""

    async def main() -> tuple[list[int], bool]:
        async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"body")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
            await reader.read(1)  # it closes at the moment in which the next request comes
            writer.close()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"bo"
            await asyncio.sleep(0.01)
            yield b"dy"

        server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
        upstreams = [Upstream(Address("127.0.0.1", server.sockets[0].getsockname()[1]))]
        endpoints = Endpoints(upstreams, most_kept)
        statuses = []
        for _ in range(5):
            body, headers = (pieces(), {"Content-Length": "4"}) if streamed else (b"body", {})
            deadline = asyncio.get_running_loop().time() + 5
            try:
                _, answer = await endpoints.infer("/", headers, body, deadline, sequence)
            except Refusal as refusal:
                statuses.append(refusal.status)
                assert endpoints.all[0].is_up
                continue
            async with answer:
                await answer.read()
                statuses.append(answer.status)
        server.close()
        is_up = endpoints.all[0].is_up
        await endpoints.close()
        return statuses, is_up

    assert asyncio.run(main()) == (expected, True)


def test_no_triton_is_said_with_when_to_come_back(tmp_path: Path) -> None:
    async def main() -> Refusal:
        seen = Seen()
        endpoints = Endpoints([Upstream(Address(path=str(tmp_path / "nobody")))])
        mind = Brain(access=Open(), endpoints=endpoints, spool=seen, metrics=seen)
        with pytest.raises(Refusal) as refused:
            await ask(mind, "pixels")
        await endpoints.close()
        return refused.value

    refusal = asyncio.run(main())
    assert (refusal.status, refusal.slug, refusal.all_headers["Retry-After"]) == (503, "server-unavailable", "1")


def test_a_model_that_fails_is_left_alone_and_tried_again(triton: Running) -> None:
    async def main() -> None:
        rules = Rules(breaker=Rule(least=4, pause_s=0.3))
        mind, _ = brain(triton, rules=rules)
        assert [(await ask(mind, "failing", -1.0))[0] for _ in range(4)] == [500] * 4
        with pytest.raises(Refusal, match="fails at present") as refused:
            await ask(mind, "failing", 1.0)
        assert refused.value.status == 503 and refused.value.retry_after_s
        assert (await ask(mind, "sleeper"))[0] == 200  # another model
        await asyncio.sleep(0.35)
        assert (await ask(mind, "failing", 1.0))[0] == 200
        assert mind.gate("failing", "stable")[1].state == "closed"
        await mind.endpoints.close()

    asyncio.run(main())


def test_a_caller_that_goes_frees_its_place(triton: Running) -> None:
    async def main() -> None:
        mind, seen = brain(triton, rules=Rules(room=Room(at_once=1)))
        first = asyncio.create_task(ask(mind, "sleeper", 1.0))
        gate, _ = mind.gate("sleeper", "stable")
        while not (gate.under_way and mind.endpoints.all[0].upstream.in_flight):
            await asyncio.sleep(0.01)
        wait_for_it = asyncio.create_task(ask(mind, "sleeper"))
        while not gate.waiting:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # it is on its way
        first.cancel()
        assert (await wait_for_it)[0] == 200
        assert [outcome.status for outcome in seen.outcomes] == [499, 200]
        assert mind.gate("sleeper", "stable")[0].under_way == 0
        assert mind.endpoints.all[0].upstream.unwanted == 1
        await mind.endpoints.close()

    asyncio.run(main())


def test_the_urgent_go_first_and_the_last_are_told_to_come_back() -> None:
    async def main() -> tuple[list[str], list[str]]:
        gate, order, refused = Admission(Room(at_once=1, waiting=2)), list[str](), list[str]()

        async def one(name: str, priority: int) -> None:
            try:
                await gate.enter(priority, Deadline.after(5))
            except Refusal as refusal:
                refused.append(f"{name} {refusal.status}")
                return
            order.append(name)
            await asyncio.sleep(0.01)
            gate.leave(0.01)

        async with asyncio.TaskGroup() as group:
            for name, priority in (("a", 2), ("low", 3), ("b", 2), ("high", 1), ("late", 3)):
                group.create_task(one(name, priority))
        assert (gate.under_way, gate.waiting) == (0, 0)
        return order, refused

    order, refused = asyncio.run(main())
    assert order == ["a", "high", "b"]
    assert sorted(refused) == ["late 503", "low 503"]


def test_who_could_not_be_answered_in_time_is_told_at_once() -> None:
    async def main() -> None:
        gate = Admission(Room(at_once=1))
        await gate.enter(2, Deadline.after(5))
        gate.leave(1.0)
        await gate.enter(2, Deadline.after(5))
        with pytest.raises(Refusal, match="not be answered in time") as refused:
            await gate.enter(2, Deadline.after(0.5))
        assert refused.value.status == 503
        with pytest.raises(Refusal) as late:
            gate._mean_s = 0.0  # nothing is known of how long it takes
            await gate.enter(2, Deadline.after(0.05))
        assert late.value.status == 504
        assert (gate.under_way, gate.waiting) == (1, 0)

    asyncio.run(main())


def test_half_open_lets_one_through() -> None:
    now = 0.0
    breaker = Breaker(Rule(least=2, pause_s=5), clock=lambda: now)
    for _ in range(2):
        breaker.let_through()
        breaker.count(True)
    assert breaker.state == "open"
    now = 6.0
    breaker.let_through()
    with pytest.raises(Refusal):
        breaker.let_through()
    breaker.count(True)
    assert breaker.state == "open"
    now = 12.0
    breaker.let_through()
    breaker.count(None)  # its caller went: another one may try
    breaker.let_through()
    breaker.count(False)
    assert breaker.state == "closed"


@pytest.mark.parametrize("header", ["0", "-1", "1.5", "1e3", "", "99999999999", "٣", "soon"])
def test_a_timeout_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(Refusal, match="expected a whole number"):
        Deadline.of(header, 30, 300)


def test_a_timeout_is_cut_to_what_is_allowed() -> None:
    assert 0.4 < Deadline.of("500", 30, 300).remaining_s <= 0.5
    assert Deadline.of("999999999", 30, 300).remaining_s <= 300
    assert Deadline.of(None, 30, 300).remaining_s <= 30
