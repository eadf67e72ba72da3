"""An Idempotency-Key is never blocked by its own caller, who may go at any moment: in a real Redis."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from gateway.errors import Refusal
from gateway.typed.idempotency import InMemory, InRedis, Keeper, Place, place
from tests.redis_server import RedisServer


def with_redis(server: RedisServer, use: Callable[[InRedis], Awaitable[None]]) -> None:
    async def main() -> None:
        keeper = InRedis(server.url, keep_s=60, wait_s=20)
        try:
            await placed(keeper, "warm")  # so that there is a connection
            await use(keeper)
        finally:
            await keeper.aclose()
            redis.Redis(port=server.port).flushall()

    asyncio.run(main())


async def placed(keeper: Keeper, key: str = "order 7") -> Place:
    return await place(keeper, key, "shop", "/predict", b"body")


async def gone_meanwhile(server: RedisServer, what: Coroutine[Any, Any, Any]) -> None:
    """Its caller goes after it was sent, and before Redis answers."""
    with server.stopped():
        task = asyncio.create_task(what)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.3)


@contextmanager
def in_progress() -> Iterator[None]:
    with pytest.raises(Refusal) as error:
        yield
    assert error.value.slug == "in-progress"


def test_who_goes_before_the_answer_may_come_again(redis_server: RedisServer) -> None:
    async def use(keeper: InRedis) -> None:
        await gone_meanwhile(redis_server, placed(keeper))
        assert (await placed(keeper)).answer is None
        with in_progress():
            await placed(keeper)

    with_redis(redis_server, use)


def test_who_goes_while_the_answer_is_kept_finds_it(redis_server: RedisServer) -> None:
    async def use(keeper: InRedis) -> None:
        await gone_meanwhile(redis_server, (await placed(keeper)).keep(b"answer", {"x-request-id": "1"}))
        again = (await placed(keeper)).answer
        assert again is not None and (again.body, again.headers) == (b"answer", {"x-request-id": "1"})

    with_redis(redis_server, use)


def test_who_goes_while_a_place_is_given_back_has_given_it(redis_server: RedisServer) -> None:
    async def use(keeper: InRedis) -> None:
        await gone_meanwhile(redis_server, (await placed(keeper)).give_back())
        assert (await placed(keeper)).answer is None

    with_redis(redis_server, use)


def test_nobody_gives_anothers_place_back(redis_server: RedisServer) -> None:
    async def use(keeper: Keeper) -> None:
        first = await placed(keeper)
        await first.give_back()
        await placed(keeper)
        await first.give_back()  # late
        with in_progress():
            await placed(keeper)

    asyncio.run(use(InMemory(60, 1000)))
    with_redis(redis_server, use)


def test_a_thousand_at_once_share_a_few_connections(redis_server: RedisServer) -> None:
    with redis.Redis(port=redis_server.port) as looking:

        def connected() -> int:
            return int(looking.info("clients")["connected_clients"])

        async def use(keeper: InRedis) -> None:
            found = await asyncio.gather(*(placed(keeper, f"order {number}") for number in range(1000)))
            assert all(each.answer is None for each in found)
            assert connected() < before + 20

        before = connected()
        with_redis(redis_server, use)
        assert connected() < before + 3, "they are closed"


def test_a_redis_that_hangs_is_not_waited_for_by_every_request(redis_server: RedisServer) -> None:
    async def main() -> None:
        keeper = InRedis(redis_server.url, keep_s=60, wait_s=0.2)
        try:
            await placed(keeper, "warm")
            with redis_server.stopped():
                first = await placed(keeper, "first")  # finds out
                began = time.monotonic()
                for number in range(20):
                    await (await placed(keeper, f"next {number}")).keep(b"answer", {})
                assert time.monotonic() - began < 0.5
                assert first.answer is None
            await asyncio.sleep(1.1)
            await (await placed(keeper, "later")).keep(b"answer", {})
            assert (await placed(keeper, "later")).answer is not None
        finally:
            await keeper.aclose()
            redis.Redis(port=redis_server.port).flushall()

    asyncio.run(main())
