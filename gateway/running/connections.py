"""Connections of callers, guarded: uvicorn's HTTP with limits that it has not.

    uvicorn.Config(app, http=guarded(Guard()), loop="uvloop", ...)

- A request's headers have an end, in bytes and in time: a slow loris is cut off.
- A body that nobody reads, because its request was refused, is not waited for long.
- What stands after a body in chunks (trailers) is no header: it is dropped.
- A caller that goes away ends what is done for it, and one that does not read its answer is not waited for for ever.
- Answers leave in the order of their requests, also those to what is no request.
- Nothing is spoken here but HTTP/1, whatever protocol a request would go over to.
- Of a server that drains every answer says that its connection ends.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.raw import replies
from gateway.raw.replies import ANSWER
from gateway.refusals import AT_ITS_END, STOPPING

_PIECE = 256 * 1024  # asyncio reads so much at once: headers, and the begin of a body
_TOO_LONG = "the headers are too long"


@dataclass
class Guard:
    """The limits, shared by all connections of a process.

    Attributes:
        most_connections: More are told to come back.
        header_bytes: Of a request's line and headers.
        header_s: From the first byte of a request, or the connection's begin, to the end of its headers.
        body_s: Between two pieces of its body, while somebody waits for them.
        linger_s: For the rest of a body whose request was answered already.
        draining: Answers end their connections.
        over: What is under way is ended, and told so.
    """

    most_connections: int = 2048
    header_bytes: int = 32 * 1024
    header_s: float = 10.0
    body_s: float = 10.0
    linger_s: float = 2.0
    draining: bool = False
    over: bool = False


def guarded(guard: Guard) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with these limits."""
    return type("Guarded", (_Guarded,), {"guard": guard})


