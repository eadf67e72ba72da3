"""Requests wait for a Triton that is coming back, as long as they can, and no longer."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.brain.endpoints import Endpoints
from gateway.brain.readiness import Readiness
from gateway.errors import Refusal
from gateway.triton.address import Address
from gateway.triton.upstream import Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DEAD_WORKER = b"Failed to process the request(s): Stub process 'pixels_0_0' is not healthy."
UNKNOWN = b"Request for unknown model: 'pixels' is not found"
STOPPING = b"Server exiting"

Says = Callable[[int], bytes | None]  # the number of the request, from 1 on -> what is sent back; None: it dies of it


def error(status: int, said: bytes) -> bytes:
    return b"HTTP/1.1 %d Other\r\nContent-Length: %d\r\n\r\n%s" % (status, len(said), said)


class Stand:
    """In the place of a Triton: on one port, whether it is there or not."""

    def __init__(self, says: Says = lambda _: OK, *, slow_s: float = 0.0) -> None:
        self.says, self.asked, self.port, self.slow_s = says, 0, 0, slow_s
        self._server: asyncio.Server | None = None

    @property
    def upstream(self) -> Upstream:
        return Upstream(Address("127.0.0.1", self.port))

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                if "/live" in head:
                    said: bytes | None = OK
                else:
                    if head.startswith("POST"):
                        await reader.readexactly(4)
                    self.asked += 1
                    await asyncio.sleep(self.slow_s)
                    said = self.says(self.asked)
                if said is None:
                    break
                head_said, end, body = said.replace(b"\r\n", b"\r\nConnection: close\r\n", 1).partition(b"\r\n\r\n")
                writer.write(head_said + end)
                await asyncio.sleep(0.01)  # its body comes in another segment
                writer.write(body)
                await writer.drain()
                break
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@asynccontextmanager
async def behind(*stands: Stand, restart_s: float = 60.0) -> AsyncIterator[Endpoints]:
    for stand in stands:
        await stand.start()
    endpoints = Endpoints([stand.upstream for stand in stands], restart_s=restart_s)
    try:
        yield endpoints
    finally:
        await endpoints.close()
        for stand in stands:
            await stand.stop()


async def ask(endpoints: Endpoints, timeout_s: float = 5.0, sequence: str | None = None) -> int:
    _, answer = await endpoints.infer("/", {}, b"body", time.monotonic() + timeout_s, sequence)
    async with answer:
        await answer.read()
        return answer.status


async def refused(request: Awaitable[int]) -> tuple[Refusal, float]:
    began = time.monotonic()
    with pytest.raises(Refusal) as found:
        await request
    return found.value, time.monotonic() - began


def test_a_request_waits_for_the_only_server_to_come_back() -> None:
    async def main() -> None:
        only = Stand()
        async with behind(only) as endpoints:
            assert await ask(endpoints) == 200
            await only.stop()
            waiting = [asyncio.create_task(ask(endpoints)) for _ in range(20)]
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in waiting)
            await only.start()
            assert await asyncio.gather(*waiting) == [200] * 20

    asyncio.run(main())


def test_who_cannot_wait_is_told_before_its_deadline_when_to_come_again() -> None:
    async def main() -> None:
        only = Stand()
        async with behind(only) as endpoints:
            assert await ask(endpoints) == 200
            await only.stop()
            refusal, took_s = await refused(ask(endpoints, 0.5))
            assert (refusal.status, refusal.all_headers["Retry-After"]) == (503, "1")
            assert 0.3 < took_s < 0.5
            await only.start()

    asyncio.run(main())


def test_a_server_that_was_never_there_or_is_gone_for_long_is_not_waited_for() -> None:
    async def main() -> None:
        only = Stand()
        async with behind(only, restart_s=0.2) as endpoints:
            await only.stop()
            refusal, took_s = await refused(ask(endpoints))
            assert refusal.status == 503 and took_s < 0.2  # never there
            await only.start()
            assert await ask(endpoints) == 200
            await only.stop()
            refusal, took_s = await refused(ask(endpoints))
            assert refusal.status == 503 and 0.15 < took_s < 1.0
            refusal, took_s = await refused(ask(endpoints))
            assert refusal.status == 503 and took_s < 0.15
            await only.start()

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_request_that_servers_die_of_is_not_sent_for_ever(count: int) -> None:
    async def main() -> int:
        stands = [Stand(lambda _: None) for _ in range(count)]
        async with behind(*stands) as endpoints:
            for endpoint in endpoints.all:
                endpoint.ever_up = True
            refusal, _ = await refused(ask(endpoints, 20.0))
            assert refusal.status == 503
            return sum(stand.asked for stand in stands)

    assert asyncio.run(main()) == 3


def test_a_worker_that_died_costs_no_request() -> None:
    """The model's worker, in a Triton that lives on: it says so, and is given another one."""

    async def main() -> None:
        only = Stand(lambda number: error(500, DEAD_WORKER) if number < 3 else OK)
        async with behind(only) as endpoints:
            assert await ask(endpoints) == 200
        other = Stand()
        async with behind(Stand(lambda _: error(500, DEAD_WORKER)), other) as endpoints:
            assert [await ask(endpoints) for _ in range(4)] == [200] * 4
            assert other.asked == 4

    asyncio.run(main())


