"""Idempotency keys: a request that is sent again with the same key gets the first one's answer, and is counted once.

The key is the caller's, and of one path. The second of two at the same time is told so (409); a key that comes with
another body is refused (422). Only answers with a status of 200 are kept: what failed may be tried again. They are
kept in memory, or in Redis for several processes.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgpack  # type: ignore[import-untyped]  # has no types
from redis import asyncio as redis
from redis.asyncio import BlockingConnectionPool

from gateway.refusals import IN_PROGRESS, MALFORMED, REUSED

HEADER, REPLAYED = "idempotency-key", "idempotency-replayed"
_MOST_CHARACTERS = 255
_CONNECTIONS = 16  # to Redis
_AGAIN_S = 1.0  # after which a Redis that was gone is asked again
_CLAIM_S = 330.0  # longer than any deadline: whose process ends without a word blocks it no longer
# Deletes a place that is still of who took it.
_DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_T = TypeVar("_T")
_under_way: set[asyncio.Task[Any]] = set()
log = logging.getLogger("gateway.typed")


@dataclass(frozen=True)
class Kept:
    """An answer, or the place of one that is on its way.

    Attributes:
        fingerprint: SHA-256 of the request's body.
        body: None: it is on its way.
        token: Of who took the place, and of nobody else.
    """

    fingerprint: bytes
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    token: bytes = b""


class Keeper(Protocol):
    """Where answers are kept."""

    async def claim(self, name: str, kept: Kept) -> Kept | None:
        """Take the place of an answer that is to come; return what is there, if anything is."""

    async def put(self, name: str, kept: Kept) -> None:
        """Keep an answer in its place."""

    async def drop(self, name: str, kept: Kept) -> None:
        """Give a place back, unless it is another's by now."""


class InMemory:
    """Answers of this process; the oldest go when there are too many."""

    def __init__(self, keep_s: float, most_bytes: int) -> None:
        self._keep_s, self._most_bytes, self._size = keep_s, most_bytes, 0
        self._kept: OrderedDict[str, tuple[Kept, float]] = OrderedDict()

    async def claim(self, name: str, kept: Kept) -> Kept | None:
        """As of Keeper."""
        found = self._kept.get(name)
        if found is not None and time.monotonic() < found[1]:
            return found[0]
        self._set(name, kept, _CLAIM_S)
        return None

    async def put(self, name: str, kept: Kept) -> None:
        """As of Keeper."""
        self._set(name, kept, self._keep_s)

    async def drop(self, name: str, kept: Kept) -> None:
        """As of Keeper."""
        if (found := self._kept.get(name)) is not None and found[0] == kept:
            del self._kept[name]  # a place has no size

    def _set(self, name: str, kept: Kept, seconds: float) -> None:
        if (before := self._kept.pop(name, None)) is not None:
            self._size -= len(before[0].body or b"")
        self._kept[name] = kept, time.monotonic() + seconds
        self._size += len(kept.body or b"")
        while self._size > self._most_bytes or len(self._kept) > 100_000:
            _, (oldest, _) = self._kept.popitem(last=False)
            self._size -= len(oldest.body or b"")


