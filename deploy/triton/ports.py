"""Ports of this machine that nobody listens on."""

import random
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

_LOWEST, _USUAL_FIRST_OUTGOING = 10_000, 32_768
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int = 3) -> list[int]:
    """Find `count` different ports, by default for HTTP, gRPC and metrics. Another process may be faster to take one.

    None is among those that the system gives to outgoing connections, each of which could be that process.

    Raises:
        OSError: too few are free.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(range(_LOWEST, _first_outgoing()), 1000):
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError("no port is free")


def _first_outgoing() -> int:
    try:
        first = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError):
        return _USUAL_FIRST_OUTGOING
    return first if first > 2 * _LOWEST else _USUAL_FIRST_OUTGOING
