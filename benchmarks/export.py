"""What an export costs: wall time and memory, of whole `python -m export` processes, cold and with everything cached.

Each goes into a model repository and an artifacts folder of its own, so that nothing is published and nothing is
cached but what the run before it made.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.errors import MeasurementError
from contracts import layout

# What is measured, {name: flags}; the last one finds everything that the one before it made.
RUNS: Mapping[str, Sequence[str]] = {
    "without search": ("--search", "never"),
    "with search": ("--search", "always", "--force"),
    "nothing changed": ("--search", "always"),
}
_INTERVAL_S = 0.05


@dataclass(frozen=True)
class Run:
    """One export."""

    name: str
    seconds: float
    peak_rss_mb: float  # of the process and its children together; pages that they share count twice


def measure(name: str, family: str, checkpoint: Path, scratch: Path) -> Run:
    """Run the export `name` of RUNS.

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
    return Run(name, round(seconds, 1), round(peak / 1e6))


def _rss(process: psutil.Process) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    return total
