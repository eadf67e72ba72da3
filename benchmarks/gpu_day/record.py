"""What a step found, written down as it finds it: a step that is killed leaves what it had.

GpuDayError
├── SkippedError      this step cannot be taken here
└── StepError   it was taken, and went wrong
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError


class GpuDayError(BenchmarkError):
    """A step of a GPU day did not go through."""


class SkippedError(GpuDayError):
    """A step cannot be taken on this machine, with what is lacking."""


class StepError(GpuDayError):
    """A step went wrong."""


@dataclass(frozen=True)
class Check:
    """Something that has to hold."""

    name: str
    passed: bool
    detail: str = ""


@dataclass
class Record:
    """What a step found so far. Every addition is on disk when it returns."""

    path: Path
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None
    error: str | None = None

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        """Add something that has to hold, and whether it does."""
        self.checks.append(Check(name, bool(passed), detail))
        print(f"{'✓' if passed else '✗'} {name}{': ' if detail else ''}{detail}", flush=True)
        self.write()

    def figure(self, **figures: Any) -> None:
        """Add what was measured, under names with units."""
        self.figures |= figures
        print(json.dumps(figures), flush=True)
        self.write()

    def write(self) -> None:
        """Put all of it on disk, in one step for a reader."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}")
        raw = {name: value for name, value in asdict(self).items() if name != "path"}
        partial.write_text(json.dumps(raw, indent=2, default=str) + "\n")
        partial.replace(self.path)


def read(path: Path) -> Record:
    """Read what a step found; an empty record if it was ended before it found anything."""
    if not path.is_file():
        return Record(path)
    raw: Mapping[str, Any] = json.loads(path.read_text())
    checks = [Check(**check) for check in raw["checks"]]
    return Record(path, checks, dict(raw["figures"]), raw["skipped"], raw["error"])
