"""The address that a server listens on, from what the user calls it.

Triton 2.51 takes an IPv4 address alone: of a host name or an IPv6 address its HTTP makes 255.255.255.255, where nobody
reaches it, and says nothing.
"""

import ipaddress
import socket

from deploy.errors import SettingsError


def address_of(host: str) -> str:
    """Return the IP address that `host` names and this machine has: "127.0.0.1" of localhost, "::1" of [::1].

    Args:
        host: An address, in brackets or not, or a name; of a name's addresses an IPv4 one is taken before others.

    Raises:
        SettingsError: it is none of this machine's, or one with a zone (fe80::1%eth0), which Triton does not take.
    """
    name = host.removeprefix("[").removesuffix("]")
    if "%" in name:
        raise SettingsError(
            f"cannot listen on {host}: Triton takes no address with a zone", hint="name another address"
        )
    try:
        found = {info[4][0] for info in socket.getaddrinfo(name or None, 0, type=socket.SOCK_STREAM)} if name else set()
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long
        raise SettingsError(
            f"{host} is no address of this machine: {getattr(error, 'strerror', None) or error}",
            hint="--host takes one of its addresses, localhost, or 0.0.0.0 for all of them",
        ) from error
    addresses = sorted(map(_plain, found), key=lambda address: address.version)
    for address in addresses:
        if _is_ours(address):
            return str(address)
    raise SettingsError(
        f"{host or 'an empty host'} is no address of this machine",
        note=f"it is {', '.join(map(str, addresses))}" if addresses else None,
        hint="--host takes one of its addresses, localhost, or 0.0.0.0 for all of them",
    )


def _plain(text: str | int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
            probe.bind((str(address), 0))
    except OSError:  # of another machine; or there is no IPv6 here
        return False
    return True
