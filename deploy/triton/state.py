"""What runs, written down so that another process can find it: what contracts/running/record.py has, and the rest."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from contracts import signing
from contracts.files import locks, whole
from contracts.running import record as records
from contracts.running.record import Phase as Phase
from contracts.running.record import Process as Process
from contracts.running.record import Record
from deploy.neighbours import own


def directory() -> Path:
    """Return the folder of what a server leaves behind: its log, its admin key, what was written down of it.

    Raises:
        AccessError: it is not ours alone.
    """
    return own.checked(records.directory())


def log_file() -> Path:
    """Return the path of the server's log, one JSON object a line."""
    return directory() / "triton.jsonl"


def process(found: Process) -> psutil.Process | None:
    """Return a process that was written down as psutil's, or None if it has ended."""
    with suppress(psutil.NoSuchProcess):
        handle = psutil.Process(found.pid)
        return handle if found.alive() else None
    return None


@dataclass(frozen=True)
class Case:
    """Why a model is left out although it is released."""

    reason: str
    files: str  # their fingerprint then: once it is another one, the model may be tried again


@dataclass(frozen=True)
class Running(Record):
    """A server that was started, with all that whoever keeps it needs to know."""

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
    found = recorded()
    return found if found is not None and found.alive() else None


def recorded() -> Running | None:
    """Read what was written down last; None if nothing was, or it cannot be read.

    Raises:
        AccessError: another user may have written it.
    """
    try:
        found: dict[str, Any] = dict(json.loads(own.read(_record())))
        triton, supervisor = (Process(**found.pop(name)) for name in ("triton", "supervisor"))
        left_out = {model: Case(**case) for model, case in found.pop("left_out", {}).items()}
        return Running(triton=triton, supervisor=supervisor, left_out=left_out, **found)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def record(server: Running) -> None:
    """Write `server` down in one step: readers never see half of it."""
    whole.write(own.made(directory()) / records.FILE_NAME, json.dumps(asdict(server)), 0o644)


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
    return directory() / records.FILE_NAME
