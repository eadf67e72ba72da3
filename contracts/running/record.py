"""What `deploy up` writes down of its server in `artifacts/server/server.json`, for other processes to find it.

One server an artifacts directory; another one needs its own ARTIFACTS_DIR and ports. What only `deploy` reads of it is
in deploy/triton/state.py.
"""

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from contracts import layout

FILE_NAME = "server.json"
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
# "crash loop": it is down, after several crashes in a row, until it is tried again.
Phase = Literal["starting", "ready", "restarting", "crash loop", "stopping"]
# Listened on, and no addresses to ask.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def directory() -> Path:
    """Return the folder of what a server leaves behind: its log, its admin key, what was written down of it."""
    return layout.artifacts() / "server"


def file() -> Path:
    """Return the path of the record."""
    return directory() / FILE_NAME


@dataclass(frozen=True)
class Process:
    """A process that can be told from a later one with the same number."""

    pid: int
    started: int  # clock ticks after boot: unlike a time of day, no clock adjustment moves it

    @classmethod
    def of(cls, pid: int) -> Self:
        """Describe the process that has this number now.

        Raises:
            OSError: there is none.
        """
        return cls(pid, _status(pid)[1])

    def alive(self) -> bool:
        """Tell whether it has not ended."""
        with suppress(OSError, ValueError, IndexError):
            state, started = _status(self.pid)
            return started == self.started and state != "Z"
        return False


@dataclass(frozen=True)
class Record:
    """A server that was started; it may have died since."""

    triton: Process
    supervisor: Process  # which started it, watches it and takes it down
    phase: Phase
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    repository: str  # that the user named
    grpc_tls: bool = field(default=False, kw_only=True)
    http_socket: str | None = field(default=None, kw_only=True)  # a Unix socket, in place of host and port

    def alive(self) -> bool:
        """Tell whether it runs, or is about to be started again."""
        return self.triton.alive() or self.supervisor.alive()

    @property
    def http(self) -> str:
        """Where it listens: host:port, or unix:/path."""
        return f"unix:{self.http_socket}" if self.http_socket else f"{in_url(self.host)}:{self.http_port}"

    @property
    def http_address(self) -> Path | str:
        """Where it listens: a socket's path, or host:port."""
        return Path(self.http_socket) if self.http_socket else self.http

    @property
    def grpc(self) -> str:
        """Where it listens: host:port."""
        return f"{in_url(self.host)}:{self.grpc_port}"

    @property
    def metrics(self) -> str:
        """The URL of its metrics."""
        return f"http://{in_url(self.host)}:{self.metrics_port}/metrics"

    @property
    def http_url(self) -> str:
        """The URL that this machine asks it at over HTTP; of a socket it is unix:/path."""
        if self.http_socket:
            return self.http
        return f"http://{asked_at(self.host)}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        """The URL that this machine asks it at over gRPC."""
        return f"grpc{'s' * self.grpc_tls}://{asked_at(self.host)}:{self.grpc_port}"


def in_url(address: str) -> str:
    """Return an address as it stands before a port: IPv6 ones in brackets."""
    return f"[{address}]" if ":" in address else address


def asked_at(address: str) -> str:
    """Return, as it stands before a port, where this machine asks who listens at an address."""
    return in_url(_ANY.get(address, address))


def running() -> Record | None:
    """Return the server of this artifacts directory, unless both it and its supervisor have ended."""
    found = recorded()
    return found if found is not None and found.alive() else None


def recorded() -> Record | None:
    """Read what was written down last; None if nothing was, if it cannot be read, or others may have written it."""
    try:
        raw: dict[str, Any] = dict(json.loads(_read(file())))
        known = {entry.name: raw[entry.name] for entry in fields(Record) if entry.name in raw}
        triton, supervisor = (Process(**known.pop(name)) for name in ("triton", "supervisor"))
        return Record(triton=triton, supervisor=supervisor, **known)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _read(path: Path) -> str:
    """Read a file that nobody but us or root can have written: it says to whom requests are sent.

    Raises:
        OSError: somebody else can, or it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        for found in (path.parent.stat(), os.fstat(descriptor)):
            if found.st_uid not in (0, os.geteuid()) or found.st_mode & _WRITABLE:
                raise PermissionError(f"others may have written {path}")
        return stream.read()


def _status(pid: int) -> tuple[str, int]:
    """Return the state of a process, one letter, and when it was started: fields 3 and 22 of its stat."""
    found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return found[0], int(found[22 - 3])
