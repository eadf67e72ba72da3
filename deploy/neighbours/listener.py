"""Whose process listens where the admin key is about to be sent.

The kernel's tables say who has a listening socket, and the process's descriptors whether that is one of its own.
"""

import errno
import ipaddress
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import AccessError

_LISTEN = "0A"  # a state in /proc/net/tcp: Documentation/networking/proc_net_tcp.rst
_LOOKS = (0, 0.05, 0.2)  # seconds before each: tables and descriptors are not read at one moment
_UNIX = Path("/proc/net/unix")
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_ANY_4, _ANY_6 = ipaddress.IPv4Address(0), ipaddress.IPv6Address(0)
# What asking for "any" address asks in fact.
_ASKED: dict[Address, Address] = {_ANY_4: ipaddress.IPv4Address("127.0.0.1"), _ANY_6: ipaddress.IPv6Address("::1")}


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket of this machine."""

    address: Address
    port: int
    uid: int
    inode: int


def check(pid: int, host: str, port: int) -> None:
    """See that a request to `host:port` reaches the process `pid` and nobody else.

    Raises:
        AccessError: another process listens there, or that cannot be known.
        ConnectionRefusedError: nobody does.
    """
    for pause_s in _LOOKS:
        time.sleep(pause_s)
        found, own = reached(host, port), _sockets_of(pid)
        # A process that is being killed has no descriptors any more, and for a moment its sockets still listen.
        if not found or (own is not None and not own):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"process {pid} does not listen on {host}:{port}")
        strangers = [one for one in found if (one.inode not in own if own is not None else one.uid != _uid_of(pid))]
        if not strangers:
            return
    raise AccessError(
        f"another process listens on {host}:{port}: it is not given the admin key",
        note=f"process {pid} is the server; the listener belongs to uid {strangers[0].uid}",
        hint=f"who it is, root sees with: ss -ltnp sport = :{port}",
    )


def check_socket(pid: int, path: Path) -> None:
    """See that who listens on a Unix socket is the process `pid`.

    Raises:
        AccessError: another process does, or that cannot be known.
        ConnectionRefusedError: nobody does.
    """
    for pause_s in _LOOKS:
        time.sleep(pause_s)
        try:
            lines = _UNIX.read_text().splitlines()[1:]
        except OSError as error:
            raise AccessError(f"who listens on {path} is not known: {error}: it is not given the key") from error
        found = {int(fields[6]) for line in lines if (fields := line.split(maxsplit=7))[7:] == [str(path)]}
        own = _sockets_of(pid)
        if not found or (own is not None and not own):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"process {pid} does not listen on {path}")
        # Where its descriptors cannot be seen it is whose folder that is: nobody else can put a socket there.
        if found & own if own is not None else path.stat().st_uid == _uid_of(pid):
            return
    raise AccessError(f"another process listens on {path}: it is not given the admin key")


def reached(host: str, port: int) -> list[Listener]:
    """Return the listeners that a connection to `host:port` may reach; a host name may have several addresses.

    Raises:
        AccessError: the kernel does not tell who listens.
    """
    try:
        asked: set[Address] = {
            ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        }
        listening = [one for table in _TABLES if table.exists() for one in _listening(table) if one.port == port]
    except OSError as error:
        raise AccessError(f"who listens on {host}:{port} is not known: {error}: it is not given the key") from error
    if not _TABLES[0].exists():
        raise AccessError(f"who listens on {host}:{port} is not known without {_TABLES[0]}: it is not given the key")
    return [one for address in asked for one in _for_address(listening, _ASKED.get(address, address))]


def _for_address(listening: list[Listener], address: Address) -> list[Listener]:
    """Choose as the kernel does: who listens on just this address goes before who listens on any."""
    in_order = (address, _ANY_4, _ANY_6) if address.version == 4 else (address, _ANY_6)
    for wanted in in_order:
        if found := [one for one in listening if one.address == wanted]:
            return found
    return []


def _listening(table: Path) -> Iterator[Listener]:
    with table.open() as lines:
        next(lines, None)
        for line in lines:
            _, local, _, state, _, _, _, uid, _, inode, *_ = line.split()
            if state != _LISTEN:  # "It will first list all listening TCP sockets": the rest may be long
                return
            address, port = local.split(":")
            yield Listener(_address(address), int(port, 16), int(uid), int(inode))


def _address(text: str) -> Address:
    words = (int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    address = ipaddress.ip_address(b"".join(words))
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _sockets_of(pid: int) -> set[int] | None:
    """Return the inodes of what a process has open, as far as they are sockets; None where this user may not see them.

    A zero stands for all else: empty is the set of a process that has ended, or is about to.
    """
    found: set[int] = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except FileNotFoundError:  # closed since
                continue
            found.add(int(target[len("socket:[") : -1]) if target.startswith("socket:[") else 0)
    except FileNotFoundError:
        return set()
    except PermissionError:  # as a process ends it belongs to root: first it has no memory, then no descriptors
        return None if "VmSize" in _status(pid) else set()
    return found


def _uid_of(pid: int) -> int | None:
    uids = _status(pid).get("Uid")
    return int(uids.split()[0]) if uids else None


def _status(pid: int) -> dict[str, str]:
    """Read what the kernel says of a process; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
