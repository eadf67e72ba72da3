"""A deadline that passes is nobody's failure, wherever a request is at that moment."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request

from gateway.brain.breaker import Rule
from gateway.brain.decide import Brain, Rules
from gateway.brain.endpoints import Endpoints
from gateway.deadline import Deadline
from gateway.errors import LateError, Refusal
from gateway.raw.app import RawDoor
from gateway.raw.body import Body, Limits
from gateway.triton.address import Address
from gateway.triton.models import Model
from gateway.triton.upstream import Upstream
from gateway.typed import inference, reading
from gateway.typed.inference import Wanted
from gateway.typed.known.catalog import Listed
from gateway.typed.known.releases import Release
from gateway.typed.known.signatures import Signature
from tests.gateway.brain.test_decide import ANYONE, Open, Seen, ask

BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
HEAD = BEGUN.removesuffix(b"half")
FAILED = b"HTTP/1.1 500 Other\r\nContent-Length: 2\r\n\r\nno"
_METADATA = {"name": "m", "versions": ["1"]}
_CONFIG = {"name": "m", "max_batch_size": 0, "input": [], "output": []}


def answer(value: object) -> bytes:
    said = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said


class Stand:
    """In the place of a Triton with a model `m`: what it says to requests, later the rest, and then no more."""

    def __init__(self, says: bytes, rest: bytes = b"", after_s: float = 1.0, *, describes: bool = True) -> None:
        self.says, self.rest, self.after_s, self.describes = says, rest, after_s, describes

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET") and not self.describes:
                    await reader.read()
                elif head.startswith(b"GET"):
                    writer.write(answer(_CONFIG if b"/config" in head else _METADATA))
                else:
                    writer.write(self.says)
                    await asyncio.sleep(self.after_s)
                    writer.write(self.rest)
        except asyncio.IncompleteReadError:
            writer.close()


def with_stand(stand: Stand, use: Callable[[Brain, Seen], Awaitable[None]]) -> None:
    async def main() -> None:
        server = await asyncio.start_server(stand.serve, "127.0.0.1", 0)
        endpoints = Endpoints([Upstream(Address("127.0.0.1", server.sockets[0].getsockname()[1]))])
        seen = Seen()
        rules = Rules(breaker=Rule(least=2, pause_s=0.1))
        await use(Brain(access=Open(), endpoints=endpoints, spool=seen, metrics=seen, rules=rules), seen)
        await endpoints.close()
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize("says", [b"", BEGUN], ids=["no answer", "half of one"])
def test_a_trial_without_an_answer_closes_no_circuit(says: bytes) -> None:
    stand = Stand(FAILED, after_s=0)

    async def use(mind: Brain, seen: Seen) -> None:
        assert [(await ask(mind, "m"))[0] for _ in range(2)] == [500, 500]
        breaker = mind.gate("m", "stable")[1]
        assert breaker.state == "open"
        await asyncio.sleep(0.12)
        stand.says = says
        with pytest.raises((LateError, Refusal)):
            await ask(mind, "m", timeout_s=0.5)
        assert breaker.state == "half-open"
        assert [outcome.status for outcome in seen.outcomes] == [500, 500, 504]

    with_stand(stand, use)


def test_callers_in_a_hurry_open_no_circuit_with_half_an_answer() -> None:
    async def use(mind: Brain, seen: Seen) -> None:
        for _ in range(2):  # as many failures as open it
            with pytest.raises((LateError, Refusal)):  # the latter where a busy machine has no half of it in time
                await ask(mind, "m", timeout_s=0.5)
        assert mind.gate("m", "stable")[1].state == "closed"
        assert [record["status"] for record in seen.records] == [504] * 2

    with_stand(Stand(BEGUN), use)


async def through_the_raw_door(mind: Brain, pause_s: float = 10) -> list[dict[str, Any]]:
    """Ask with a deadline of 700 ms; what is sent to the caller."""
    said: list[dict[str, Any]] = []
    content = b'{"inputs":[]}'
    headers = {
        "inference-header-content-length": str(len(content)),
        "content-length": str(len(content)),
        "request-timeout-ms": "700",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    scope = {
        "method": "POST",
        "raw_path": b"/v2/models/m/infer",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await RawDoor(mind, Limits(pause_s=pause_s))(scope, receive, send)
    return said


def test_an_answer_of_which_nothing_came_in_time_is_504() -> None:
    async def use(mind: Brain, seen: Seen) -> None:
        [start, _] = await through_the_raw_door(mind)
        assert start["status"] == 504
        assert [record["status"] for record in seen.records] == [504]

    with_stand(Stand(HEAD), use)


def test_an_answer_that_began_in_time_may_end_a_little_later() -> None:
    async def use(mind: Brain, seen: Seen) -> None:
        start, *pieces = await through_the_raw_door(mind)
        assert (start["status"], b"".join(piece["body"] for piece in pieces)) == (200, b"half a word")
        assert not pieces[-1].get("more_body")
        assert [record["status"] for record in seen.records] == [200]

    with_stand(Stand(BEGUN.replace(b"10", b"11"), b" a word"), use)


def test_an_answer_that_never_ends_is_broken_off() -> None:
    async def use(mind: Brain, seen: Seen) -> None:
        async with asyncio.timeout(10):
            _, *pieces = await through_the_raw_door(mind, pause_s=0.1)
        assert [piece["more_body"] for piece in pieces] == [True]  # there is no last one
        assert mind.gate("m", "stable")[0].under_way == 0

    with_stand(Stand(BEGUN), use)


def test_an_answer_in_chunks_without_a_chunk_is_none() -> None:
    async def use(mind: Brain, seen: Seen) -> None:
        [start, _] = await through_the_raw_door(mind)
        assert start["status"] == 502
        assert [record["status"] for record in seen.records] == [502]

    with_stand(Stand(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n", after_s=0.05), use)


@pytest.mark.parametrize("says", [HEAD, BEGUN], ids=["its head", "half of it"])
def test_the_typed_door_records_what_it_says(says: bytes) -> None:
    async def use(mind: Brain, seen: Seen) -> None:
        listed = Listed(Signature(Model("m", "1", ("1",), 0, (), (), {}), "M", None, ()), Release())
        with pytest.raises(Refusal) as refused:
            await inference.ask(mind, listed, {}, 1, Wanted(ANYONE, Deadline.after(0.7), "r1"))
        assert refused.value.status == 504
        assert [record["status"] for record in seen.records] == [504]

    with_stand(Stand(says), use)


def test_a_server_that_does_not_say_what_a_model_is_costs_no_more_than_the_deadline() -> None:
    async def use(mind: Brain, seen: Seen) -> None:
        async with asyncio.timeout(2):
            with pytest.raises(Refusal) as refused:
                await mind.model(ANYONE, "m", None, "infer", Deadline.after(0.1))
        assert refused.value.status == 504

    with_stand(Stand(b"", describes=False), use)


def test_a_body_that_stops_holds_nothing_beyond_its_deadline() -> None:
    """At both doors; the raw one may hold a place by then."""

    async def receive() -> dict[str, Any]:
        if not sent:
            sent.append(b"half")
            return {"type": "http.request", "body": b"half", "more_body": True}
        await asyncio.sleep(30)
        raise AssertionError("nobody waits so long")

    async def raw() -> None:
        async for _ in Body(receive, 8, Limits(), Deadline.after(0.05)).pieces(8):
            pass

    async def typed() -> None:
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        await reading.body(request, 100, Deadline.after(0.05))

    sent: list[bytes] = []
    for read in (raw, typed):
        sent.clear()
        with pytest.raises(Refusal) as refused:
            asyncio.run(read())
        assert (refused.value.status, refused.value.slug, sent) == (408, "slow-request", [b"half"])
