"""A deadline that passes is nobody's failure, wherever a request is at that moment."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from gateway.brain.breaker import Rule
from gateway.brain.decide import Brain, Rules
from gateway.brain.endpoints import Endpoints
from gateway.errors import LateError, Refusal
from gateway.triton.address import Address
from gateway.triton.upstream import Upstream
from tests.gateway.brain.test_decide import Open, Seen, ask

BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
FAILED = b"HTTP/1.1 500 Other\r\nContent-Length: 2\r\n\r\nno"
_METADATA = {"name": "m", "versions": ["1"]}
_CONFIG = {"name": "m", "max_batch_size": 0, "input": [], "output": []}


def answer(value: object) -> bytes:
    said = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said


class Stand:
    """In the place of a Triton with a model `m`: what it says to requests, and then it says no more."""

    def __init__(self, says: bytes) -> None:
        self.says = says

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET"):
                    writer.write(answer(_CONFIG if b"/config" in head else _METADATA))
                else:
                    writer.write(self.says)
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


@pytest.mark.parametrize(("says", "error"), [(b"", Refusal), (BEGUN, LateError)], ids=["no answer", "half of one"])
def test_a_trial_without_an_answer_closes_no_circuit(says: bytes, error: type[Exception]) -> None:
    stand = Stand(FAILED)

    async def use(mind: Brain, seen: Seen) -> None:
        assert [(await ask(mind, "m"))[0] for _ in range(2)] == [500, 500]
        breaker = mind.gate("m", "stable")[1]
        assert breaker.state == "open"
        await asyncio.sleep(0.12)
        stand.says = says
        with pytest.raises(error):
            await ask(mind, "m", timeout_s=0.05)
        assert breaker.state == "half-open"
        assert [outcome.status for outcome in seen.outcomes] == [500, 500, 504]

    with_stand(stand, use)


def test_callers_in_a_hurry_open_no_circuit_with_half_an_answer() -> None:
    async def use(mind: Brain, seen: Seen) -> None:
        for _ in range(4):
            with pytest.raises(LateError):
                await ask(mind, "m", timeout_s=0.02)
        assert mind.gate("m", "stable")[1].state == "closed"
        assert [record["status"] for record in seen.records] == [504] * 4

    with_stand(Stand(BEGUN), use)
