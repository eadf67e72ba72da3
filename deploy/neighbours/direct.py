"""How this machine's server is asked: by no proxy, whatever the environment says of proxies for elsewhere.

A proxy would see requests, answers and the admin key; on the loopback it would be another machine's server at best.
"""

import http.client
import socket
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GRPC_OPTIONS: tuple[tuple[str, Any], ...] = (("grpc.enable_http_proxy", 0),)
_VARIABLES = frozenset(f"{what}_proxy" for what in ("http", "https", "grpc", "all", "ftp", "socks"))


def open_url(url: str | urllib.request.Request, timeout_s: float) -> Any:
    """Open an http:// URL of this machine's, as urllib does: a context manager.

    Raises:
        OSError: nobody answers, or with an error (HTTPError).
    """
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout_s)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without its proxies, for a program that asks this machine's server."""
    return {name: value for name, value in given.items() if name.lower() not in _VARIABLES}
