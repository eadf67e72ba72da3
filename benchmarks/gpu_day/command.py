"""A command of the project, run by a step as a user would, what it says in the step's log."""

import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import StepError
from contracts import layout

_TOLD_LINES = 4


def run(day: Day, *arguments: str | Path, artifacts: Path | None = None) -> tuple[int, str]:
    """Run `python -m ARGUMENTS…`; return its exit code and all that it said.

    It is ended with the step, as it is in its process group.
    """
    command = [sys.executable, "-m", *map(str, arguments)]
    print(f"$ {shlex.join(['python', *command[1:]])}", flush=True)
    said = []
    with subprocess.Popen(
        command,
        cwd=layout.ROOT,
        env=day.environment(artifacts),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    return process.returncode, "".join(said)


def must(day: Day, *arguments: str | Path, artifacts: Path | None = None) -> str:
    """Run it; return what it said.

    Raises:
        StepError: it failed, with its last lines.
    """
    code, said = run(day, *arguments, artifacts=artifacts)
    if code:
        last = "\n  ".join(said.strip().splitlines()[-_TOLD_LINES:])
        raise StepError(f"python -m {shlex.join(map(str, arguments))} ended with {code}", note=last)
    return said
