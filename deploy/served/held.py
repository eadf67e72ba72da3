"""Folders that a process holds as its own: the kernel gives them back when it ends, however it does."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from contracts.files import locks

_LOCK = ".lock"


def make(parent: Path, others: str, prefix: str | None = None) -> tuple[Path, int]:
    """Make a folder of mode 0700 and hold it; remove those of the pattern `others` that no process holds."""
    with locks.locked(parent / _LOCK):
        for other in parent.glob(others):
            if other.is_dir():
                remove_if_abandoned(other)
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        held = os.open(made, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(held, fcntl.LOCK_EX)
    return made, held


def remove_if_abandoned(place: Path) -> None:
    """Remove a folder that no process holds any more."""
    try:
        held = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:  # somebody else was quicker
        return
    except NotADirectoryError:  # a link, or what else was put there
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # its process lives
        return
    else:
        shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(held)
