"""How a server is started: addresses, security, tracing, limits."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from contracts import layout, signing
from contracts.files import whole
from deploy.devices.chosen import Device
from deploy.errors import SettingsError
from deploy.neighbours import own

ADMIN_HEADER = "admin-key"  # of HTTP requests; gRPC metadata carries it as `triton-grpc-protocol-admin-key`
ADMIN_KEY_VARIABLE = "ADMIN_KEY"
SERVED_VARIABLE = "MODEL_SERVED"


@dataclass(frozen=True)
class Tls:
    """The server's side of TLS on the gRPC port. PEM files."""

    certificate: Path
    key: Path
    client_ca: Path | None = None  # given: mutual TLS, only clients with a certificate below it are served


@dataclass(frozen=True)
class Traces:
    """Where OpenTelemetry spans of inference requests go."""

    endpoint: str  # OTLP over HTTP, as in http://localhost:4318/v1/traces
    rate: int = 1  # one request in so many


@dataclass(frozen=True)
class Settings:
    """How a server is started."""

    repository: Path = field(default_factory=layout.model_repository)
    device: Device = "auto"
    ensembles: bool = False  # on a CPU, too, each step of an ensemble is a model of its own, as on a GPU
    host: str = "127.0.0.1"  # an IP address
    http_port: int = 8000
    http_socket: Path | None = None  # a Unix socket, in place of host and port: who may enter its folder reaches it
    grpc_port: int = 8001
    metrics_port: int = 8002
    trust: signing.Trust | None = None  # what every release must be signed with
    admin_key_file: Path | None = None  # default: the environment's ADMIN_KEY, else a generated one
    tls: Tls | None = None
    traces: Traces | None = None
    cache_bytes: int = 0  # of the response cache; 0 is off
    http_max_bytes: int | None = None  # of a request's body, for a Triton that limits it; None: as that does
    allow_client_shm: bool = False  # clients on the same machine may have it map their memory
    rate_limit: bool = False  # heed the rate limiter's resources in the configurations
    auto_complete: bool = False  # let Triton add what a configuration leaves out: inputs, outputs, a batch size
    user: str | None = None  # that a root-started server becomes: "NAME", "UID" or "UID:GID"
    variables: tuple[str, ...] = ()  # more of our environment that models are given
    drain_s: int = 30  # how long a stopping server may finish what it has accepted
    memory_bytes: int | None = None  # that the server and its workers may take
    log_verbose: int = 0  # Triton's; 1 tells of CUDA graphs and of every request
    strict: bool = True  # all of the repository or nothing; else what cannot be served is left out, by name


def admin_key(file: Path | None) -> str:
    """Return the key that the admin APIs ask for: `file`'s, else the environment's, else one generated once.

    Raises:
        SettingsError: the file is missing, readable by others, or holds no usable key.
        AccessError: the generated one may be another user's.
    """
    if file is None and (key := os.environ.get(ADMIN_KEY_VARIABLE)):
        return _usable(key, ADMIN_KEY_VARIABLE)
    if file is None:
        return _generated()
    try:
        if file.stat().st_mode & 0o007:
            raise SettingsError(f"others may read the admin key in {file}", hint=f"chmod o= {file}")
        return _usable(file.read_text().strip(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the admin key from {file}: {error}") from error


def served_home() -> Path:
    """Return the folder of what servers are given: MODEL_SERVED (a larger disk), else one beside the server's log."""
    return Path(os.environ.get(SERVED_VARIABLE) or layout.artifacts() / "server" / "served").resolve()


def generated_key_file() -> Path:
    """Return the file of the key that is made where none was given."""
    return layout.artifacts() / "server" / "admin.key"


def _generated() -> str:
    """Read the key that was generated, once it is: one that somebody else put there they know."""
    file = generated_key_file()
    own.made(file.parent)
    try:
        _generate(file)
        return _usable(own.read(file).strip(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the admin key from {file}: {error}") from error


def _generate(file: Path) -> None:
    partial = whole.unused_name(file)
    with os.fdopen(whole.create(partial, 0o600), "w") as stream:
        stream.write(secrets.token_urlsafe(32) + "\n")
    try:
        os.link(partial, file)  # unlike a rename, never replaces a key that another process has just made
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def _usable(key: str, source: str) -> str:
    # It travels in an HTTP header and in gRPC metadata, which take no more than this.
    if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(
            f"{source} holds no usable admin key",
            note="it takes 16 or more printable ASCII characters, and no space",
            hint=f"make one: (umask 077; openssl rand -hex 32 > {generated_key_file().name})",
        )
    return key
