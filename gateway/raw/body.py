"""A request's body as it arrives: as long as it says, no longer than it may be, and not slower."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from gateway.deadline import Deadline
from gateway.errors import Refusal
from gateway.raw.strict import refused
from gateway.refusals import SLOW

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class CallerGone(Exception):  # noqa: N818  # nobody is told: nobody is there
    """The caller closed its connection before all of its request was there."""


@dataclass(frozen=True)
class Limits:
    """Of a request.

    Attributes:
        most_bytes: Of its body.
        pause_s: In which its caller reads of a long answer, once the deadline has passed.
        whole_bytes: Up to so many, all of it must be here before a place is taken; more is streamed.
    """

    most_bytes: int = 64 * 1024 * 1024
    pause_s: float = 10.0
    whole_bytes: int = 256 * 1024


class Body:
    """What ASGI brings of a request, piece by piece."""

    def __init__(self, receive: Receive, length: int | None, limits: Limits, deadline: Deadline) -> None:
        if length is not None and length > limits.most_bytes:
            raise too_large(limits)
        self._receive, self._limits, self._deadline = receive, limits, deadline
        self._come = 0
        self._rest = b""
        self._more = True

    async def take(self, size: int) -> bytes:
        """Return the next `size` bytes.

        Raises:
            Refusal: 400: there are fewer; 408: they did not come in time; 413: there are too many.
            CallerGone: nobody will send them.
        """
        content = self._rest
        if len(content) < size:
            pieces, found = [content], len(content)
            while found < size and self._more:
                piece = await self._next()
                pieces.append(piece)
                found += len(piece)
            content = b"".join(pieces)
        if len(content) < size:
            raise refused("the body is shorter than it says")
        self._rest = content[size:]
        return content[:size] if self._rest else content

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """Yield the rest, which is as long as that; errors as of `take`."""
        left = size
        while left:
            piece, self._rest = self._rest, b""
            if not piece:
                if not self._more:
                    raise refused("the body is shorter than it says")
                piece = await self._next()
            left -= len(piece)
            if left < 0:
                raise refused("the body is longer than it says")
            if piece:
                yield piece
        await self.end()

    async def end(self) -> None:
        """See that there is no more; errors as of `take`."""
        while self._more and not self._rest:
            self._rest = await self._next()
        if self._rest:
            raise refused("the inputs' binary_data_size and the length of the body contradict each other")

    async def _next(self) -> bytes:
        """Wait for the next piece until the deadline. How long it may pause is seen to in running/connections.py."""
        try:
            async with asyncio.timeout_at(self._deadline.at):
                message = await self._receive()
        except TimeoutError:
            raise SLOW("its deadline has passed") from None
        if message["type"] != "http.request":
            raise CallerGone
        if self._deadline.remaining_s <= 0:
            raise SLOW("its deadline has passed")
        piece = bytes(message.get("body", b""))
        self._come += len(piece)
        if self._come > self._limits.most_bytes:
            raise too_large(self._limits)
        self._more = message.get("more_body", False)
        return piece


def too_large(limits: Limits) -> Refusal:
    """Return what a request gets whose body is longer than it may be."""
    detail = f"its body may have {limits.most_bytes:,} bytes"
    return Refusal(413, "too-large", "The request is too large", detail)
