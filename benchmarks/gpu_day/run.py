"""A day, step after step: each in a process of its own and a box of time; what fails does not end the day.

After every step the evidence is whole on disk. Ctrl-C ends the step that is under way, which stops its servers, and
then the day; a second one does not wait for that.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from benchmarks.gpu_day import evidence, record
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.evidence import Evidence, Status, StepResult
from benchmarks.gpu_day.steps import Step
from contracts import layout

_GRACE_S = 20.0  # for a step that is told to end: its server drains for 3 s
_LEAST_S = 5.0  # of the budget: what is left is not begun

Tell = Callable[[StepResult], None]


def run(day: Day, steps: Sequence[Step], began: Evidence, tell: Tell = lambda result: None) -> Evidence:
    """Take the steps within the budget; return the evidence, which is also in the day's folder.

    Args:
        began: The evidence without any step.
        tell: Told of each step when it has ended.

    Raises:
        KeyboardInterrupt, SystemExit: somebody ended it. The evidence says so, and is whole.
    """
    found, deadline = began, time.monotonic() + began.budget_s
    stopped: BaseException | None = None
    day.log("").parent.mkdir(parents=True, exist_ok=True)
    for step in steps:
        left_s = deadline - time.monotonic()
        if stopped is not None:
            result = evidence.not_taken(step, "not reached", "the day was interrupted")
        elif left_s < _LEAST_S:
            result = evidence.not_taken(step, "not reached", f"the {began.budget_s:g} s of the day were spent")
        else:
            result, stopped = _take(step, day, min(step.limit_s, left_s))
        found = evidence.with_step(found, result)
        evidence.write(found, day.folder)
        tell(result)
    found = replace(found, ended=datetime.now(UTC).isoformat(timespec="seconds"))
    evidence.write(found, day.folder)
    if stopped is not None:
        raise stopped
    return found


def _take(step: Step, day: Day, limit_s: float) -> tuple[StepResult, BaseException | None]:
    """Take a step; return what came of it, and what ended the day meanwhile."""
    started, stopped = time.monotonic(), None
    how: Status | None = None
    command = [sys.executable, "-m", "benchmarks.gpu_day.step", str(day.folder), step.name, step.run, *step.needs]
    with day.log(step.name).open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=layout.ROOT,
            env=day.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,  # the terminal's Ctrl-C does not reach it, ours does, and all that it has started
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            how = "timed out"
        except BaseException as error:
            how, stopped = "interrupted", error
        stopped = _end(process) or stopped
    found = record.read(day.result(step.name))
    return evidence.judged(step, found, how, process.returncode, time.monotonic() - started), stopped


def _end(process: "subprocess.Popen[bytes]") -> BaseException | None:
    """End what a step is or has left behind; return what interrupted that: then nothing is waited for any more."""
    stopped = None
    if process.poll() is None:
        _signal(process, signal.SIGINT)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        except (KeyboardInterrupt, SystemExit) as error:
            stopped = error
    _signal(process, signal.SIGKILL)
    process.wait()
    return stopped


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
