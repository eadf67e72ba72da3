"""Settings of a client: value objects with defaults."""

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Literal, Self, TypedDict
from urllib.parse import SplitResult, urlsplit

from clients import proxies, urls
from clients.errors import InvalidInputError

Protocol = Literal["grpc", "http"]
_PORTS: dict[Protocol, int] = {"grpc": 8001, "http": 8000}
_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": ("grpc", False), "grpcs": ("grpc", True), "http": ("http", False), "https": ("http", True),
}  # fmt: skip
DEFAULT_SERVER = "grpc://127.0.0.1:8001"
DEFAULT_HTTP_SERVER = "http://127.0.0.1:8000"
CONNECT_S = 2.0  # for one connection
_MOST_DOUBLINGS = 30  # of a pause, whose limit is reached long before: floats have a largest one
_HEADER_NAME, _HEADER_VALUE = re.compile(r"[0-9a-z_.-]+"), re.compile(r"[\x20-\x7e]*")  # what gRPC and HTTP both take
_RESERVED_HEADERS = {"content-length", "transfer-encoding"}


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    protocol: Protocol
    host: str
    port: int
    tls: bool = False

    @classmethod
    def of(cls, url: str) -> Self:
        """Parse grpc://host:port, grpcs://, http:// or https://. Without a scheme it is gRPC; without a port, Triton's
        (8001, 8000), or 443 with TLS.

        Raises:
            InvalidInputError: it is not such a URL.
        """
        try:
            parts = urlsplit(url if "://" in url else f"grpc://{url}")
            protocol, tls = _SCHEMES[parts.scheme]
            port = (443 if tls else _PORTS[protocol]) if parts.port is None else parts.port
            host = urls.host_of(parts)
        except (ValueError, KeyError) as error:
            raise _invalid_url(url) from error
        if not port or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise _invalid_url(url)
        return cls(protocol, host, port, tls)

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether this machine is meant: no proxy of the environment's is asked then, as no_proxy need not say."""
        name = self.host.rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            address = ip_address(name.partition("%")[0])
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return (mapped or address).is_loopback or (mapped or address).is_unspecified

    def __str__(self) -> str:
        scheme = next(scheme for scheme, found in _SCHEMES.items() if found == (self.protocol, self.tls))
        return f"{scheme}://{self.netloc}"


