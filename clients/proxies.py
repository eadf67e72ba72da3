"""Forward proxies, and which one the environment has for a server: one reading of it for gRPC and HTTP.

gRPC, urllib and aiohttp each have a reading of their own: which variables, in which case, which patterns in no_proxy.
"""

import base64
import re
from contextlib import suppress
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies

from clients import urls
from clients.errors import InvalidInputError


def of_environment(host: str, port: int, *, tls: bool) -> str | None:
    """Return http_proxy or, with TLS, https_proxy, unless no_proxy names the server; all in either case.

    no_proxy is a list, with commas or blanks: of names, each with all below it (`example.com`, `.example.com`,
    `*.example.com`), of addresses, of networks (`10.0.0.0/8`), any of them with a port, or `*` for every server.
    """
    variables = getproxies()  # lower case goes before upper case
    found = variables.get("https" if tls else "http")
    if not found or any(_names(entry, host, port) for entry in re.split(r"[\s,]+", variables.get("no", "")) if entry):
        return None
    return found


def parsed(url: str, variable: str = "") -> SplitResult:
    """Parse a forward proxy's address.

    Args:
        variable: Of the environment, that names it.

    Raises:
        InvalidInputError: it is not one.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        urls.host_of(parts), parts.port  # which raises, too
    except ValueError as error:
        raise _invalid(url, variable) from error
    if parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _invalid(url, variable)
    return parts


def authorization(proxy: SplitResult) -> dict[str, str]:
    """Return the header that a proxy's user and password make."""
    if proxy.username is None:
        return {}
    who = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {base64.b64encode(who.encode()).decode()}"}


def netloc(proxy: SplitResult) -> str:
    """Return host:port of a proxy, without its user and password."""
    host = f"[{proxy.hostname}]" if ":" in str(proxy.hostname) else proxy.hostname
    return f"{host}:{proxy.port or 80}"


def _names(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of no_proxy means a server."""
    if entry == "*":
        return True
    pattern, wanted = _split(entry)
    if wanted and wanted != str(port):
        return False
    name, below = host.rstrip(".").lower(), pattern.lower().removeprefix("*").strip(".")
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return bool(below) and (name == below or name.endswith(f".{below}"))
    with suppress(ValueError):  # of a name
        return address in ip_network(pattern, strict=False)
    return False


def _split(entry: str) -> tuple[str, str]:
    """Split off a port; an IPv6 address with one is in brackets."""
    if found := re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+):(\d+)", entry):
        return found[1] or found[3], found[2] or found[4] or ""
    return entry, ""


def _invalid(url: str, variable: str) -> InvalidInputError:
    source = f", which {variable} names" if variable else ""
    hint = "; a server that needs no proxy belongs into no_proxy" if variable else ""
    return InvalidInputError(
        f"invalid proxy URL {urls.without_password(url)!r}{source}", hint=f"as in http://proxy:3128{hint}"
    )
