"""Ports of this machine that nobody listens on."""

import random
import socket
from contextlib import suppress
from pathlib import Path

_LOWEST, _USUAL_FIRST_OUTGOING = 10_000, 32_768
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int = 3) -> list[int]:
    """Find `count` different ports, by default for HTTP, gRPC and metrics, and keep them for whoever asked.

    For a minute no other process finds them here, nor can it bind them unless it sets SO_REUSEADDR or SO_REUSEPORT, as
    servers do. None is among those that the system gives to outgoing connections, each of which could take one.

    Raises:
        OSError: too few are free.
    """
    found: list[int] = []
    for port in random.sample(range(_LOWEST, _first_outgoing()), 1000):
        with suppress(OSError):
            _keep(port)
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no port is free")


def _keep(port: int) -> None:
    """Have a connection of its own be over on the port, which the system remembers for a minute (TIME_WAIT).

    Raises:
        OSError: somebody has it, or is to have it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
    with socket.socket() as listening:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # or a server that sets the one alone could not
            listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(1)
        with socket.create_connection(("127.0.0.1", port)) as calling:
            answering, _ = listening.accept()
            answering.close()  # first: it is this side that remembers
            calling.recv(1)


def _first_outgoing() -> int:
    try:
        first = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError):
        return _USUAL_FIRST_OUTGOING
    return first if first > 2 * _LOWEST else _USUAL_FIRST_OUTGOING
