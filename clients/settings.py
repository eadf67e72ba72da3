"""How a client calls: value objects with the defaults that most want."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from clients.errors import InvalidInputError

Protocol = Literal["grpc", "http"]
_PORTS: dict[Protocol, int] = {"grpc": 8001, "http": 8000}
_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": ("grpc", False), "grpcs": ("grpc", True), "http": ("http", False), "https": ("http", True),
}  # fmt: skip
DEFAULT_SERVER = "grpc://127.0.0.1:8001"


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
        except (ValueError, KeyError) as error:
            raise _no_address(url) from error
        if not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise _no_address(url)
        return cls(protocol, parts.hostname, port, tls)

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        scheme = next(scheme for scheme, found in _SCHEMES.items() if found == (self.protocol, self.tls))
        return f"{scheme}://{self.netloc}"


@dataclass(frozen=True)
class Tls:
    """How to know the server, and to be known by it. PEM files."""

    ca: Path | None = None  # who signs the server's certificate; None: whom the system trusts
    certificate: Path | None = None  # ours, for mutual TLS
    key: Path | None = None

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
        proxy: http://host:port of a forward proxy; by default the environment's (http_proxy, https_proxy, no_proxy).
    """

    tls: Tls = field(default_factory=Tls)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    admin_key: str = field(default="", repr=False)
    compression: Literal["gzip", "deflate"] | None = None
    max_message_bytes: int = 2**31 - 1
    proxy: str | None = None


def _no_address(url: str) -> InvalidInputError:
    return InvalidInputError(
        f"{url!r} is no address of a server", hint="as in grpc://127.0.0.1:8001 or https://host:8443"
    )
