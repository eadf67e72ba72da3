"""A connection whose other machine is watched: one without power, or behind a broken cable, says nothing.

After some 10 s without a sign of it the connection has ended, and another Triton is asked. A Triton that computes for
minutes is none of these: its kernel acknowledges all the same. One that does not read for 10 s of a large body is.
"""

import asyncio
import socket

GONE_S = 10
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    # With it the kernel counts no probes (TCP_KEEPCNT), but this time: tcp(7), and net/ipv4/tcp_timer.c.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_S * 1000),
)


def watch(transport: asyncio.BaseTransport) -> None:
    """Have the kernel watch the other side, where it is on another machine, that is: where the connection is TCP."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        for level, option, value in _OPTIONS:
            connection.setsockopt(level, option, value)