class InRedis:
    """Answers of all processes. Where Redis is gone, a request is answered as if it had no key."""

    def __init__(self, url: str, keep_s: float, wait_s: float = 1.0) -> None:
        wait = {"timeout": wait_s, "socket_timeout": wait_s, "socket_connect_timeout": wait_s}
        # Bounded: redis-py's own pool opens a connection for each of a thousand requests at once.
        pool = BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, **wait)
        self._redis: Any = redis.Redis.from_pool(pool)
        self._keep_s, self._wait_s, self._asked_again_at = keep_s, wait_s, 0.0
        self._claimed: set[bytes] = set()  # tokens; a Redis that is frozen does later what it was asked

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def claim(self, name: str, kept: Kept) -> Kept | None:
        """As of Keeper."""
        if time.monotonic() < self._asked_again_at:  # not every request waits until it is sure that nobody is there
            return None
        self._claimed.add(kept.token)

        async def claimed() -> bytes | None:
            if await self._redis.set(name, _packed(kept), nx=True, px=int(_CLAIM_S * 1e3)):
                return None
            found: bytes | None = await self._redis.get(name)
            return found

        found = await self._ask(claimed, "a retry would not be known")
        there = _unpacked(found) if found else None
        if there is not None and there != kept:
            self._claimed.discard(kept.token)
        return None if there == kept else there  # its own: sent again by the client, as the answer was late

    async def put(self, name: str, kept: Kept) -> None:
        """As of Keeper."""
        if kept.token not in self._claimed:
            return
        self._claimed.discard(kept.token)
        packed, keep_ms = _packed(kept), int(self._keep_s * 1e3)
        await self._ask(lambda: self._redis.set(name, packed, px=keep_ms), "an answer was not kept")

    async def drop(self, name: str, kept: Kept) -> None:
        """As of Keeper."""
        if kept.token in self._claimed:
            self._claimed.discard(kept.token)
            await self._ask(lambda: self._redis.eval(_DROP, 1, name, _packed(kept)), "a place was not given back")

    async def _ask(self, ask: Callable[[], Awaitable[_T]], otherwise: str) -> _T | None:
        """Ask Redis; None where it is gone."""
        try:
            async with asyncio.timeout(self._wait_s):
                return await ask()
        except (redis.RedisError, OSError, TimeoutError) as error:
            self._asked_again_at = time.monotonic() + _AGAIN_S
            log.warning("idempotency: Redis is gone, %s: %s", otherwise, type(error).__name__)
            return None


@dataclass(frozen=True)
class Place:
    """Where the answer to a request with a key belongs, or already is.

    A caller that goes meanwhile disturbs neither: else its own next try would find a request under way, for minutes.

    Attributes:
        claim: What holds the place.
        answer: Of the first one; None: this is the first.
    """

    keeper: Keeper
    name: str
    claim: Kept
    answer: Kept | None = None

    async def keep(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep the answer."""
        kept = Kept(self.claim.fingerprint, body, dict(headers), self.claim.token)
        await asyncio.shield(_begun(self.keeper.put(self.name, kept)))

    async def give_back(self) -> None:
        """Let another try be a first one."""
        await asyncio.shield(_begun(self.keeper.drop(self.name, self.claim)))


async def place(keeper: Keeper, key: str, caller_id: str | None, path: str, body: bytes) -> Place:
    """Find the place of the answer to a request with this Idempotency-Key.

    Raises:
        Refusal: the key cannot be read, another request has it, or its own is still under way.
    """
    if not (1 <= len(key) <= _MOST_CHARACTERS and key.isascii() and key.isprintable()):
        raise MALFORMED(f"{HEADER} is 1 to {_MOST_CHARACTERS} printable characters")
    whole = "\n".join((caller_id or "", path, key))
    name = f"gateway/idempotency/{hashlib.sha256(whole.encode()).hexdigest()}"
    claim = Kept(hashlib.sha256(body).digest(), token=os.urandom(8))
    claiming = _begun(keeper.claim(name, claim))
    try:
        there = await asyncio.shield(claiming)
    except asyncio.CancelledError:  # its caller has gone; the place may be taken only now
        claiming.add_done_callback(lambda _: _begun(keeper.drop(name, claim)))
        raise
    if there is None:
        return Place(keeper, name, claim)
    if there.fingerprint != claim.fingerprint:
        raise REUSED("the request that came with it first had another body")
    if there.body is None:
        raise IN_PROGRESS("the first request with this Idempotency-Key has no answer yet", retry_after_s=1.0)
    return Place(keeper, name, claim, there)


def _begun(what: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Begin it, whoever waits for its end; the loop itself holds tasks only weakly."""
    task = asyncio.get_running_loop().create_task(what)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return task


def _packed(kept: Kept) -> bytes:
    return bytes(msgpack.packb([kept.fingerprint, kept.body, dict(kept.headers), kept.token]))


def _unpacked(packed: bytes) -> Kept:
    return Kept(*msgpack.unpackb(packed))
