"""A connection to a Triton that is given back: the next request gets its own answer on it, or another connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from gateway.errors import BrokenError, LateError, Refusal
from gateway.triton.address import Address
from gateway.triton.upstream import Upstream
from tests.gateway.tritons import Running

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def with_server(serve: Serve, use: Callable[[Upstream], Awaitable[None]]) -> None:
    """Ask somebody who does what a Triton may do one day."""

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        upstream = Upstream(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
        async with asyncio.timeout(10):
            await use(upstream)
        upstream.close()
        server.close()

    asyncio.run(main())


def said(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def content(upstream: Upstream, path: str = "/v2") -> bytes:
    async with await upstream.get(path, time.monotonic() + 5) as answer:
        return await answer.read()


def test_what_nobody_read_of_an_answer_is_not_in_the_next(triton: Running) -> None:
    async def main() -> None:
        upstream = Upstream(triton.address)
        async with await upstream.get("/v2/models/nobody", time.monotonic() + 5) as answer:
            assert answer.peek() is not None  # all of it is here, and stays where it is
        assert (await content(upstream)).startswith(b'{"name":"triton"')
        upstream.close()

    asyncio.run(main())


def test_a_reader_that_went_away_leaves_nothing_behind() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while await reader.readuntil(b"\r\n\r\n"):
            body = b"%d" % number * 30_000
            writer.write(said(body)[:1000])
            await asyncio.sleep(0.05)
            writer.write(said(body)[1000:])
            number += 1

    async def use(upstream: Upstream) -> None:
        answer = await upstream.get("/", time.monotonic() + 0.3)
        reading = answer.pieces()
        assert (await anext(reading)).startswith(b"0")
        await asyncio.sleep(0.1)  # the rest has come
        answer.release()
        assert await content(upstream) == b"1" * 30_000
        await reading.aclose()  # as the collector of garbage does, some time later
        async with await upstream.get("/", time.monotonic() + 5) as last:
            await asyncio.sleep(0.4)  # the first one's deadline passes
            assert await last.read() == b"2" * 30_000
        assert upstream.in_flight == 0

    with_server(serve, use)


@pytest.mark.parametrize(("pieces", "unwanted"), [(1, 0), (2, 1)])
def test_half_a_request_is_computed_by_nobody(pieces: int, unwanted: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 100
        if pieces == 1:
            raise Refusal(400, "malformed", "It ends in the middle", "of a tensor")
        yield b"x" * 100

    async def use(upstream: Upstream) -> None:
        with pytest.raises((Refusal, LateError)):
            await upstream.infer("/v2", {"Content-Length": "200"}, body(), time.monotonic() + 0.2)
        assert (upstream.in_flight, upstream.unwanted) == (0, unwanted)

    with_server(serve, use)


@pytest.mark.parametrize("size", [300_000, 3_000_000])
def test_after_an_answer_to_half_a_request_the_rest_is_not_taken_for_the_next(size: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /late"):
            writer.write(said(b"late"))
            return
        await reader.readexactly(100_000)
        writer.write(said(b"too large"))
        writer.write(said((await reader.readuntil(b"\r\n\r\n"))[:20]))  # whatever comes next

    async def use(upstream: Upstream) -> None:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(size // 50_000):
                yield bytes(50_000)
                await asyncio.sleep(0.02)

        sent = await upstream.infer("/", {"Content-Length": str(size)}, body(), time.monotonic() + 5)
        assert await sent.read() == b"too large"
        sent.release()
        assert await content(upstream, "/late") == b"late"

    with_server(serve, use)


def test_a_second_answer_to_one_request_is_nobodys() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(said(b"mine") + said(b"whose?"))

    async def use(upstream: Upstream) -> None:
        for _ in range(3):
            with suppress(BrokenError):
                assert await content(upstream) == b"mine"

    with_server(serve, use)


def test_a_process_that_stood_still_does_not_blame_the_triton(triton: Running) -> None:
    async def main() -> None:
        upstream = Upstream(triton.address, connect_s=0.1)
        asking = asyncio.create_task(content(upstream))
        await asyncio.sleep(0)
        time.sleep(0.6)  # as where the machine has no time for it
        assert await asking
        upstream.close()

    asyncio.run(main())
