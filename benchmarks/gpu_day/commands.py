"""What `python -m benchmarks gpu-day` does; it returns the exit code."""

import argparse
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.errors import MeasurementError
from benchmarks.gpu_day import evidence, needs, run
from benchmarks.gpu_day.day import Day, Device
from benchmarks.gpu_day.evidence import MARKS, Evidence, StepResult
from benchmarks.gpu_day.steps import STEPS, Step
from cli import tables
from cli.tables import console
from contracts import layout, manifest
from deploy.triton import environment

COMMIT_VARIABLE = "GPU_DAY_COMMIT"


def main(options: argparse.Namespace) -> int:
    """Take the steps, print them as they end, and say where the evidence is; 0 only if none that was taken failed."""
    steps = _chosen(options.only)
    device: Device = ("gpu" if needs.has_gpu() else "cpu") if options.device == "auto" else options.device
    day = Day(
        folder=(options.folder or layout.artifacts() / "gpu-day" / time.strftime("%Y%m%d-%H%M%S")).resolve(),
        device=device,
        export=_with_checkpoint(shlex.split(options.export)),
        requests=options.requests,
        drill_requests=options.drill_requests,
    )
    prepare(day)
    began = Evidence(
        datetime.now(UTC).isoformat(timespec="seconds"), None, device, _commit(),
        shlex.join(["python", "-m", "benchmarks", *options.arguments]), options.budget, (),
    )  # fmt: skip
    if device == "cpu":
        print("No GPU: a rehearsal on the CPU. What needs a GPU is skipped, by name.", flush=True)
    try:
        run.run(day, steps, began, _tell)
    finally:  # also where it was interrupted: what there is
        archive = evidence.bundle(day.folder)
        found = evidence.read(day.folder) if (day.folder / evidence.FILE_NAME).exists() else began
        console().print(_table(found))
        print(found.verdict())
        print(f"The page: {layout.shown(day.folder / evidence.PAGE_NAME)}")
        print(f"To take along: {layout.shown(archive)}", flush=True)
    return 0 if found.passed else 1


def prepare(day: Day) -> None:
    """Make what is no part of the ten minutes: the folder, a repository of its own, the server's environment.

    Raises:
        MeasurementError: the folder is there already.
        SetupError: there is no tritonserver, and none could be installed.
    """
    if day.folder.exists() and any(day.folder.iterdir()):
        raise MeasurementError(f"{layout.shown(day.folder)} is there already", hint="name another with --folder")
    day.write()
    shutil.copytree(layout.model_repository(), day.repository, ignore=_released)
    environment.find(lambda line: print(line, flush=True), gpu=day.device == "gpu")


def _released(folder: str, names: list[str]) -> set[str]:
    """Name what is not copied of a model repository: releases, and what is hidden."""
    paths = [Path(folder, name) for name in names]
    return {path.name for path in paths if path.name.startswith(".") or (path / manifest.FILE_NAME).exists()}


def _with_checkpoint(export: Sequence[str]) -> tuple[str, ...]:
    """Name the newest checkpoint of a family: the day has an artifacts folder of its own, which has none."""
    named = {"--checkpoint", "--from", "--run-id", "--onnx", "--torch"} & {word.partition("=")[0] for word in export}
    if named or not export:
        return tuple(export)
    found = sorted((layout.checkpoints() / export[0]).glob("*/best.ckpt"), key=lambda path: path.stat().st_mtime)
    return (*export, "--checkpoint", str(found[-1])) if found else tuple(export)


def _chosen(only: Sequence[str] | None) -> list[Step]:
    return [step for step in STEPS if only is None or step.name in only]


def _commit() -> str | None:
    """Return the commit of this checkout, with a + if it was changed since; None outside of git.

    In a container, which may have no git, the script that started it says so.
    """
    if named := os.environ.get(COMMIT_VARIABLE):
        return named
    told = []
    for command in (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(command, cwd=layout.ROOT, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        told.append(done.stdout.strip())
    return f"{told[0]}{'+' if told[1] else ''}"


def _tell(result: StepResult) -> None:
    reason = f": {result.reason.splitlines()[0]}" if result.reason else ""
    print(f"  {MARKS[result.status]} {result.name:<13} {result.took_s:6.1f} s  {result.status}{reason}", flush=True)


def _table(found: Evidence) -> tables.Table:
    shown = tables.table("step", "it shows", "", left=3)
    for step in found.steps:
        figures = f"{sum(check.passed for check in step.checks)} of {len(step.checks)} checks" if step.checks else ""
        shown.add_row(f"{MARKS[step.status]} {step.name}", step.shows, figures or step.status)
    return shown