@dataclass(frozen=True)
class Tls:
    """Certificates, as PEM files.

    Attributes:
        ca: CA bundle that the server's certificate is checked with. By default HTTP uses the system's trust store, and
            gRPC the roots that it brings, or the file that GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names.
        certificate: The client's own, for mutual TLS.
        key: Its private key, unencrypted; by default it is in the certificate's file.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def context(self) -> ssl.SSLContext:
        """Load the files, for HTTP, and to check them for gRPC.

        Raises:
            InvalidInputError: a file is missing, or holds no certificate or key, or a key that is encrypted.
        """
        if self.key and not self.certificate:
            raise InvalidInputError("a private key needs its certificate", hint="Tls(certificate=…, key=…)")
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key, password="")  # rather than ask for one
        except OSError as error:  # an SSLError is one
            raise InvalidInputError(f"cannot use the certificates: {error}") from error
        return context


@dataclass(frozen=True)
class Retry:
    """When a failed request is sent again. Never after its deadline, nor if that cannot help.

    Backoff is exponential with full jitter (https://aws.amazon.com/builders-library/
    timeouts-retries-and-backoff-with-jitter). Retries that would bring a busy server more load are bounded by a budget
    that all requests of a client share, as in Finagle's and gRPC's retry throttling.

    Attributes:
        max_attempts: Of a request, the first included; 1: never retried. gRPC's service config admits 5, too.
        initial_backoff_s: Upper bound of the first random pause; it doubles with each attempt.
        max_backoff_s: Where the doubling ends.
        budget: Retries for each successful request, in the long run: 0.1 adds at most a tenth to the load.
        burst: Retries that may be spent before any were earned.

    Raises:
        InvalidInputError: one of them is negative, or no attempt is allowed.
    """

    max_attempts: int = 5
    initial_backoff_s: float = 0.05
    max_backoff_s: float = 2.0
    budget: float = 0.1
    burst: int = 10

    def __post_init__(self) -> None:
        rest = (self.initial_backoff_s, self.max_backoff_s, self.budget, self.burst)
        if not (self.max_attempts >= 1 and all(number >= 0 for number in rest)):  # nor is nan
            raise InvalidInputError(f"max_attempts must be 1 or more, and the rest not negative: {self}")

    def backoff_limit_s(self, attempt: int) -> float:
        """Return the upper bound of the pause after so many failed attempts."""
        return min(self.max_backoff_s, self.initial_backoff_s * 2.0 ** min(attempt, _MOST_DOUBLINGS))


@dataclass(frozen=True)
class TransportOptions:
    """How requests travel.

    Attributes:
        headers: Sent with every request, as in `{"authorization": "Bearer …"}`; over gRPC as metadata.
        admin_key: For a server whose model control and shared memory APIs ask for one (Triton's
            --http-restricted-api and --grpc-restricted-protocol). Sent with these requests only.
        admin_header: The header that the server expects it in; over gRPC, `triton-grpc-protocol-` comes before it.
        compression: Of requests and responses. It costs more time than it saves unless the network is slow.
        max_message_bytes: Of a request, and of a response.
        proxy: http://host:port of a forward proxy, for every server; by default the environment's (http_proxy, with TLS
            https_proxy, but for what no_proxy names), and none for a server on this machine's loopback.

    Raises:
        InvalidInputError: a header cannot be sent as it is, or a limit or proxy is invalid.
    """

    tls: Tls = field(default_factory=Tls)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    admin_key: str = field(default="", repr=False)
    admin_header: str = "admin-key"
    compression: Literal["gzip", "deflate"] | None = None
    max_message_bytes: int = 2**31 - 1
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", checked_headers(self.headers))
        checked_headers({self.admin_header: self.admin_key})
        if self.compression not in (None, "gzip", "deflate"):
            raise InvalidInputError(f"compression must be gzip, deflate or None, and is {self.compression!r}")
        if not 0 < self.max_message_bytes < 2**31:
            raise InvalidInputError(f"max_message_bytes must be 1 to 2,147,483,647, and is {self.max_message_bytes:,}")
        if self.proxy:
            object.__setattr__(self, "proxy", proxies.parsed(self.proxy).geturl())


Parameters = Mapping[str, str | int | float | bool]


class InferOptions(TypedDict, total=False):
    """Options of every call that sends inference requests: `Client.infer` explains them."""

    version: str | int
    priority: int
    timeout_s: float | None
    request_id: str
    headers: Mapping[str, str] | None
    parameters: Parameters | None
    idempotent: bool


@dataclass(frozen=True)
class ClientSettings:
    """All settings of a client: `Client` explains them."""

    addresses: tuple[Address, ...]
    timeout_s: float
    retry: Retry
    transport: TransportOptions
    concurrency: int
    hedge_after_s: float | None = None

    @classmethod
    def of(
        cls,
        servers: Sequence[str],
        *,
        timeout_s: float,
        retry: Retry | None,
        transport: TransportOptions | None,
        concurrency: int,
        hedge_after_s: float | None = None,
    ) -> Self:
        """Make settings of what a client was given, with the defaults of what was not.

        Raises:
            InvalidInputError: an address is invalid, or nothing could be sent.
        """
        transport = transport or TransportOptions()
        addresses = addresses_of(servers, transport)
        if concurrency < 1:
            raise InvalidInputError(f"concurrency must be 1 or more, and is {concurrency}")
        return cls(addresses, timeout_s, retry or Retry(), transport, concurrency, hedge_after_s)

    def via(self, address: Address) -> str:
        """Return the forward proxy that a server is asked through, without its password; "" for none."""
        proxy = proxy_for(address, self.transport)
        return f"http://{proxies.netloc(proxy)}" if proxy else ""


def addresses_of(urls: Sequence[str], transport: TransportOptions) -> tuple[Address, ...]:
    """Parse the URLs of a client's servers.

    Raises:
        InvalidInputError: one is invalid, or does without the TLS that certificates are given for: headers and admin
            key would be sent in the clear.
    """
    addresses = tuple(Address.of(url) for url in urls or (DEFAULT_SERVER,))
    if transport.tls != Tls() and (plain := [str(address) for address in addresses if not address.tls]):
        raise InvalidInputError(
            f"certificates are given, and {', '.join(plain)} is without TLS", hint="grpcs://… or https://…"
        )
    return addresses


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check headers, and put their names in lower case, as gRPC wants them.

    Raises:
        InvalidInputError: a name or value is not what both protocols carry. The message does not show the value.
    """
    checked = {name.lower(): value for name, value in headers.items()}
    for name, value in checked.items():
        if (
            not _HEADER_NAME.fullmatch(name) or name in _RESERVED_HEADERS or name.endswith("-bin")
        ):  # which gRPC takes for bytes
            raise InvalidInputError(f"{name!r} cannot be sent as a header", hint="letters, digits, - _ and .")
        if not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
            raise InvalidInputError(f"the header {name} has a character that is not printable ASCII")
    return checked


def proxy_for(address: Address, transport: TransportOptions) -> SplitResult | None:
    """Return the forward proxy that a server is asked through, if any.

    Raises:
        InvalidInputError: the environment's is none that can be used.
    """
    if transport.proxy:
        return proxies.parsed(transport.proxy)
    if address.is_local:
        return None
    found = proxies.of_environment(address.host, address.port, tls=address.tls)
    return proxies.parsed(found, f"http{'s' * address.tls}_proxy") if found else None


def _invalid_url(url: str) -> InvalidInputError:
    return InvalidInputError(
        f"invalid server URL {urls.without_password(url)!r}", hint="as in grpc://127.0.0.1:8001 or https://host:8443"
    )
