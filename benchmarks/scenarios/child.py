"""A program that is run until it ends, and told to end where this one is stopped meanwhile."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_PATIENCE_S = 15.0  # to end its workers


def run(command: Sequence[str], folder: Path, *, silent: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a program; what it says is returned, or shown where it is not `silent`.

    Ctrl-C is ours alone: the program is told to end (SIGTERM), which ends its workers, too, and waited for.
    """
    pipe = subprocess.PIPE if silent else None
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            said, complained = process.communicate()
        except BaseException:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_PATIENCE_S)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, said or "", complained or "")
