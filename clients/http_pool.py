"""HTTP connections for threads: the standard library's, kept open, with a deadline for a request as a whole."""

import base64
import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import SplitResult, unquote

from clients.failures import Failure, Kind, of_http
from clients.settings import Address

CONNECT_S = 2.0
_KEPT = 128
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d+)")  # http.client, of the proxy's status

# Status, body, and what looks a header up.
Answer = tuple[int, bytes, Callable[[str], str | None]]


class Pool:
    """Connections to one server, also through a forward proxy; the last that was used is the next."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, proxy: SplitResult | None) -> None:
        self._address, self._tls, self._proxy = address, tls, proxy
        # Without TLS a proxy is asked for whole URLs; with it, for a tunnel.
        self._root = str(address) if proxy and not tls else ""
        self._headers = _authorization(proxy) if proxy and not tls else {}
        self._idle: deque[HTTPConnection] = deque()
        if tls:
            tls.sslsocket_class = _TlsSocket

    def send(self, method: str, path: str, deadline: float, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Ask, and have all of the answer before the deadline, which is on the monotonic clock.

        Raises:
            Failure: there is none.
        """
        connection = self._kept() or self._connect(deadline)
        sock: Any = connection.sock  # a _Socket or _TlsSocket
        try:
            sock.deadline = deadline
            sock.settimeout(_remaining_s(deadline))
            connection.request(method, self._root + path, body, {**self._headers, **headers})
            response = connection.getresponse()
            content = response.read()
        except BaseException as error:  # on Ctrl-C, too: half an answer must not be the next one's
            connection.close()
            raise (_failure(error) if isinstance(error, OSError | HTTPException) else error) from error
        if connection.sock is not None and len(self._idle) < _KEPT:  # http.client closes what the server will close
            self._idle.append(connection)
        else:
            connection.close()
        return response.status, content, response.headers.get

    def close(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _kept(self) -> HTTPConnection | None:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if _silent(connection.sock):
                    return connection
                connection.close()  # the server did, or said something unasked
        return None

    def _connect(self, deadline: float) -> HTTPConnection:
        timeout_s = min(CONNECT_S, _remaining_s(deadline))
        host, port = (
            (self._proxy.hostname, self._proxy.port) if self._proxy else (self._address.host, self._address.port)
        )
        if self._tls:
            connection: HTTPConnection = HTTPSConnection(str(host), port, timeout=timeout_s, context=self._tls)
            if self._proxy:
                connection.set_tunnel(self._address.host, self._address.port, _authorization(self._proxy))
        else:
            connection = HTTPConnection(str(host), port, timeout=timeout_s)
        try:
            connection.connect()
        except (OSError, HTTPException) as error:
            connection.close()
            said = str(error) or type(error).__name__
            refused = _TUNNEL_REFUSED.search(said)
            raise (of_http(int(refused[1]), said) if refused else Failure(Kind.UNREACHABLE, said)) from error
        if not self._tls:
            connection.sock = _Socket(fileno=connection.sock.detach())
        return connection


class _Socket(socket.socket):
    """Every read ends at the deadline. A timeout alone begins anew with each, and a byte now and then would do."""

    deadline: float

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(_remaining_s(self.deadline))
        return super().recv_into(*arguments, **options)


class _TlsSocket(ssl.SSLSocket):
    """The same."""

    deadline: float

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(_remaining_s(self.deadline))
        return super().recv_into(*arguments, **options)


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


def _failure(error: OSError | HTTPException) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure(Kind.EXPIRED, "no answer in time")
    if isinstance(error, OSError | IncompleteRead):
        return Failure(Kind.UNREACHABLE, str(error) or type(error).__name__)
    return Failure(Kind.BAD_ANSWER, f"it is no HTTP: {error!r}")
