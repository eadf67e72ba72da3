"""One Triton: its address, the connections that are held open to it, and what is asked of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Self

from gateway.errors import BrokenError, FullError, GoneError, LateError, UpstreamError
from gateway.triton.address import Address
from gateway.triton.connection import Body, Connection
from gateway.triton.opening import CONNECT_S, STALLED_S

MOST_CONNECTIONS = 256  # Triton 2.51 loses answers if more than 277 requests wait
IDLE_S = 2.0  # a stopping Triton waits for idle connections
_REASON = 64 * 1024  # bytes of an answer that says why there is none
MOST_WHOLE = 16 * 1024 * 1024  # bytes of an answer that is read at once: metadata, errors


class Look(Enum):
    """What is seen of a Triton."""

    LIVE = "it says that it is live"
    GONE = "it cannot be reached, or says that it is not live"
    SILENT = "nothing came"
    UNSEEN = "this process could not look"


class Answer:
    """What a Triton said, its body yet to be read. Leaving the `with` gives the connection back, or closes it.

    Attributes:
        status: Of HTTP.
        headers: Their names in small letters.
        asked_at: When the request was sent, on the monotonic clock.
    """

    def __init__(self, upstream: "Upstream", connection: Connection, deadline: float, asked_at: float) -> None:
        self._upstream = upstream
        self._connection = connection
        self._deadline = deadline
        self._released = False
        self.asked_at = asked_at
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    def whole(self) -> bytes | None:
        """Return the body if all of it is here already, which is so of most answers; it is taken."""
        return self._connection.whole()

    def peek(self) -> bytes | None:
        """Return the same, and leave it there."""
        return self._connection.peek()

    async def reason(self) -> bytes:
        """Return what is said of a request that failed, as far as that is short and comes in time; it stays there."""
        try:
            await self._connection.gather(_REASON, self._deadline)
        except BaseException:
            self.release()
            raise
        return self.peek() or b""

    def pieces(self, until: float | None = None) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Args:
            until: On the loop's clock; None: the request's deadline.

        Raises:
            BrokenError: it ended in its middle.
            LateError: that passed first.
        """
        return self._connection.pieces(self._deadline if until is None else until)

    async def read(self, most: int = MOST_WHOLE) -> bytes:
        """Return all of the body.

        Raises:
            BrokenError: it ended in its middle, or has more than `most` bytes.
            LateError: the deadline passed first.
        """
        if (content := self.whole()) is None:
            gathered = bytearray()
            async for piece in self.pieces():
                gathered += piece
                if len(gathered) > most:
                    raise BrokenError(f"the Triton's answer has more than {most:,} bytes")
            content = bytes(gathered)
        return content

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Be done with it; again does nothing."""
        if not self._released:
            self._released = True
            self._upstream.take_back(self._connection)


class Upstream:
    """One Triton.

    Args:
        most: Connections at once.
        connect_s: For a connection to be there.

    Attributes:
        in_flight: Requests under way.
        unwanted: Requests that it has all of, and computes although nobody waits any more.
        silent_since: It was asked something then, on the monotonic clock, and has not answered anything since.
    """

    def __init__(self, address: Address, most: int = MOST_CONNECTIONS, connect_s: float = CONNECT_S) -> None:
        self.address, self._connect_s = address, connect_s
        self.in_flight = 0
        self.unwanted = 0
        self.silent_since: float | None = None
        self._asked: dict[Connection, Callable[[], bool]] = {}  # no answer has begun there; whether it may be left
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(most)
        self._sweeper: asyncio.TimerHandle | None = None
        self._headers = f"Host: {address.host_header}\r\nUser-Agent: gateway\r\n"

    def __str__(self) -> str:
        return str(self.address)

    async def infer(
        self,
        path: str,
        headers: Mapping[str, str],
        body: Body,
        deadline: float,
        *,
        anew: bool = False,
        may_leave: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """POST a request.

        Args:
            path: Checked: it is sent as it is.
            headers: More of them, checked; `Content-Length` among them where `body` is no bytes.
            deadline: On the loop's clock.
            anew: On a connection of its own, for what cannot be sent again where a kept one had been closed.
            may_leave: Whether it may be asked elsewhere, should this one be silent.

        Raises:
            GoneError: it cannot be reached, or closed the connection before an answer began; `was_kept` if that was
                open from before: `close` drops such ones, and another try tells. `was_sent` if it had the request.
            BrokenError: the answer is no HTTP.
            LateError: the deadline passed first.
        """
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if isinstance(body, bytes):
            lines += f"Content-Length: {len(body)}\r\n"
        head = f"POST {path} HTTP/1.1\r\n{self._headers}{lines}\r\n".encode("ascii")
        return await self._ask(head, body, deadline, may_leave, anew=anew)

    async def get(self, path: str, deadline: float) -> Answer:
        """GET what it says of itself; errors as of `infer`."""
        head = f"GET {path} HTTP/1.1\r\n{self._headers}\r\n".encode("ascii")
        try:
            return await self._ask(head, b"", deadline, _always)
        except GoneError as error:
            if not error.was_kept:
                raise
        self.close()
        return await self._ask(head, b"", deadline, _always, anew=True)

    async def look(self, within_s: float) -> Look:
        """See whether it is live, on a connection of its own: requests that hold all the others say nothing of it.

        It listens once its models are loaded; ready it is not with a bad one.
        """
        head = f"GET /v2/health/live HTTP/1.1\r\n{self._headers}\r\n".encode("ascii")
        loop = asyncio.get_running_loop()
        while True:
            deadline = loop.time() + within_s
            try:
                connection = await Connection.open(self.address, deadline, self._connect_s)
                try:
                    return Look.LIVE if await connection.ask(head, b"", deadline) == 200 else Look.GONE
                finally:
                    connection.close()
            except LateError:
                if loop.time() - deadline < STALLED_S:
                    return Look.SILENT
                # Else this process stood still meanwhile, which says nothing of the Triton: once more.
            except FullError:
                return Look.UNSEEN
            except UpstreamError as error:
                return Look.SILENT if isinstance(error, GoneError) and error.was_silence else Look.GONE

    def leave(self, why: str) -> None:
        """Give up the requests whose answers have not begun and that may be asked elsewhere: GoneError, `was_left`."""
        for connection, may_leave in [*self._asked.items()]:
            if not connection.status and may_leave():
                left = GoneError(f"the Triton at {self} was left: {why}")
                left.was_left = True
                connection.close(left)

    async def _ask(
        self, head: bytes, body: Body, deadline: float, may_leave: Callable[[], bool], *, anew: bool = False
    ) -> Answer:
        await self._wait_for_room(deadline)
        asked_at = time.monotonic()
        if self.silent_since is None:
            self.silent_since = asked_at
        self.in_flight += 1
        connection: Connection | None = None
        try:
            if anew and self._idle:
                self._idle.pop(0).close()  # the new one is kept in its place
            reused = None if anew else self._reused()
            connection = reused or await Connection.open(self.address, deadline, self._connect_s)
            self._asked[connection] = may_leave
            await connection.ask(head, body, deadline)
        except BaseException as error:
            self._fell(connection, error)
            raise
        finally:
            if connection is not None:
                del self._asked[connection]
        self.silent_since = None
        return Answer(self, connection, deadline, asked_at)

    def _fell(self, connection: Connection | None, error: BaseException) -> None:
        """Say what is known of a request whose answer has not begun, and give its place back."""
        was_left = isinstance(error, GoneError) and error.was_left
        if isinstance(error, GoneError):
            error.was_kept = not was_left and connection is not None and connection.used > 1
            error.was_sent = connection is not None
        if connection is not None and connection.used and (was_left or not isinstance(error, GoneError)):
            self.unwanted += connection.is_sent
        self._leave()

    def take_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it where its answer was not read to the end."""
        self._leave()
        if not connection.is_reusable:
            self.unwanted += connection.is_sent and not connection.complete
            connection.close()
            return
        connection.clear()
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def close(self) -> None:
        """Close the connections that are idle."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._idle:
            self._idle.pop().close()

    async def _wait_for_room(self, deadline: float) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._room.acquire()
        except TimeoutError as error:
            raise LateError(f"all connections to the Triton at {self} were in use until the deadline") from error

    def _leave(self) -> None:
        self.in_flight -= 1
        self._room.release()

    def _reused(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        kept = []
        for connection in self._idle:
            if connection.is_open and connection.idle_since > loop.time() - IDLE_S:
                kept.append(connection)
            else:
                connection.close()
        self._idle = kept
        self._sweeper = loop.call_later(IDLE_S / 2, self._sweep) if kept else None


def _always() -> bool:
    return True
