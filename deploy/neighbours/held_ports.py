"""Ports that nobody else can take, from before the server listens on them until it is stopped.

Triton binds its ports when its models are loaded, and again after a crash: whoever binds one first would get the next
request, with the admin key in it. So the keeper binds them before and never listens. Linux lets a second socket have
a bound port only where both set SO_REUSEPORT and belong to one user (net/ipv4/inet_connection_sock.c): the server's.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from contracts.running import record
from deploy.errors import SettingsError


class HeldPorts:
    """Ports that are held until they are released, or this process ends."""

    def __init__(self, sockets: ExitStack) -> None:
        self._sockets = sockets

    def release(self) -> None:
        """Let them go. A second time does nothing."""
        self._sockets.close()


def hold(host: str, ports: Mapping[str, int], uid: int) -> HeldPorts:
    """Hold ports for the servers of one user; it has to set SO_REUSEPORT on its sockets, too.

    Args:
        host: The address to listen on.
        ports: {the option that chooses it: port}.
        uid: Whom the server runs as: root may hold ports for anybody.

    Raises:
        SettingsError: another process has one of them, or there is no such address.
    """
    with ExitStack() as sockets:
        for option, port in ports.items():
            held = sockets.enter_context(_socket(host))
            # Not SO_REUSEADDR: whoever sets it as well could have the port until one of the two listens.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if uid != os.geteuid():
                os.fchown(held.fileno(), uid, -1)  # a socket's user is its file's
            _bind(held, host, port, option)
        return HeldPorts(sockets.pop_all())


def check_free(host: str, port: int, option: str) -> None:
    """See that nobody listens on a port or holds it, this user's other servers among them.

    Raises:
        SettingsError: somebody does, or there is no such address.
    """
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are over do not count
        _bind(probe, host, port, option)


def _socket(host: str) -> socket.socket:  # of an IP address
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def _bind(unbound: socket.socket, host: str, port: int, option: str) -> None:
    try:
        unbound.bind((host, port))
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {record.in_url(host)}:{port}: {error.strerror}",
            hint=f"choose another port with --{option.replace('_', '-')}",
        ) from error
