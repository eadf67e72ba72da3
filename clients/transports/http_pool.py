"""HTTP connections for threads: kept open, and with a deadline for a request as a whole.

Sockets are the standard library's; geventhttpclient's parser, which is in C and comes with tritonclient, reads the
responses. A request goes out in one piece: http.client would send its head apart, which both ends pay for.
"""

import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

from geventhttpclient.response import HTTPParseError, HTTPResponse

from clients import proxies
from clients.core.failures import Failure, Kind, failure_of, message_too_large
from clients.settings import CONNECT_S, Address

_MAX_IDLE = 128  # connections that are kept; more only if more threads send at once
_IDLE_S = 15.0  # one is used again within that time, as in aiohttp; those that are older, the next request closes
_IN_ONE_PIECE_BYTES = 64 << 10  # larger bodies are not copied behind their head; not tuned
_BLOCK_BYTES = 256 << 10  # read at once
_HEAD_BYTES = 64 << 10  # of a response, at most


@dataclass(frozen=True)
class Response:
    """What came back, whatever it says."""

    status: int
    body: bytes
    header: Callable[[str], Any]  # its value by name, or None


class Pool:
    """Connections to one server, also through a forward proxy; the last that was used is the next."""

    def __init__(
        self, address: Address, tls: ssl.SSLContext | None, proxy: SplitResult | None, limit_bytes: int
    ) -> None:
        self._address, self._tls, self._proxy, self._limit_bytes = address, tls, proxy, limit_bytes
        self._idle: deque[tuple[float, socket.socket]] = deque()  # and since when; the last used is the last
        self._busy: set[socket.socket] = set()
        self._closed = False
        # Without TLS a proxy gets whole URLs; with it, it is asked for a tunnel.
        self._root = str(address) if proxy and not tls else ""
        self._headers = {"host": address.netloc, "accept-encoding": "identity"}
        if proxy and not tls:
            self._headers |= proxies.authorization(proxy)

    def send(self, method: str, path: str, deadline: float, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send a request, and read all of the response before the deadline, which is on the monotonic clock.

        Raises:
            Failure: there is none.
        """
        head = _head(f"{method} {self._root}{path}", {**self._headers, **headers, "content-length": str(len(body))})
        sock = self._idle_socket() or self._connect(deadline)
        try:
            self._use(sock)
            unsent = _write(sock, deadline, [head + body] if len(body) < _IN_ONE_PIECE_BYTES else [head, body])
            parser = _Parser(method)
            try:
                parser.read(sock, deadline, self._limit_bytes)
            except OSError as error:
                if unsent and not isinstance(error, TimeoutError):
                    raise unsent from None
                raise
        except BaseException as error:  # on Ctrl-C, too: half a response must not be the next request's
            sock.close()
            if isinstance(error, OSError | HTTPParseError):
                raise _failure(error) from error
            raise
        finally:
            self._busy.discard(sock)
        if unsent or parser.should_close() or len(self._idle) >= _MAX_IDLE or self._closed:
            sock.close()
        else:
            self._idle.append((time.monotonic(), sock))
        return Response(parser.status_code, bytes(parser.content), parser.get)

    def drop_idle(self) -> None:
        """Close the connections that nobody uses."""
        with suppress(IndexError):
            while True:
                self._idle.pop()[1].close()

    def close(self) -> None:
        """Close all connections; requests in flight end with a failure."""
        self._closed = True
        for sock in [*self._busy]:
            with suppress(OSError):
                # Not SSLSocket's own, which would take the TLS state from whoever reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self.drop_idle()

    def _idle_socket(self) -> socket.socket | None:
        with suppress(IndexError):
            while self._idle[0][0] < time.monotonic() - _IDLE_S:
                self._idle.popleft()[1].close()
            while True:
                _, sock = self._idle.pop()
                if _is_silent(sock):
                    return sock
                sock.close()  # the server closed it, or sent something unasked
        return None

    def _connect(self, deadline: float) -> socket.socket:
        """Connect within the deadline, but for the name's resolution, which the system gives no limit."""
        try:
            if self._proxy is None:
                sock = _tcp(self._address.host, self._address.port, deadline)
            else:
                sock = _tcp(str(self._proxy.hostname), self._proxy.port or 80, deadline)
            if self._tls is None:
                return sock
            try:
                self._use(sock)
                if self._proxy:
                    self._tunnel(sock, self._proxy, deadline)
                secured = self._tls.wrap_socket(sock, server_hostname=self._address.host, do_handshake_on_connect=False)
                self._busy.discard(sock)  # which has given up its file
                sock = secured
                self._use(sock)
                sock.settimeout(min(CONNECT_S, _remaining_s(deadline)))  # of the handshake as a whole
                secured.do_handshake()
                return sock
            except BaseException:
                sock.close()
                raise
            finally:
                self._busy.discard(sock)
        except (OSError, HTTPParseError) as error:
            if time.monotonic() >= deadline:
                raise Failure(Kind.DEADLINE_EXCEEDED, "no connection in time") from error
            raise Failure(Kind.UNAVAILABLE, _text(error)) from error

    def _use(self, sock: socket.socket) -> None:
        """Note it, for `close` to end what is going on.

        Raises:
            ConnectionError: that was called already.
        """
        self._busy.add(sock)
        if self._closed:
            raise ConnectionError("the connection was closed")

    def _tunnel(self, sock: socket.socket, proxy: SplitResult, deadline: float) -> None:
        netloc = self._address.netloc
        _write(sock, deadline, [_head(f"CONNECT {netloc}", {"host": netloc, **proxies.authorization(proxy)})])
        parser = _Parser("CONNECT")
        parser.read(sock, deadline, self._limit_bytes, head_only=True)
        if parser.status_code != 200:
            raise failure_of(parser.status_code, f"the proxy refuses: {parser.status_code} {parser.status_message}")


class _Parser(HTTPResponse):
    """Of one response, as it arrives."""

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.content = bytearray()
        self._ends = 0

    def read(self, sock: socket.socket, deadline: float, limit_bytes: int, *, head_only: bool = False) -> None:
        """Read until it is complete.

        Raises:
            TimeoutError: not in time.
            OSError: the connection broke.
            HTTPParseError: it is not HTTP, or more than one response.
            Failure: it is larger than that.
        """
        received = 0
        while not (self._ends or (head_only and self.headers_complete)):
            sock.settimeout(_remaining_s(deadline))
            piece = sock.recv(_BLOCK_BYTES)
            if not piece:
                with suppress(HTTPParseError):
                    self.feed(piece)  # the end of a body without a length
                if not self._ends:
                    raise ConnectionError("it closed the connection before the end of its response")
                break
            self.feed(piece)
            if (received := received + len(piece)) > limit_bytes + _HEAD_BYTES:
                raise message_too_large("the response", limit_bytes)
        if self._ends > 1 or not (self.message_complete or head_only):
            raise HTTPParseError("there is more than one response")

    def _on_body(self, buf: bytes | bytearray) -> None:
        self.content += buf

    def _on_message_complete(self) -> None:
        super()._on_message_complete()
        self._ends += self.get_code() >= 200  # before it, "continue" and the like


def _tcp(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to one of the name's addresses."""
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # the system has no IPv6, and the name has
            failure = error
            continue
        try:
            sock.settimeout(min(CONNECT_S, _remaining_s(deadline)))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _head(request: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{request} HTTP/1.1\r\n{lines}\r\n".encode()


def _write(sock: socket.socket, deadline: float, pieces: list[bytes]) -> OSError | None:
    """Send it. A server that reads no more may have responded why: the error is for when it has not."""
    try:
        for piece in pieces:
            unsent = memoryview(piece)
            while unsent:  # sendall would begin its timeout anew with each block, under TLS
                sock.settimeout(_remaining_s(deadline))
                unsent = unsent[sock.send(unsent) :]
                # Under TLS bytes may arrive that are no response.
                if unsent and not isinstance(sock, ssl.SSLSocket) and _responds(sock, deadline):
                    return ConnectionError("it did not read the whole request")
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
        return error
    return None


def _remaining_s(deadline: float) -> float:
    """Return what a socket is to be told, which takes 0 for "do not wait".

    Raises:
        TimeoutError: there is none.
    """
    if (remaining_s := deadline - time.monotonic()) <= 0:
        raise TimeoutError("the time is up")
    return remaining_s


def _responds(sock: socket.socket, deadline: float) -> bool:
    """Wait until it takes more of the request, or says something; tell whether that is what it says to all of it."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    speaks = any(event & select.POLLIN for _, event in poll.poll(_remaining_s(deadline) * 1e3))
    return speaks and not sock.recv(10, socket.MSG_PEEK).startswith((b"HTTP/1.1 1", b"HTTP/1.0 1"))  # "continue"


def _is_silent(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


def _failure(error: OSError | HTTPParseError) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure(Kind.DEADLINE_EXCEEDED, "no response in time")
    kind = Kind.UNAVAILABLE if isinstance(error, OSError) else Kind.INVALID_RESPONSE
    return Failure(kind, _text(error))


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
