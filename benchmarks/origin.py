"""Where figures come from: the commit, the machine, what else it was doing, and the versions of what was measured."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from contracts import layout


@dataclass(frozen=True)
class Began:
    """When a measurement began, and the load of the machine then."""

    at: float  # seconds since the epoch
    load: tuple[float, float, float]  # processes that ran or waited, over 1, 5 and 15 minutes

    @classmethod
    def now(cls) -> "Began":
        """Look at the machine before anything is measured."""
        return cls(time.time(), os.getloadavg())


def describe(began: Began | None = None, versions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Describe where the figures of this run come from; to be called when they are all there."""
    commit, dirty = _commit()
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
