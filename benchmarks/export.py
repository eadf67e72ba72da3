"""What an export costs: wall time and memory, of whole `python -m export` processes, cold and with everything cached.

Each goes into a model repository and an artifacts folder of its own, so that nothing is published and nothing is
cached but what the run before it made.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks import results
from benchmarks.errors import MeasurementError
from cli import tables
from cli.progress import track
from cli.tables import Table, console
from contracts import layout

# What is measured, {name: flags}; the last one finds everything that the one before it made.
RUNS: Mapping[str, Sequence[str]] = {
    "without search": ("--search", "never"),
    "with search": ("--search", "always", "--force"),
    "nothing changed": ("--search", "always"),
}
_INTERVAL_S = 0.05


@dataclass(frozen=True)
class ExportRun:
    """One export."""

    name: str
    seconds: float
    peak_rss_mb: float  # of the process and its children together; pages that they share count twice


def main(options: argparse.Namespace) -> int:
    """Export with and without search, and once more with everything cached; print and keep."""
    checkpoint = options.checkpoint or _newest_checkpoint(options.family)
    with tempfile.TemporaryDirectory() as scratch:
        runs = [
            measure(name, options.family, checkpoint, Path(scratch)) for name in track(RUNS, "exporting", "exports")
        ]
    console().print(table(runs, f"python -m export {options.family}, whole processes"))
    results.keep("export", {"checkpoint": layout.shown(checkpoint), "runs": [asdict(run) for run in runs]})
    return 0


def measure(name: str, family: str, checkpoint: Path, scratch: Path) -> ExportRun:
    """Run the export `name` of RUNS, and watch its memory.

    Raises:
        MeasurementError: it failed, with the last line that it said.
    """
    repository = scratch / "model_repository"
    if not repository.exists():
        ignored = shutil.ignore_patterns(".publish.lock", ".staging-*", "*.onnx", "*.plan", "report.*", "manifest.json")
        shutil.copytree(layout.model_repository(), repository, ignore=ignored)
    command = [sys.executable, "-m", "export", family, "--checkpoint", str(checkpoint), "--no-register"]
    started, peak = time.monotonic(), 0
    with (scratch / "export.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--repository", str(repository), *RUNS[name]],
            cwd=layout.ROOT,
            env={**os.environ, "ARTIFACTS_DIR": str(scratch / "artifacts")},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                peak = max(peak, _rss(watched))
                time.sleep(_INTERVAL_S)
        finally:
            process.kill()
            process.wait()
        seconds = time.monotonic() - started
        if process.returncode:
            log.seek(0)
            raise MeasurementError(f"the export {name} failed", note=log.read().strip().splitlines()[-1])
    return ExportRun(name, round(seconds, 1), round(peak / 1e6))


def table(runs: Sequence[ExportRun], title: str) -> Table:
    """Lay out the exports, a row each."""
    shown = tables.table("", "seconds", "peak MB", title=title)
    for run in runs:
        shown.add_row(run.name, f"{run.seconds:.1f}", f"{run.peak_rss_mb:,.0f}")
    return shown


def _newest_checkpoint(family: str) -> Path:
    found = sorted((layout.checkpoints() / family).glob("*/best.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise MeasurementError(f"there is no {family} checkpoint", hint="name one with --checkpoint, or train")
    return found[-1]


def _rss(process: psutil.Process) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    return total
