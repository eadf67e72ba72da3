"""A trial carried out: its fit is watched, stopped where others are better, and judged."""

import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from training.sweep.fits import process
from training.sweep.fits.trial import Report, Result, Trial
from training.sweep.space import flags
from training.sweep.study import Search

LOOK_S = 0.1
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_ERROR = re.compile(r"^(?:error: |[\w.]*(?:Error|Exception)\b)")


class InterruptedSearch(Exception):  # noqa: N818  # nothing went wrong
    """The search was told to end: the trial is left as it is, to be begun again."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial: a result, or why there is none."""

    result: Result | None = None
    pruned: bool = False
    error: str | None = None
    crashed: bool = False  # the error is none of its parameters' doing, as far as one can tell


def command(search: Search, parameters: Mapping[str, Any]) -> list[str]:
    """Return the command of a fit with these parameters, behind `python`."""
    preset = ["--preset", search.preset] if search.preset else []
    shared = [*flags(search.space.fit), *search.flags]  # what is typed counts, of two
    return ["-m", "training", "fit", search.family, *preset, *shared, *flags(parameters)]


def given(search: Search, parameters: Mapping[str, Any], workers: int, worker: int) -> dict[str, Any]:
    """Return what the fit of a trial is started with."""
    return {
        "parameters": dict(parameters),
        "objectives": list(search.space.objectives),
        "python": sys.executable,
        "command": command(search, parameters),
        "environment": _environment(workers, worker),
    }


def follow(
    directory: Path,
    given: Mapping[str, Any],
    is_worse: Callable[[list[Report]], bool],
    beat: Callable[[], None],
    ended: threading.Event,
) -> Outcome:
    """Carry out the fit of a trial, or take what it found if it has ended before.

    Args:
        is_worse: Is asked after every report, with all there are, whether the fit is to stop.
        beat: Is called every moment.
        ended: Set when the search is to end.

    Raises:
        InterruptedSearch: it was.
    """
    seen = 0
    with process.fit(directory, given) as (trial, fit):
        while fit is not None:
            running = fit.poll() is None
            reports = trial.reports()
            while seen < len(reports):
                seen += 1
                if is_worse(reports[:seen]):
                    trial.stop()
                    return Outcome(pruned=True)
            if not running:
                return judged(trial, fit.returncode)
            if ended.wait(LOOK_S):
                raise InterruptedSearch
            beat()
        return judged(trial, 0)


def judged(trial: Trial, code: int) -> Outcome:
    """Say what became of a fit that has ended."""
    if trial.stopped:
        return Outcome(pruned=True)
    result = trial.result()
    if result is None:
        return Outcome(error=f"{_last_words(trial.directory / process.LOG)} (exit code {code})", crashed=True)
    if not isfinite(result.value):
        return Outcome(error=f"its quality is {result.value}: it did not learn")
    return Outcome(result)


def _environment(workers: int, worker: int) -> dict[str, str]:
    """Return what a fit's environment has beside ours: its share of the processors, and of the GPUs one."""
    if workers == 1:
        return {}
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    own = {name: threads for name in _THREADS if name not in os.environ}
    if devices := _devices():
        own["CUDA_VISIBLE_DEVICES"] = devices[worker % len(devices)]
    return own


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("error: ")


def _devices() -> list[str]:
    """List the GPUs that this process may use."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in named.split(",") if device]
    return sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")), key=int)
