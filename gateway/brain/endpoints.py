"""Several Tritons: which one a request goes to, and which of them are there.

A request goes to the one with the fewest under way. One that cannot be reached is left out until it says that it is
ready again; a request that met it goes to another one.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.errors import GoneError, Refusal, UpstreamError
from gateway.triton.connection import Body
from gateway.triton.upstream import Answer, Upstream

PROBE_S = 0.5  # between two looks at one that is down
_LONGEST_PROBE_S = 2.0
# What one says for whom another one may do it: core/src/server.cc with 503, model_repository_manager.cc with 400.
_STOPPING = (b"Server exiting", b"Server not ready", b"Server is stopping")
_NOT_HERE = b"Request for unknown model"
log = logging.getLogger("gateway.brain")


@dataclass
class Endpoint:
    """A Triton, and whether it is there."""

    upstream: Upstream
    down_since: float | None = None
    turn: int = field(default=0)  # when it was asked last: of two as busy, the other one

    @property
    def is_up(self) -> bool:
        """Whether it is asked."""
        return self.down_since is None


class Replay:
    """A body that can be sent again, as far as it is kept: up to `most` bytes of one that is streamed.

    Args:
        once: It belongs to a sequence: a second time is not the same.
    """

    def __init__(self, body: Body, most: int, *, once: bool) -> None:
        self._body, self._most, self._once = body, most, once
        self._kept: list[bytes] | None = []
        self._size = 0

    @property
    def is_possible(self) -> bool:
        """Whether all that was sent of it can be sent again."""
        return self._kept is not None and not self._once

    def again(self) -> Body:
        """Return the body from its start."""
        return self._body if isinstance(self._body, bytes) else self._pieces(self._body)

    async def _pieces(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        for piece in list(self._kept or ()):
            yield piece
        async for piece in body:
            self._size += len(piece)
            if self._kept is not None and self._size <= self._most:
                self._kept.append(piece)
            else:
                self._kept = None
            yield piece


class Endpoints:
    """The Tritons behind the gateway.

    Args:
        most_kept: Bytes of a streamed body that are kept until its answer begins, to be sent to another Triton.
    """

    def __init__(self, upstreams: Sequence[Upstream], most_kept: int = 1024 * 1024) -> None:
        self.all = [Endpoint(upstream) for upstream in upstreams]
        self._most_kept = most_kept
        self._turn = 0
        self._probing: asyncio.Task[None] | None = None

    def up(self) -> list[Endpoint]:
        """Those that are there."""
        return [endpoint for endpoint in self.all if endpoint.is_up]

    async def infer(
        self, path: str, headers: Mapping[str, str], body: Body, deadline: float, sequence: str | None = None
    ) -> tuple[Endpoint, Answer]:
        """Ask one, and another one if that is gone.

        Args:
            sequence: All requests with the same one go to one Triton, which keeps its state, and nowhere else.

        Raises:
            Refusal: 503: none is there, or the one that was asked went with a body that was not kept.
            UpstreamError: another one than GoneError, which says nothing of the others.
        """
        replay = Replay(body, self._most_kept, once=sequence is not None)
        tried: set[int] = set()
        while (endpoint := self._keeper(sequence, tried) if sequence else self._choose(tried)) is not None:
            tried.add(id(endpoint))
            try:
                answer = await self._ask(endpoint, path, headers, replay, deadline)
            except GoneError as error:
                self.mark_down(endpoint, str(error))
                if not replay.is_possible:
                    raise _gone("the one that had the request went, and it cannot be sent to another one") from None
                continue
            self._mark_up(endpoint)
            if answer.status != 200 and replay.is_possible and self._is_for_another(endpoint, answer, tried):
                answer.release()
                continue
            return endpoint, answer
        raise _gone("none of the servers behind the gateway can be reached")

    async def _ask(
        self, endpoint: Endpoint, path: str, headers: Mapping[str, str], replay: Replay, deadline: float
    ) -> Answer:
        """Ask one; where it had closed a connection that was kept, ask it again on another."""
        upstream = endpoint.upstream
        try:
            return await upstream.infer(path, headers, replay.again(), deadline)
        except GoneError as error:
            if not (error.was_kept and replay.is_possible):
                raise
        upstream.close()  # the others that are kept are no younger
        return await upstream.infer(path, headers, replay.again(), deadline)

    async def get(self, path: str, deadline: float) -> Answer:
        """Ask any of them what it says of itself.

        Raises:
            UpstreamError: none can be reached.
        """
        tried: set[int] = set()
        while (endpoint := self._choose(tried)) is not None:
            tried.add(id(endpoint))
            try:
                return await endpoint.upstream.get(path, deadline)
            except GoneError as error:
                self.mark_down(endpoint, str(error))
        raise GoneError("none of the servers behind the gateway can be reached")

    async def look(self) -> None:
        """See of each whether it is there."""
        for endpoint, live in zip(
            self.all, await asyncio.gather(*(is_live(e.upstream) for e in self.all)), strict=True
        ):
            if live:
                self._mark_up(endpoint)
            else:
                self.mark_down(endpoint, "it does not say that it is live")

    def mark_down(self, endpoint: Endpoint, why: str) -> None:
        """Leave it out until it is ready."""
        if endpoint.is_up:
            log.warning("%s is left out: %s", endpoint.upstream, why)
            endpoint.down_since = time.monotonic()
            endpoint.upstream.close()
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())

    def _mark_up(self, endpoint: Endpoint) -> None:
        if not endpoint.is_up:
            log.warning("%s is asked again", endpoint.upstream)
            endpoint.down_since = None

    async def close(self) -> None:
        """Close what is held open."""
        if self._probing is not None:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing
        for endpoint in self.all:
            endpoint.upstream.close()

    def _choose(self, tried: set[int]) -> Endpoint | None:
        left = [endpoint for endpoint in self.all if id(endpoint) not in tried]
        # Where none is known to be up, those that were down are asked: one may be back since the last look.
        some = [endpoint for endpoint in left if endpoint.is_up] or left
        if not some:
            return None
        chosen = min(some, key=lambda endpoint: (endpoint.upstream.in_flight, endpoint.turn))
        self._turn += 1
        chosen.turn = self._turn
        return chosen

    def _keeper(self, sequence: str, tried: set[int]) -> Endpoint | None:
        """Return who has the state of a sequence: nobody else could go on with it."""
        weigh = hashlib.blake2b
        found = max(self.all, key=lambda each: weigh(f"{sequence} {each.upstream}".encode()).digest())
        return None if id(found) in tried else found

    def _is_for_another(self, endpoint: Endpoint, answer: Answer, tried: set[int]) -> bool:
        """Whether a refusal is of this Triton alone: it is stopping, or has not loaded the model."""
        said = answer.peek() or b""
        if answer.status == 503 and any(words in said for words in _STOPPING):
            self.mark_down(endpoint, "it is stopping")
            return True
        return _NOT_HERE in said and len(tried) < len(self.up())

    async def _probe(self) -> None:
        try:
            while down := [endpoint for endpoint in self.all if not endpoint.is_up]:
                await asyncio.sleep(PROBE_S)
                for endpoint, live in zip(down, await _are_live(down), strict=True):
                    if live:
                        self._mark_up(endpoint)
        finally:
            self._probing = None


async def is_live(upstream: Upstream) -> bool:
    """Whether a Triton says that it is live. It listens once its models are loaded; ready it is not with a bad one."""
    deadline = asyncio.get_running_loop().time() + _LONGEST_PROBE_S
    with suppress(UpstreamError):
        async with await upstream.get("/v2/health/live", deadline) as answer:
            await answer.read()
            return answer.status == 200
    return False


async def _are_live(endpoints: Sequence[Endpoint]) -> list[bool]:
    return await asyncio.gather(*(is_live(endpoint.upstream) for endpoint in endpoints))


def _gone(detail: str) -> Refusal:
    return Refusal(503, "server-unavailable", "No server answers", detail, retry_after_s=1.0)
