"""The fit of a trial as a process of its own, which ends when nobody waits for it any more.

The standard library and what needs no more: Ray's environment has nothing of ours.
"""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from contracts import layout
from training.sweep.fits.trial import DIRECTORY, SEARCH, Trial

LOG = "log.txt"  # in the trial's folder
_PATIENCE_S = 10  # what was told to end has so long


@contextmanager
def fit(directory: Path, given: Mapping[str, Any]) -> Iterator[tuple[Trial, "subprocess.Popen[bytes] | None"]]:
    """Start the fit of a trial, and end it with the block; None in its place: it has ended before.

    A fit whose search was killed ends by itself, in a moment. It is waited for: two would write into one folder, and
    this one may just have finished.

    Args:
        given: What is written into trial.json; `python`, `command` and `environment` are carried out.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".fit").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = Trial.at(directory)
        if before is not None and before.is_of(given) and (before.stopped or before.result() is not None):
            yield before, None
            return
        trial = Trial.prepare(directory, given)
        process, ours = _start(trial, lock.fileno())
        try:
            yield trial, process
        finally:
            end(process)
            os.close(ours)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that has a session of its own, and what it started: politely, then not."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it left behind, too
    process.wait()


def _start(trial: Trial, lock: int) -> tuple["subprocess.Popen[bytes]", int]:
    """Start it; return the end of a pipe, too: when that is closed, the fit is killed."""
    theirs, ours = os.pipe()
    variables = {**os.environ, **trial.given["environment"], DIRECTORY: str(trial.directory), SEARCH: str(theirs)}
    try:
        with (trial.directory / LOG).open("wb") as log:
            process = subprocess.Popen(
                [trial.given["python"], *trial.given["command"]], cwd=layout.ROOT, env=variables, stdout=log,
                stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=(theirs, lock),
            )  # fmt: skip
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, ours
