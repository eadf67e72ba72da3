"""What runs, written down in `artifacts/server/server.json` so that another process can find it.

One server an artifacts directory; another one needs its own ARTIFACTS_DIR and ports.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

import psutil

from contracts import layout, signing
from contracts.files import locks, whole
from deploy.neighbours import hosts, own

# "crash loop": it is down, after several crashes in a row, until it is tried again.
_RECORD = "server.json"

Phase = Literal["starting", "ready", "restarting", "crash loop", "stopping"]


def directory() -> Path:
    """Return the folder of what a server leaves behind: its log, its admin key, what was written down of it.

    Raises:
        AccessError: it is not ours alone.
    """
    return own.checked(layout.artifacts() / "server")


def log_file() -> Path:
    """Return the path of the server's log, one JSON object a line."""
    return directory() / "triton.jsonl"


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
        return cls(pid, _started(pid))

    def alive(self) -> psutil.Process | None:
        """Return it as psutil's, or None if it has ended."""
        with suppress(psutil.NoSuchProcess, OSError):
            process = psutil.Process(self.pid)
            if _started(self.pid) == self.started and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


@dataclass(frozen=True)
class Case:
    """Why a model is left out although it is released."""

    reason: str
    files: str  # their fingerprint then: once it is another one, the model may be tried again


@dataclass(frozen=True)
class Running:
    """A server that was started; it may have died since."""

    triton: Process
    supervisor: Process  # which started it, watches it and takes it down
    phase: Phase
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    repository: str  # that the user named
    served: str  # what Triton is given: a private repository, assembled from verified copies
    admin_key_file: str | None  # None: the key came from the environment
    shared_memory: str  # what the names of its regions in /dev/shm begin with
    drain_s: int
    config_name: str | None = None  # which of a model's configurations it takes
    native: bool = True  # whether it has Triton's own backend for ONNX Runtime
    verify_key: str | None = None  # what its releases have to be signed with, if anything
    verify_chain: tuple[str, ...] = ()
    verify_identity: str | None = None
    accept_expired_after: str | None = None  # ISO 8601
    grpc_tls: bool = False
    server_restarts: int = 0
    worker_restarts: int = 0
    left_out: Mapping[str, Case] = field(default_factory=dict)  # {model that did not load or did harm: why}
    warm_up: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # {"MODEL/VERSION": its counts}
    memory: str | None = None  # what limits its memory, in words

    @property
    def failed(self) -> dict[str, str]:
        """Return {model that is left out: the reason}."""
        return {model: case.reason for model, case in self.left_out.items()}

    @property
    def trust(self) -> signing.Trust | None:
        """What its releases have to be signed with, if anything."""
        if not (self.verify_key or self.verify_chain):
            return None
        key = Path(self.verify_key) if self.verify_key else None
        chain = tuple(Path(certificate) for certificate in self.verify_chain)
        since = date.fromisoformat(self.accept_expired_after) if self.accept_expired_after else None
        return signing.Trust(key, chain, self.verify_identity, since)

    @property
    def http(self) -> str:
        """Where it listens: host:port."""
        return f"{hosts.in_url(self.host)}:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Where it listens: host:port."""
        return f"{hosts.in_url(self.host)}:{self.grpc_port}"

    @property
    def metrics(self) -> str:
        """The URL of its metrics."""
        return f"http://{hosts.in_url(self.host)}:{self.metrics_port}/metrics"


def trusting(trust: signing.Trust | None) -> dict[str, Any]:
    """Return what is written down of what releases have to be signed with: the fields that `Running.trust` reads.

    Who reloads it may be somewhere else, so the files are named from the root.
    """
    if trust is None:
        return {}
    return {
        "verify_key": str(trust.public_key.absolute()) if trust.public_key else None,
        "verify_chain": tuple(str(path.absolute()) for path in trust.chain),
        "verify_identity": trust.identity,
        "accept_expired_after": trust.accept_expired_after.isoformat() if trust.accept_expired_after else None,
    }


def running() -> Running | None:
    """Return the server of this artifacts directory, unless both it and its supervisor have ended."""
    state = recorded()
    return state if state is not None and (state.triton.alive() or state.supervisor.alive()) else None


def recorded() -> Running | None:
    """Read what was written down last; None if nothing was, or it cannot be read.

    Raises:
        AccessError: another user may have written it.
    """
    try:
        found: dict[str, Any] = json.loads(own.read(_record()))
        triton, supervisor = (Process(**found.pop(name)) for name in ("triton", "supervisor"))
        left_out = {model: Case(**case) for model, case in found.pop("left_out", {}).items()}
        return Running(triton=triton, supervisor=supervisor, left_out=left_out, **found)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def record(server: Running) -> None:
    """Write `server` down in one step: readers never see half of it."""
    whole.write(own.made(directory()) / _RECORD, json.dumps(asdict(server)), 0o644)


def forget(server: Running) -> None:
    """Remove what was written down, unless another server has taken its place since."""
    with locked():
        if (state := recorded()) is not None and state.supervisor == server.supervisor:
            _record().unlink(missing_ok=True)


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock under which one process at a time decides which server is the one."""
    with locks.locked(own.made(directory()) / "up.lock"):
        yield


def _record() -> Path:
    return directory() / _RECORD


def _started(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[22 - 3])  # field 22; the first behind the name is field 3
