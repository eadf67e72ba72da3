"""Copy a folder so that nobody can change the copy through the original.

A file is cloned where the file system can (a reflink: XFS, Btrfs and others, no second copy on the disk), else copied;
never a hard link, which who may write the original writes, too. A copy is read-only, and holds no hidden files, no
`__pycache__` (code that Python would run unseen) and no links.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from contracts import layout
from contracts.errors import FolderError

_FICLONE = 0x40049409  # <linux/fs.h>: ioctl(target, FICLONE, source)
_CHUNK = 1 << 20  # bytes


def copy(source: Path, target: Path, without: Collection[str] = ()) -> None:
    """Copy the files below `source` into the folder `target`, which may be there.

    A link is followed where it stays below `source`, which may be one itself.

    Args:
        without: Names in `source` itself that are left out.

    Raises:
        FolderError: there is something that is neither file nor folder, or a link that leads elsewhere.
        OSError: the disk is full, or a file cannot be read or is there already.
    """
    root = _resolved(source)
    _copy_folder(root, root, target, (root,), without)


def make_folder(place: Path) -> None:
    """Make a folder that a server may read whatever our umask."""
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)


def _copy_folder(
    root: Path, folder: Path, target: Path, above: tuple[Path, ...], without: Collection[str] = ()
) -> None:
    make_folder(target)
    for path in sorted(folder.iterdir()):
        if path.name in without or path.name.startswith(".") or path.name == "__pycache__":
            continue
        found = _resolved(path)
        if not found.is_relative_to(root) or found in above:
            raise FolderError(
                f"{layout.shown(path.parent)}/{path.name} is a link to {found}",
                note="what a release holds lies in the folder of its model",
                hint="put the file itself there",
            )
        if found.is_dir():
            _copy_folder(root, found, target / path.name, (*above, found))
        else:
            _copy_file(found, target / path.name)


def _copy_file(source: Path, target: Path) -> None:
    # NONBLOCK: opening a pipe that nobody writes into would wait for ever. NOFOLLOW: it was no link a moment ago.
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as original:
        mode = os.fstat(original.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise FolderError(f"{layout.shown(source)} is neither a file nor a folder")
        with target.open("xb") as copied:
            if not _cloned(original.fileno(), copied.fileno()):
                shutil.copyfileobj(original, copied, _CHUNK)
            os.fchmod(copied.fileno(), 0o444 | (mode & 0o111))


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another file system, or one that cannot
        return False
    return True


def _resolved(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # Python 3.11 says RuntimeError of links in a circle
        raise FolderError(f"{layout.shown(path.parent)}/{path.name} leads nowhere", note=str(error)) from error
