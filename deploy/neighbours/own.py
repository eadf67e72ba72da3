"""Folders and files that nobody else can have written: what lies there is believed.

A server's record says to whom root sends the admin key, what it ends and removes, as a PID file does (CVE-2017-11747);
and whoever may write beside it could plant the key, or a link where a log is opened.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from deploy.errors import AccessError

_MODE = 0o755  # the server's user passes through
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def made(folder: Path) -> Path:
    """Make a folder that others cannot write to, whatever the umask, unless it is there; return it.

    Raises:
        AccessError: it is there, and others can.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(_MODE)
    except FileExistsError:
        return checked(folder)
    folder.chmod(_MODE)
    return folder


def checked(folder: Path) -> Path:
    """Return a folder that is ours alone, or not there.

    Raises:
        AccessError: it is another user's, or others may write there.
    """
    with suppress(FileNotFoundError):
        _check(folder.stat(), folder)
    return folder


def read(file: Path) -> str:
    """Read a file that nobody but us or root can have written.

    Raises:
        AccessError: somebody else can.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor) as stream:
        _check(os.fstat(descriptor), file)  # of what is read, not of what lies there by now
        return stream.read()


def _check(found: os.stat_result, path: Path) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise AccessError(
            f"{path} is uid {found.st_uid}'s: what lies there is not believed",
            hint="run it as that user, or name another folder: ARTIFACTS_DIR, MODEL_SERVED",
        )
    if found.st_mode & _WRITABLE:
        raise AccessError(
            f"others may write to {path}: what lies there is not believed",
            hint=f"if nobody has: chmod -R go-w {path}; or name another folder: ARTIFACTS_DIR, MODEL_SERVED",
        )
