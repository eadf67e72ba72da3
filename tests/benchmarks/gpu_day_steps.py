"""Steps of a GPU day that behave as a GPU's may: they hang, crash, and leave processes behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.evidence import Evidence
from benchmarks.gpu_day.record import Record, SkippedError, StepError
from benchmarks.gpu_day.steps import Step

BEGAN = Evidence("2026-11-29T10:00:00+00:00", None, "cpu", "abc", "python -m benchmarks gpu-day", 600, ())


def step(what: str, limit_s: float = 30) -> Step:
    return Step(what.replace("_", "-"), f"what {what}", limit_s, f"tests.benchmarks.gpu_day_steps:{what}")


def holds(day: Day, record: Record) -> None:
    record.figure(rows=[{"batch": 1, "ms": 0.5}, {"batch": 16, "ms": 0.75}])
    record.check("it holds", True, "<b>always</b>")


def does_not_hold(day: Day, record: Record) -> None:
    record.check("it holds", True)
    record.check("it is fast", False, "3 ms, 2 at most")


def is_lacking(day: Day, record: Record) -> None:
    raise SkippedError("there is no such thing here")


def goes_wrong(day: Day, record: Record) -> None:
    record.check("it began", True)
    raise StepError("it went wrong", note="with a note")


def has_a_bug(day: Day, record: Record) -> None:
    raise ZeroDivisionError("a bug")


def crashes(day: Day, record: Record) -> None:
    record.figure(before_the_crash=1)
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(day: Day, record: Record) -> None:
    """It has measured something, and has a child that would live on."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    record.figure(child=child.pid, measured=[{"batch": 1}])
    time.sleep(600)


def will_not_end(day: Day, record: Record) -> None:
    record.figure(pid=os.getpid())
    while True:
        with suppress(KeyboardInterrupt):
            time.sleep(600)