class _Guarded(HttpToolsProtocol):
    guard: Guard
    _in_headers = True
    _reading = _unread = b""  # what is read, and what is read next
    _piece_bytes = 0  # come since the headers began
    _header_bytes = 0  # of them, counted line by line; trailers, too
    _in_body = False
    _body_came = False  # since the timer was set: what goes between chunks is no body
    _timer: asyncio.TimerHandle | None = None
    _asking: asyncio.Task[None] | None = None
    _asked: RequestResponseCycle | None = None  # whose task that is; `cycle` may be of a request that waits behind it
    _last_word: tuple[int, str, str] | None = None  # to be said once the requests before it are answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _send_at_once(transport)
        if len(self.connections) > self.guard.most_connections:
            self._refuse(503, "there are too many connections now", "Retry-After: 1\r\n")
            return
        self._start_timer(self.guard.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)  # tells the newest request alone
        for waiting, _ in self.pipeline:
            waiting.disconnected = True
        self.pipeline.clear()
        if self._is_asking() and self._asked is not None and self._asking is not None:
            self._asked.disconnected = True
            self._asked.message_event.set()
            self._asking.cancel()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._last_word is not None:  # refused
            return
        if self._in_headers:
            self._piece_bytes += len(data)
            if self._piece_bytes > self.guard.header_bytes + _PIECE:
                self._refuse(431, _TOO_LONG)
                return
        self._unread = data
        while self._unread and not self.transport.is_closing() and self._last_word is None:
            self._reading, self._unread = self._unread, b""
            super().data_received(self._reading)
        if self.transport.is_closing() or self._last_word is not None:
            return
        if self._in_headers and self._piece_bytes:
            if self._piece_bytes > self.guard.header_bytes:
                self._refuse(431, _TOO_LONG)
            elif self._timer is None:
                self._start_timer(self.guard.header_s)
        elif self._in_body and not self.cycle.response_complete and (self._body_came or self._timer is None):
            self._body_came = False
            self._start_timer(self.guard.body_s, self._slow_body)

    def send_400_response(self, msg: str) -> None:
        if self._header_bytes > self.guard.header_bytes:
            self._refuse(431, _TOO_LONG)
        else:
            self._refuse(400, "the request is no valid HTTP")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if self._in_headers:  # else it is a trailer
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.parser.should_upgrade():
            if self.scope["method"] == "CONNECT":
                raise ValueError("no tunnels")  # ends the parser
            return
        self._in_headers, self._in_body, self._piece_bytes = False, True, 0
        self._stop_timer()
        if self.guard.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._body_came = True

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.parser.should_upgrade():
            return
        self._in_headers, self._in_body = True, False
        self._stop_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._last_word is not None and not self._is_asking():
            self._refuse(*self._last_word)
        elif self._in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._start_timer(self.guard.linger_s)

    def _should_upgrade(self) -> bool:
        return True

    def handle_websocket_upgrade(self) -> None:
        """Read a request that would go over to another protocol again, as one that would not.

        httptools reads no body of it, and takes that for the next request. Java's client sends such ones first.
        """
        stopped = sys.exception()
        assert stopped is not None
        head = [f"{self.scope['method']} ".encode(), self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self._unread = b"".join((*head, b"\r\n", self._reading[stopped.args[0] :]))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def _is_asking(self) -> bool:
        return self._asked is not None and not self._asked.response_complete

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        async def unless_gone(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                if not cycle.disconnected and not self.guard.over:
                    raise
                if not cycle.disconnected and not cycle.response_started:
                    await replies.refuse(send, STOPPING(AT_ITS_END, retry_after_s=1.0))
            finally:
                if cycle.response_started and not cycle.response_complete:
                    cycle.disconnected = True
                    self.transport.abort()  # to close would wait for who does not read

        cycle.scope["extensions"] = {ANSWER: partial(self._answer, cycle)}
        self._asked = cycle
        self._asking = self.loop.create_task(cycle.run_asgi(unless_gone))
        self._asking.add_done_callback(self.tasks.discard)
        self.tasks.add(self._asking)

    def _answer(self, cycle: RequestResponseCycle, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """Write an answer that is here as a whole at once: as two messages of ASGI do, at a third of their cost."""
        if cycle.disconnected or cycle.response_started or self.flow.write_paused:
            return False
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        if not cycle.keep_alive:
            lines.append("connection: close\r\n")
        own = b"".join([name + b": " + value + b"\r\n" for name, value in cycle.default_headers])
        head = b"".join((STATUS_LINE[status], own, "".join(lines).encode("latin-1"), b"\r\n"))
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(head + body)
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.guard.header_bytes:
            raise ValueError(_TOO_LONG)  # ends the parser

    def _refuse(self, status: int, reason: str, more: str = "") -> None:
        if self.transport.is_closing():
            return
        if self._is_asking() and (self._in_headers or self.cycle is not self._asked):
            if not self._in_headers:
                self.pipeline.popleft()  # it is refused in its body, and waits there
            self._last_word = (status, reason, more)
            return
        content = json.dumps({"error": reason})
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n{more}"
        self.transport.write(f"{head}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode())
        self.transport.close()

    def _start_timer(self, seconds: float, end: Callable[[], None] | None = None) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, end or self._close)

    def _slow_body(self) -> None:
        """End a request whose body stopped coming, unless it is this side that does not read."""
        self._timer = None
        if self.flow.read_paused or self.cycle is not self._asked:
            self._start_timer(self.guard.body_s, self._slow_body)
        elif self.cycle.response_started:
            self._close()
        else:
            self._refuse(408, f"no more of the request came within {self.guard.body_s:g} s")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        self._timer = None
        if self._in_headers and self._is_asking():  # an answer is due: of what comes behind its request nothing is
            self._start_timer(self.guard.header_s)
        else:
            self.transport.abort()  # to close would wait for who does not read


def _send_at_once(transport: asyncio.Transport) -> None:
    """Set TCP_NODELAY: asyncio does so but for sockets whose protocol is not named, such as those that workers share.

    Without it the second part of an answer waits 40 ms for the caller to acknowledge the first.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
