"""A program that is run until it ends, and told to end where this one is stopped meanwhile."""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PATIENCE_S = 20.0


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    silent: bool = True,
    finish: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run a program; what it says is returned, or shown where it is not `silent`.

    Ctrl-C is ours alone: the program is told to end (SIGTERM), so that it ends its own, too, and waited for.

    Args:
        finish: It is not told to end, as it cleans up.
    """
    pipe = subprocess.PIPE if silent else None
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate()
        except BaseException:
            if not finish:
                process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_PATIENCE_S)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, said or "", complained or "")
