"""A private directory, as long as a block runs, that nobody else can enter; what a killed process left goes, too."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts import layout
from deploy.installed.plain_paths import temporary
from deploy.neighbours.identity import Identity
from deploy.served import held

_PREFIX = "private-"
_LONGEST_SOCKET = 80  # bytes of its folder: the kernel takes 107 for the whole path


@contextmanager
def private() -> Iterator[Path]:
    """Make a directory in the artifacts' (large, and mostly on the repository's file system), for the block alone."""
    home = layout.artifacts()
    home.mkdir(parents=True, exist_ok=True)
    place, lock = held.make(home, f"{_PREFIX}*", _PREFIX)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


@contextmanager
def socket_folder(leads_to: Path) -> Iterator[Path]:
    """Make a private directory whose path is short and plain, with a link `models` to the given folder.

    A Unix socket's path has 107 bytes at most, and Triton does not take the repository's by any name.
    """
    usual = temporary()
    short = usual if len(usual) <= _LONGEST_SOCKET else "/tmp"  # noqa: S108  # mkdtemp's parent
    place = Path(tempfile.mkdtemp(prefix="gate-", dir=short))
    try:
        (place / "models").symlink_to(leads_to)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def let_in(user: Identity, readable: Path, writable: Path) -> None:
    """Let a user's group enter a private directory of root's, and the user write in another one of them."""
    os.chown(readable, -1, user.gid)
    readable.chmod(0o750)
    os.chown(writable, user.uid, user.gid)
