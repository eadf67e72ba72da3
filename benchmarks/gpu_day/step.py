"""The process of one step: python -m benchmarks.gpu_day.step FOLDER NAME RUN [NEED…]. The day starts it, not a person.

A process each, because a step may hang, end in a segmentation fault, or leave a GPU in a state that the next one
shall not begin with.
"""

import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path

from benchmarks.gpu_day import day, needs
from benchmarks.gpu_day.record import Record, SkippedError
from cli import children
from contracts.errors import ProjectError


def main(folder: Path, name: str, run: str, *wanted: str) -> int:
    """Take the step `run`, package.module:function; return 0 if it went through, whatever its checks say.

    Args:
        wanted: What it needs, by the names of `needs.py`.
    """
    today = day.read(folder)
    found = Record(today.result(name))
    found.write()
    try:
        needs.check(wanted, today)
        module, _, function = run.partition(":")
        getattr(import_module(module), function)(today, found)
    except SkippedError as error:
        found.skipped = str(error)
    except ProjectError as error:
        found.error = str(error)
    except Exception as error:  # whatever a driver, TensorRT or PyTorch may raise: the day goes on
        traceback.print_exc()
        found.error = f"{type(error).__name__}: {error}"
    found.write()
    print(f"error: {found.error}" if found.error else f"skipped: {found.skipped}" if found.skipped else "done")
    return 1 if found.error else 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever it was started with: this is how it is ended
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    children.end_with_parent(signal.SIGINT)  # nothing goes on after a day that was killed
    try:
        sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
    except KeyboardInterrupt:
        if os.getpgrp() == os.getpid():  # what it has started, and did not end by itself
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)
        sys.exit(130)
