"""One connection to a Triton: HTTP/1.1, one request at a time, both bodies streamed.

An own protocol over asyncio, as a client library costs a request twice (aiohttp) to four times (httpx) as much: there
are no redirects, cookies, proxies or TLS between the two. httptools, which is llhttp, reads the answers.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self, cast

import httptools

from gateway.errors import BrokenError, GoneError, LateError
from gateway.triton import opening, watched
from gateway.triton.address import Address

HIGH_WATER = 256 * 1024  # bytes of an answer that wait for their reader; beyond it Triton's socket is not read
_COPIED = 16 * 1024  # bytes of a request up to which one piece is cheaper than two
MOST_HEADERS = 100  # of an answer

Body = bytes | AsyncIterator[bytes]


class Connection(asyncio.Protocol):
    """Held open between requests by a pool.

    Attributes:
        status: Of the answer, 0 until it has begun.
        headers: Of the answer, their names in small letters.
        complete: All of the answer has come.
        used: How many requests it has carried: one that was used may have been closed by the other side meanwhile.
        idle_since: On the loop's clock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[None] | None = None  # of the answer that is waited for
        self._more: asyncio.Future[None] | None = None  # of its body
        self._room: asyncio.Future[None] | None = None  # to write more of the request
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._sent = True
        self._why: BrokenError | GoneError | LateError | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = True
        self.used = 0
        self.idle_since = 0.0

    @classmethod
    async def open(cls, address: Address, deadline: float, connect_s: float = opening.CONNECT_S) -> Self:
        """Connect.

        Args:
            deadline: On the loop's clock.
            connect_s: That it may take at most.

        Raises:
            GoneError: nobody is there.
            LateError: the deadline passed first.
        """
        loop = asyncio.get_running_loop()
        return await opening.opened(lambda: cls(loop), address, deadline, connect_s)

    @property
    def is_open(self) -> bool:
        """Whether another request may be sent on it."""
        return self._why is None and self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Whether the last request and its answer are over, and both sides keep it open."""
        return self.complete and self._sent and self.is_open

    @property
    def is_sent(self) -> bool:
        """Whether all of the last request has gone: what is asked by half of one is computed by nobody."""
        return self._sent

    async def ask(self, head: bytes, body: Body, deadline: float) -> int:
        """Send a request; the status of its answer, whose headers are there then, and of its body what has come.

        Args:
            head: The request line and all headers, the last of which ends with an empty line.

        Raises:
            GoneError: the connection ended before the answer began.
            LateError: the deadline passed first; the connection is closed.
            BrokenError: the answer is no HTTP.
        """
        assert self.complete and self._transport is not None
        self.used += 1
        self.complete = self._sent = False
        self.headers, self.status = {}, 0
        self._head = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._late, self.used)
        try:
            if isinstance(body, bytes):
                if len(body) < _COPIED:
                    self._transport.write(head + body)
                else:
                    self._transport.writelines((head, body))
                self._sent = True
            else:
                self._transport.write(head)
                self._sent = await self._send(body)
            await self._head
        except BaseException:
            self.close()
            if self._head.done() and not self._head.cancelled():
                self._head.exception()  # seen: asyncio would say that nobody looked
            raise
        finally:
            timer.cancel()
            self._head = None
        return self.status

    async def pieces(self, deadline: float) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it comes.

        Raises:
            BrokenError: it ended in its middle.
            LateError: the deadline passed first.
        """
        own = self.used  # a reader that went away ends some time after its answer was given back
        timer = self._loop.call_at(deadline, self._late, own) if not self.complete else None
        try:
            while self._pieces or not self.complete:
                if not self._pieces:
                    if self._why is not None:
                        raise self._why
                    self._more = self._loop.create_future()
                    await self._more
                    continue
                piece = self._pieces.popleft()
                self._waiting_bytes -= len(piece)
                self._read_on()
                yield piece
        finally:
            if timer:
                timer.cancel()
            if own == self.used:
                self._more = None
                if not self.complete or self._pieces:  # the reader went away
                    self.close()

    async def gather(self, most: int, until: float) -> None:
        """Wait for the body of the answer, or `most` bytes of it, and leave it where it is.

        Args:
            until: On the loop's clock; then, as where it breaks off, what has come is all.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while not self.complete and self._why is None and self._waiting_bytes < most:
                    self._more = self._loop.create_future()
                    await self._more

    def whole(self) -> bytes | None:
        """Take the body of the answer where all of it has come; else None."""
        if not self.complete:
            return None
        content = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
        self.clear()
        return content

    def clear(self) -> None:
        """Drop what has come of an answer and nobody has read: the next one must not begin with it."""
        self._pieces.clear()
        self._waiting_bytes = 0
        self._read_on()

    def peek(self) -> bytes | None:
        """Return the same, and leave it there."""
        return b"".join(self._pieces) if self.complete else None

    def close(self, why: GoneError | None = None) -> None:
        """End it; what waits for it fails."""
        if self._why is None:
            self._why = why or GoneError("the connection to the Triton was closed here")
        if self._transport is not None:
            self._transport.abort()

    async def _send(self, body: AsyncIterator[bytes]) -> bool:
        """Send a body; whether all of it: after a part the Triton would take the next request for the rest."""
        async for piece in body:
            if self._why is not None:
                raise self._why
            if self._head is None or self._head.done():
                return False  # it has answered already
            if self._transport is not None:
                self._transport.write(piece)
            if self._room is not None:
                await self._room
        if self._why is not None:
            raise self._why
        return True

    # What asyncio calls.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        watched.watch(self._transport)

    def data_received(self, data: bytes) -> None:
        """Read what has come of the answer."""
        if self.complete:  # bytes that nobody asked for
            self._fail(BrokenError("the Triton sent more than an answer"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BrokenError(f"the Triton's answer is no HTTP: {error}"))

    def eof_received(self) -> bool:
        """Close: Triton never half-closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        kind = BrokenError if self.status and not self.complete else GoneError
        self._fail(kind(f"the Triton closed the connection{f': {exc}' if exc else ''}"))

    def pause_writing(self) -> None:
        """Wait with more of the request."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """Go on with the request."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    # What httptools calls.
    def on_message_begin(self) -> None:
        """See that it is the answer to what was asked, and not another one behind it."""
        if self.complete:
            raise ValueError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the answer."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        if len(self.headers) > MOST_HEADERS:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """Tell who waits that the answer has begun."""
        status = self._parser.get_status_code()
        self.status = status if status >= 200 else 0
        if self.status and self._head is not None and not self._head.done():
            self._head.set_result(None)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of it for its reader."""
        self._pieces.append(body)
        self._waiting_bytes += len(body)
        if self._waiting_bytes > HIGH_WATER and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """All of the answer is there."""
        if not self.status:  # 100 Continue: the answer is yet to come
            self.headers = {}
            return
        self.complete = True
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
        self._wake()

    def _late(self, used: int) -> None:
        if used == self.used:
            self._fail(LateError("the Triton did not answer before the deadline"))

    def _read_on(self) -> None:
        if self._paused and self._waiting_bytes < HIGH_WATER // 2 and self._transport:
            self._paused = False
            self._transport.resume_reading()

    def _fail(self, why: BrokenError | GoneError | LateError) -> None:
        if self._why is None:
            self._why = why
        if self._head is not None and not self._head.done():
            self._head.set_exception(self._why)
        self.resume_writing()
        self._wake()
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)
