"""How a client calls: value objects with the defaults that most want."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self
from urllib.parse import SplitResult, urlsplit

from clients.errors import InvalidInputError

Protocol = Literal["grpc", "http"]
_PORTS: dict[Protocol, int] = {"grpc": 8001, "http": 8000}
_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": ("grpc", False), "grpcs": ("grpc", True), "http": ("http", False), "https": ("http", True),
}  # fmt: skip
DEFAULT_SERVER = "grpc://127.0.0.1:8001"
_HOST = re.compile(r"[0-9A-Za-z_.:%-]+")
_HEADER_NAME, _HEADER_VALUE = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[\x20-\x7e]*")  # what gRPC and HTTP both take
_OURS = {"content-length", "transfer-encoding"}


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    protocol: Protocol
    host: str
    port: int
    tls: bool = False

    @classmethod
    def of(cls, url: str) -> Self:
        """Of grpc://host:port, grpcs://, http:// or https://; by default it is gRPC, and the protocol's usual port.

        Raises:
            InvalidInputError: it is no such address.
        """
        try:
            parts = urlsplit(url if "://" in url else f"grpc://{url}")
            protocol, tls = _SCHEMES[parts.scheme]
            port = parts.port or (443 if tls else _PORTS[protocol])
            host = _host(parts)
        except (ValueError, KeyError) as error:
            raise _no_address(url) from error
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise _no_address(url)
        return cls(protocol, host, port, tls)

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        scheme = next(scheme for scheme, found in _SCHEMES.items() if found == (self.protocol, self.tls))
        return f"{scheme}://{self.netloc}"


@dataclass(frozen=True)
class Tls:
    """How to know the server, and to be known by it. PEM files."""

    # Who signs the server's certificate. None: over HTTP whom the system trusts, over gRPC whom gRPC does: the list
    # that it brings, or the file that GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names.
    ca: str | Path | None = None
    certificate: str | Path | None = None  # ours, for mutual TLS
    key: str | Path | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP.

        Raises:
            InvalidInputError: a file is missing or holds none.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an SSLError is one
            raise InvalidInputError(f"cannot use the certificates: {error}") from error
        return context


@dataclass(frozen=True)
class Retry:
    """When a request is sent again. Never after its deadline, nor if that cannot help.

    Pauses are random, up to a limit that doubles ("full jitter": https://aws.amazon.com/builders-library/
    timeouts-retries-and-backoff-with-jitter). A server that refused for having too much to do is asked again only
    within a budget, which all requests of a client share: else every refusal would bring more load.
    """

    attempts: int = 5  # in all; 1: never again
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    budget: float = 0.1  # such retries for each answer, in the long run
    burst: int = 10  # and so many at once


@dataclass(frozen=True)
class Transport:
    """How bytes travel.

    Attributes:
        headers: Of every request: `{"authorization": "Bearer …"}`. gRPC carries them as metadata.
        admin_key: What the server's admin APIs ask for: model control and shared memory. Sent to no other.
        compression: Of requests. It costs more time than it saves unless the network is slow.
        max_message_bytes: Of a request, and of an answer.
        proxy: http://host:port of a forward proxy; by default the environment's (http_proxy, https_proxy, no_proxy).

    Raises:
        InvalidInputError: a header is none, or would be sent as another one.
    """

    tls: Tls = field(default_factory=Tls)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    admin_key: str = field(default="", repr=False)
    compression: Literal["gzip", "deflate"] | None = None
    max_message_bytes: int = 2**31 - 1
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", checked_headers(self.headers))
        checked_headers({"admin-key": self.admin_key})
        if not 0 < self.max_message_bytes < 2**31:
            raise InvalidInputError(f"max_message_bytes is {self.max_message_bytes:,}", hint="up to 2,147,483,647")
        if self.proxy:
            object.__setattr__(self, "proxy", proxy_of(self.proxy).geturl())


def checked_concurrency(count: int) -> None:
    """That something can be sent.

    Raises:
        InvalidInputError: nothing could be sent.
    """
    if count < 1:
        raise InvalidInputError(f"a concurrency of {count}", hint="1 or more")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """With names in lower case, as gRPC wants them.

    Raises:
        InvalidInputError: a name or value is not what both protocols carry; the message keeps the value to itself.
    """
    checked = {name.lower(): value for name, value in headers.items()}
    for name, value in checked.items():
        if not _HEADER_NAME.fullmatch(name) or name in _OURS or name.endswith("-bin"):  # which gRPC takes for bytes
            raise InvalidInputError(f"{name!r} is no header to send", hint="letters, digits, - _ and .")
        if not _HEADER_VALUE.fullmatch(value):
            raise InvalidInputError(f"the header {name} has a character that is not printable ASCII")
    return checked


def proxy_of(url: str) -> SplitResult:
    """The parts of a forward proxy's address.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        _host(parts), parts.port  # which raises, too
    except ValueError as error:
        raise _no_proxy(url) from error
    if parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _no_proxy(url)
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" not in host:
        host = host.encode("idna").decode()
    if not _HOST.fullmatch(host):
        raise ValueError(host)
    return host


def _no_address(url: str) -> InvalidInputError:
    return InvalidInputError(
        f"{_without_password(url)!r} is no address of a server",
        hint="as in grpc://127.0.0.1:8001 or https://host:8443",
    )


def _no_proxy(url: str) -> InvalidInputError:
    return InvalidInputError(f"{_without_password(url)!r} is no proxy", hint="as in http://proxy:3128")


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}…@{rest.rpartition('@')[2]}" if "@" in rest else url
