"""What the URLs of servers and of proxies have in common."""

import re
from urllib.parse import SplitResult

_HOST = re.compile(r"[0-9A-Za-z_.:%-]+")


def host_of(parts: SplitResult) -> str:
    """Return the host of a URL, in ASCII.

    Raises:
        ValueError: it has none that could be one.
    """
    host = parts.hostname or ""
    if ":" not in host:
        host = host.encode("idna").decode()
    if not _HOST.fullmatch(host):
        raise ValueError(host)
    return host


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}…@{rest.rpartition('@')[2]}" if "@" in rest else url
