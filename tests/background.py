"""A program that runs beside a test, and is gone with what it started when the test ends."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from contracts import layout


@contextmanager
def background(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None, cwd: Path = layout.ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program for as long as the block runs; what it says is in the log. It has 10 s to end by itself."""
    own = None if environment is None else dict(environment)
    with log.open("wb") as said:
        started = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=own, cwd=cwd)
    try:
        yield started
    finally:
        family = [*psutil.Process(started.pid).children(recursive=True), started] if started.poll() is None else []
        for process in family:
            process.terminate()
        for process in family:
            try:
                process.wait(10)
            except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
                process.kill()
