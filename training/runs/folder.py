"""The folder of a run, `artifacts/checkpoints/FAMILY/TIME`: new or gone on with, and one process's at a time."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cli import children
from contracts import layout
from training.errors import TrainingError

# What is handed down to the processes that this one starts, to train together with: its folder, and who it is.
_HANDED_DOWN, _BY = "TRAINING_RUN_FOLDER", "TRAINING_RUN_PROCESS"


@contextmanager
def held(family: str, gone_on_with: Path | None = None) -> Iterator[Path]:
    """Hold the folder of a run for as long as the fit takes. One that nothing was written into is removed.

    Args:
        gone_on_with: The folder of the run that is resumed; None for a new one, named by the time in UTC.

    Raises:
        TrainingError: another process is writing there.
    """
    handed = os.environ.get(_HANDED_DOWN)
    if handed and os.environ.get("LOCAL_RANK", "0") != "0":  # the process that started this one holds it
        # It may be killed while this one still looks for it, which it would do for half an hour.
        children.end_with_parent(signal.SIGKILL)
        if str(os.getppid()) != os.environ.get(_BY):  # or have ended before this one got here
            raise TrainingError("the process that this one was to train together with has ended")
        yield Path(handed)
        return
    folder = gone_on_with or _new(layout.checkpoints() / family)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.environ[_HANDED_DOWN], os.environ[_BY] = str(folder), str(os.getpid())
        yield folder
    except BlockingIOError as error:
        raise TrainingError(
            f"another fit is writing into {layout.shown(folder)}",
            note="two of one run would overwrite each other's checkpoints",
            hint="wait until it has ended, or stop it",
        ) from error
    finally:
        for name in (_HANDED_DOWN, _BY):
            os.environ.pop(name, None)
        os.close(lock)
        with suppress(OSError):
            folder.rmdir()  # fails where something is in it, and so does the next
            folder.parent.rmdir()


def _new(parent: Path) -> Path:
    """Make a folder that nobody else has: another fit may begin in the same second."""
    name = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileNotFoundError:
            continue  # a fit that came to nothing has just removed the empty parent
        except FileExistsError:
            number += 1
        else:
            return folder
