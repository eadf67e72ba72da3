"""The evidence of a day: every step with its verdict, as JSON, as a page, and as one archive to take along."""

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu_day.day import Device
from benchmarks.gpu_day.record import Check, Record
from benchmarks.gpu_day.steps import Step
from cli.terminal import plain

SCHEMA_VERSION = 1
FILE_NAME, PAGE_NAME = "evidence.json", "evidence.html"
# What is copied off the machine: no repository, no caches, no keys.
_IN_BUNDLE = ("*.json", "*.html", "logs/*", "steps/*.json", "release/*")

Status = Literal["passed", "failed", "skipped", "timed out", "interrupted", "not reached"]
MARKS: Mapping[Status, str] = {
    "passed": "✓", "failed": "✗", "skipped": "–", "timed out": "✗", "interrupted": "✗", "not reached": "–",
}  # fmt: skip


@dataclass(frozen=True)
class StepResult:
    """What came of a step."""

    name: str
    shows: str
    status: Status
    took_s: float
    limit_s: float
    reason: str  # why it was not passed; "" if it was
    checks: tuple[Check, ...] = ()
    figures: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Evidence:
    """A day as far as it has come."""

    began: str  # ISO 8601, UTC
    ended: str | None  # None: it is under way, or was killed
    device: Device
    commit: str | None
    command: str
    budget_s: float
    steps: tuple[StepResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every step that could be taken held."""
        return not self.of("failed", "timed out", "interrupted", "not reached")

    def of(self, *statuses: Status) -> list[StepResult]:
        """List the steps that ended so."""
        return [step for step in self.steps if step.status in statuses]

    def verdict(self) -> str:
        """Say in a line how the day went."""
        counts = {status: len(self.of(status)) for status in MARKS}
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        return f"{'A rehearsal on the CPU' if self.device == 'cpu' else 'On a GPU'}: {told}"


def judged(step: Step, found: Record, how: Status | None, code: int | None, took_s: float) -> StepResult:
    """Make the result of a step from what it found.

    Args:
        how: How it was ended by us; None if it ended by itself.
        code: The exit code of its process then.
    """
    wrong = [check for check in found.checks if not check.passed]
    status: Status = "passed"
    reason = "; ".join(f"{check.name}: {check.detail}" if check.detail else check.name for check in wrong)
    if how is not None:
        status, reason = how, f"{how} after {took_s:.0f} s{f'; {reason}' if reason else ''}"
    elif found.skipped:
        status, reason = "skipped", found.skipped
    elif found.error:
        status, reason = "failed", found.error
    elif code:
        status, reason = "failed", f"its process was killed by signal {-code}" if code < 0 else f"exit code {code}"
    elif wrong:
        status = "failed"
    return StepResult(
        step.name, step.shows, status, round(took_s, 1), step.limit_s, reason, tuple(found.checks), found.figures
    )


def not_taken(step: Step, status: Status, reason: str) -> StepResult:
    """Make the result of a step that was not begun."""
    return StepResult(step.name, step.shows, status, 0.0, step.limit_s, reason)


def with_step(evidence: Evidence, result: StepResult) -> Evidence:
    """Return the evidence with one more step."""
    return replace(evidence, steps=(*evidence.steps, result))


def write(evidence: Evidence, folder: Path) -> None:
    """Write the JSON and the page, each in one step for a reader."""
    _replace(folder / FILE_NAME, json.dumps({"schema": SCHEMA_VERSION, **asdict(evidence)}, indent=2, default=str))
    _replace(folder / PAGE_NAME, page(evidence))


def read(folder: Path) -> Evidence:
    """Read what `write` wrote."""
    raw = json.loads((folder / FILE_NAME).read_text())
    del raw["schema"]
    steps = [{**step, "checks": tuple(Check(**check) for check in step["checks"])} for step in raw["steps"]]
    return Evidence(**{**raw, "steps": tuple(StepResult(**step) for step in steps)})


def page(evidence: Evidence) -> str:
    """Render the page: self-contained, no network, no other files."""
    import jinja2
    from markupsafe import Markup

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else plain(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html.j2").render(evidence=evidence, marks=MARKS, tables=tables, others=others)


def tables(figures: Mapping[str, Any] | None) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the figures that are lists of rows with the same columns: what is best read as a table."""
    return {
        name: rows
        for name, rows in (figures or {}).items()
        if isinstance(rows, list) and rows and all(isinstance(row, dict) and [*row] == [*rows[0]] for row in rows)
    }


def others(figures: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the other figures, but for those that are empty."""
    rows = tables(figures)
    left = {name: value for name, value in (figures or {}).items() if name not in rows and value not in ({}, [])}
    return {name: _shown(value) for name, value in left.items()}


def _shown(value: Any) -> Any:
    return ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else value


def bundle(folder: Path) -> Path:
    """Put what is worth keeping into one archive beside the folder; return it."""
    archive = folder.with_name(f"{folder.name}.tar.gz")
    partial = archive.with_name(f".{archive.name}")
    with tarfile.open(partial, "w:gz") as packed:
        for path in sorted({path for pattern in _IN_BUNDLE for path in folder.glob(pattern) if path.is_file()}):
            packed.add(path, f"{folder.name}/{path.relative_to(folder)}")
    return partial.replace(archive)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