def test_a_worker_that_dies_of_a_request_is_said_after_three() -> None:
    async def main() -> None:
        only = Stand(lambda _: error(500, DEAD_WORKER))
        async with behind(only) as endpoints:
            assert await ask(endpoints) == 500
            assert only.asked == 3

    asyncio.run(main())


def test_a_model_that_speaks_of_health_has_answered() -> None:
    async def main() -> None:
        only = Stand(lambda _: error(500, b"the patient is not healthy"))
        async with behind(only) as endpoints:
            assert await ask(endpoints) == 500
            assert only.asked == 1

    asyncio.run(main())


def test_a_model_that_only_the_other_has_is_found_there() -> None:
    """While a new model reaches one server after another."""

    async def main() -> None:
        async with behind(Stand(lambda _: error(400, UNKNOWN)), Stand()) as endpoints:
            for _ in range(4):
                assert await ask(endpoints) == 200
                async with await endpoints.get("/v2/models/pixels", time.monotonic() + 5) as answer:
                    assert answer.status == 200
        async with (
            behind(Stand(lambda _: error(400, UNKNOWN))) as endpoints,
            await endpoints.get("/v2/models/pixels", time.monotonic() + 5) as answer,
        ):
            assert answer.status == 400

    asyncio.run(main())


def test_a_server_that_is_stopping_is_asked_now_and_then_alone() -> None:
    """It answers at once that it does: whoever waits must not ask it again and again."""

    async def main() -> None:
        only = Stand(lambda number: OK if number == 1 else error(503, STOPPING))
        async with behind(only) as endpoints:
            assert await ask(endpoints) == 200
            found = await asyncio.gather(*(refused(ask(endpoints, 1.2)) for _ in range(10)))
            assert {refusal.status for refusal, _ in found} == {503}
            assert only.asked <= 31  # once each, and once more for each look

    asyncio.run(main())


def test_a_server_whose_connections_are_all_in_use_is_there() -> None:
    """One that computes: the look at it must not wait for those that it computes for."""

    async def main() -> None:
        busy = Stand(slow_s=0.5)
        await busy.start()
        upstream = Upstream(Address("127.0.0.1", busy.port), most=1)
        endpoints = Endpoints([upstream])
        asking = asyncio.create_task(ask(endpoints))
        while not busy.asked:
            await asyncio.sleep(0.01)
        report = await Readiness(endpoints).report()
        assert (report.status, report.servers, asking.done()) == (200, (True,), False)
        asking.cancel()
        await asyncio.wait([asking])
        await endpoints.close()
        await busy.stop()

    asyncio.run(main())


@pytest.mark.parametrize("sequence", [None, "s"])
def test_what_was_asked_before_a_server_went_does_not_bring_it_back(sequence: str | None) -> None:
    """A server that stops ends what it has begun: an answer of then is none of one that is there."""

    async def main() -> None:
        stopping = Stand(slow_s=0.1)
        async with behind(stopping) as endpoints:
            early = asyncio.create_task(ask(endpoints, sequence=sequence))
            while not stopping.asked:
                await asyncio.sleep(0.01)
            endpoints.mark_down(endpoints.all[0], "it stops")
            assert await early == 200
            assert not endpoints.all[0].is_up
            assert await ask(endpoints) == 200  # one that was asked since then
            assert endpoints.all[0].is_up

    asyncio.run(main())


def test_a_server_that_says_that_it_stops_is_left_out_whoever_is_told() -> None:
    """A request of a sequence, which nobody else could answer; the others go elsewhere."""

    async def main() -> None:
        async with behind(Stand(lambda _: error(503, STOPPING))) as endpoints:
            assert await ask(endpoints, sequence="s") == 503
            assert not endpoints.all[0].is_up

    asyncio.run(main())
