"""Where raw figures are kept, each with where it comes from: the commit, the machine, what else that did, versions.

A result file is one JSON object: `schema`; `what`, the command; `origin`; and what that command found. Those that
`report` and `compare` read have `measurements`, a list of {what tells it from the others…,
"rounds": [{figure: a number}, …]}.
"""

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import MeasurementError
from contracts import layout
from contracts.files import whole

SCHEMA = 1
NOISY = 0.1  # of the machine's CPU, taken by others: with more, shares of a limit are not to be trusted


@dataclass(frozen=True)
class Began:
    """When a measurement began, of what, and the load of the machine then."""

    at: float  # seconds since the epoch
    load: tuple[float, float, float]  # processes that ran or waited, over 1, 5 and 15 minutes
    commit: str | None  # None outside of git
    dirty: bool | None  # tracked files differ from it

    @classmethod
    def now(cls) -> "Began":
        """Look at the machine before anything is measured."""
        return cls(time.time(), os.getloadavg(), *_commit())


@dataclass(frozen=True)
class Machine:
    """The hardware, as far as the kernel tells."""

    cpu: str
    cores: int  # that this process may use
    memory_gb: float
    kernel: str
    virtual: bool  # below a hypervisor: neighbours that no load average shows

    @classmethod
    def this(cls) -> "Machine":
        """Describe the machine that this runs on."""
        told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
        return cls(
            names[0] if names else platform.processor() or platform.machine(),
            len(os.sched_getaffinity(0)),
            round(psutil.virtual_memory().total / 1e9, 1),
            platform.release(),
            " hypervisor" in told,
        )


def directory() -> Path:
    """Return the folder of all results; make it if need be."""
    return made(layout.artifacts() / "benchmarks")


def made(folder: Path) -> Path:
    """Make a folder that somebody named, if need be.

    Raises:
        MeasurementError: something else is there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise MeasurementError(f"{layout.shown(folder)} cannot be a folder: {error.strerror}") from error
    return folder


def keep(name: str, summary: dict[str, Any], began: Began | None = None) -> Path:
    """Write the raw figures into a file, and print them as the last line, for machines.

    Returns:
        The file.
    """
    record = write(name, summary, began)
    print(f"Kept in {layout.shown(record)}")
    print(json.dumps(plain(summary)))
    return record


def write(
    name: str, summary: Mapping[str, Any], began: Began | None = None, versions: Mapping[str, str] | None = None
) -> Path:
    """Write the raw figures into a file, with where they come from; return it.

    Args:
        began: When the measurement did.
        versions: Of what was measured, beside Python's.
    """
    found = {"schema": SCHEMA, "what": name, "origin": _origin(began, versions), **summary}
    text = json.dumps(plain(found), indent=1) + "\n"
    try:
        record = directory() / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
        whole.write(record, text)
    except OSError:  # an hour's figures are not lost with the room on a disk
        print(text)
        raise
    return record


def plain(told: Any) -> Any:
    """Return it without numbers that JSON has not: null, as there is no percentile of no answers."""
    if isinstance(told, Mapping):
        return {key: plain(value) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [plain(value) for value in told]
    return None if isinstance(told, float) and not math.isfinite(told) else told


def read(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        MeasurementError: there is none, or it is none, or of a later schema.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MeasurementError(f"{layout.shown(path)} is no result: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("schema"), int):
        raise MeasurementError(f"{layout.shown(path)} is no result that says where it comes from")
    if found["schema"] > SCHEMA:
        raise MeasurementError(f"{layout.shown(path)} is of schema {found['schema']}, this reads up to {SCHEMA}")
    return found


def _origin(began: Began | None = None, versions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Describe where the figures of this run come from; to be called when they are all there."""
    commit, dirty = (began.commit, began.dirty) if began else _commit()
    return {
        "began": _utc(began.at) if began else None,
        "ended": _utc(time.time()),
        "commit": commit,
        "dirty": dirty,
        "machine": asdict(Machine.this()),
        "load_before": list(began.load) if began else None,
        "load_after": list(os.getloadavg()),
        "versions": {"python": platform.python_version(), **(versions or {})},
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _commit() -> tuple[str | None, bool | None]:
    """Return the commit, and whether tracked files differ from it; (None, None) outside of git."""
    try:
        return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(layout.ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
