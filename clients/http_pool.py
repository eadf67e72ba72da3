"""HTTP connections for threads: kept open, and with a deadline for a request as a whole.

The standard library connects, through a proxy and TLS where that is wanted; geventhttpclient's parser, which is in C
and comes with tritonclient, reads the answer. In between there is a request of known length, which goes out in one
piece: http.client would send its head apart, which both ends pay for.
"""

import base64
import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, unquote

from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

from clients.failures import Failure, Kind, of_http
from clients.settings import Address

CONNECT_S = 2.0
_KEPT = 128
_IN_ONE_PIECE_BYTES = 64 << 10
_BLOCK_BYTES = 64 << 10
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d+)")  # http.client, of the proxy's status

# Status, body, and what looks a header up.
Answer = tuple[int, bytes, Callable[[str], Any]]


class Pool:
    """Connections to one server, also through a forward proxy; the last that was used is the next."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, proxy: SplitResult | None) -> None:
        self._address, self._tls, self._proxy = address, tls, proxy
        self._idle: deque[_Socket | _TlsSocket] = deque()
        # Without TLS a proxy is asked for whole URLs; with it, for a tunnel.
        self._root = str(address) if proxy and not tls else ""
        self._headers = {"Host": address.netloc, **(_authorization(proxy) if proxy and not tls else {})}
        if tls:
            tls.sslsocket_class = _TlsSocket

    def send(self, method: str, path: str, deadline: float, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Ask, and have all of the answer before the deadline, which is on the monotonic clock.

        Raises:
            Failure: there is none.
        """
        lines = (f"{name}: {value}\r\n" for name, value in {**self._headers, **headers}.items())
        head = f"{method} {self._root}{path} HTTP/1.1\r\n{''.join(lines)}Content-Length: {len(body)}\r\n\r\n".encode()
        sock = self._kept() or self._connect(deadline)
        sock.deadline = deadline
        try:
            sock.settimeout(_remaining_s(deadline))
            for piece in [head + body] if len(body) < _IN_ONE_PIECE_BYTES else [head, body]:
                sock.sendall(piece)
            response = HTTPSocketResponse(sock, block_size=_BLOCK_BYTES, method=method)
            content = response.read()
        except TimeoutError as error:
            sock.close()
            raise Failure(Kind.EXPIRED, "no answer in time") from error
        except OSError as error:
            sock.close()
            raise Failure(Kind.UNREACHABLE, _said(error)) from error
        except HTTPParseError as error:
            sock.close()
            if sock.ended:
                raise Failure(Kind.UNREACHABLE, "it closed the connection before the end of its answer") from error
            raise Failure(Kind.BAD_ANSWER, f"it is no HTTP: {_said(error)}") from error
        except BaseException:  # Ctrl-C: half an answer must not be the next one's
            sock.close()
            raise
        if sock.fileno() >= 0 and len(self._idle) < _KEPT:  # it is closed after an answer that says so
            self._idle.append(sock)
        else:
            sock.close()
        return response.status_code, content, response.get

    def close(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _kept(self) -> "_Socket | _TlsSocket | None":
        with suppress(IndexError):
            while True:
                sock = self._idle.pop()
                if _silent(sock):
                    return sock
                sock.close()  # the server did, or said something unasked
        return None

    def _connect(self, deadline: float) -> "_Socket | _TlsSocket":
        timeout_s = min(CONNECT_S, _remaining_s(deadline))
        host, port = self._address.host, self._address.port
        if self._proxy:
            host, port = str(self._proxy.hostname), self._proxy.port or 80
        if self._tls:
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
            if self._proxy:
                connection.set_tunnel(self._address.host, self._address.port, _authorization(self._proxy))
        else:
            connection = HTTPConnection(host, port, timeout=timeout_s)
        try:
            connection.connect()
        except (OSError, HTTPException) as error:
            connection.close()
            refused = _TUNNEL_REFUSED.search(said := _said(error))
            raise (of_http(int(refused[1]), said) if refused else Failure(Kind.UNREACHABLE, said)) from error
        sock = connection.sock
        return sock if isinstance(sock, _TlsSocket) else _Socket(fileno=sock.detach())


class _Socket(socket.socket):
    """Every read ends at the deadline. A timeout alone begins anew with each, and a byte now and then would do."""

    deadline = 0.0
    ended = False  # by the other side

    def recv(self, *arguments: Any) -> bytes:
        self.settimeout(_remaining_s(self.deadline))
        received = super().recv(*arguments)
        self.ended = not received
        return received


class _TlsSocket(ssl.SSLSocket):
    """The same; and every write, as sendall has several."""

    deadline = 0.0
    ended = False

    def send(self, *arguments: Any) -> int:
        self.settimeout(_remaining_s(self.deadline))
        return super().send(*arguments)

    def recv(self, *arguments: Any) -> bytes:
        self.settimeout(_remaining_s(self.deadline))
        received = super().recv(*arguments)
        self.ended = not received
        return received


def _remaining_s(deadline: float) -> float:
    return max(1e-3, deadline - time.monotonic())


def _silent(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    who = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"}


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
