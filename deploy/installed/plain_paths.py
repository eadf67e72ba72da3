"""Paths that Triton takes: 2.51 ends at a blank in one (`stol`), so it is led around them by links.

Its Python backend reads letters beyond ASCII as the locale says, and the locale of a service is C.
"""

import atexit
import fcntl
import functools
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

_PLAIN = re.compile(r"[\w./+,:=@~-]+", re.ASCII)
_SYSTEMS = "/tmp"  # noqa: S108  # mkdtemp's parent, where TMPDIR is not plain itself


@functools.cache
def plain(path: Path) -> Path:
    """Return `path` as it is or, where Triton would not take it, through a link that is there until we end."""
    if is_plain(path):
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    link = _links() / digest
    link.symlink_to(path)
    return link


def is_plain(path: str | Path) -> bool:
    """Tell whether Triton takes a path as it is."""
    return _PLAIN.fullmatch(str(path)) is not None


def temporary() -> str:
    """Return the folder for temporary files, by a path that Triton takes."""
    usual = tempfile.gettempdir()
    return usual if is_plain(usual) else _SYSTEMS


@functools.cache
def _links() -> Path:
    place = Path(tempfile.mkdtemp(prefix="triton-", dir=temporary()))
    place.chmod(0o755)  # the server may run as another user; what is in here are names
    held = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_SH)  # systemd-tmpfiles removes nothing old that is locked (tmpfiles.d(5))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place
