"""Copy a folder so that nobody can change the copy through the original.

A file is cloned where the file system can (a reflink: XFS, Btrfs and others, no second copy on the disk), else copied;
never a hard link, which who may write the original writes, too. A copy is read-only, and holds no hidden files, no
compiled Python (`__pycache__` and `*.pyc`: code that would run unseen, in the place of what can be read) and no links.

What a link leads to is copied. Weights often lie elsewhere: in a cache of Hugging Face's or DVC's, on NFS. Who copies
may be root, so a link out of the folder gives only what whoever made it could read by himself.
"""

import fcntl
import functools
import os
import pwd
import shutil
import stat
from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from contracts import layout
from contracts.errors import FolderError

_FICLONE = 0x40049409  # <linux/fs.h>: ioctl(target, FICLONE, source)
_CHUNK = 1 << 20  # bytes
_MOST_LINKS = 40  # one behind the other: the kernel follows no more
_READ, _SEARCH = 0o4, 0o1  # as in the mode of a file, for all others


def copy(source: Path, target: Path, without: Collection[str] = (), *, outside: bool = False) -> None:
    """Copy the files below `source` into the folder `target`, which may be there.

    A link is followed where it stays below `source`, which may be one itself.

    Args:
        without: Names in `source` itself that are left out.
        outside: Follow links that lead elsewhere, too, to what their owners can read.

    Raises:
        FolderError: there is something that is neither file nor folder, or cannot be read, or is gone by now; or a link
            that leads nowhere, back to where it is, or to what it must not.
        OSError: the disk is full, or a file is there already.
    """
    root, makers = _resolved(source), frozenset(_owners(source))
    if makers:
        _check_may_read(makers, source, root)
    _copy_folder(_Source(root, makers, outside), root, target, (root,), makers, without)


def make_folder(place: Path) -> None:
    """Make a folder that a server may read whatever our umask."""
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)


def is_left_out(name: str) -> bool:
    """Tell whether a file or folder of that name is in no copy: hidden ones, and compiled Python."""
    return name.startswith(".") or name == "__pycache__" or name.endswith((".pyc", ".pyo"))


@dataclass(frozen=True)
class _Source:
    """What is copied."""

    root: Path  # links resolved
    makers: frozenset[int]  # the owners of the links that it is
    outside: bool


def _copy_folder(
    source: _Source,
    folder: Path,
    target: Path,
    above: tuple[Path, ...],
    makers: Set[int],
    without: Collection[str] = (),
) -> None:
    """Copy a folder.

    Args:
        above: Those that lead to it, links resolved, and itself.
        makers: The owners of the links that lead to it.
    """
    make_folder(target)
    for path in _entries(folder):
        if path.name in without or is_left_out(path.name):
            continue
        found = _resolved(path)
        is_inside = found.is_relative_to(source.root)
        if found in above or source.root.is_relative_to(found) or not (is_inside or source.outside):
            raise FolderError(
                f"{_name(path)} is a link to {found}",
                note="what a release holds lies in the folder of its model",
                hint="put the file itself there",
            )
        readers = source.makers if is_inside else makers | {*_owners(path)}
        if readers:
            _check_may_read(readers, path, found)
        if found.is_dir():
            _copy_folder(source, found, target / path.name, (*above, found), readers)
        else:
            _copy_file(found, target / path.name, readers)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(path: Path, error: OSError) -> FolderError:
    return FolderError(f"{layout.shown(path)} cannot be read: {error.strerror}", hint="run the same command again")


def _copy_file(source: Path, target: Path, readers: Set[int]) -> None:
    # NONBLOCK: opening a pipe that nobody writes into would wait for ever. NOFOLLOW: it was no link a moment ago.
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(source, error) from error
    with os.fdopen(descriptor, "rb") as original:
        status = os.fstat(original.fileno())
        mode = status.st_mode
        if not stat.S_ISREG(mode):
            raise FolderError(f"{layout.shown(source)} is neither a file nor a folder")
        if not all(_may(uid, _READ, status) for uid in readers):  # it is another one than a moment ago
            raise FolderError(f"{layout.shown(source)} changed while it was copied", hint="run the same command again")
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
        what = f"is a link to {path.readlink()}, which leads nowhere" if path.is_symlink() else "leads nowhere"
        raise FolderError(f"{_name(path)} {what}", note=str(error), hint="put the file itself there") from error


def _owners(path: Path) -> Iterator[int]:
    """Yield the owners of the links that begin with `path`, each of which could have it lead elsewhere."""
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            break
        yield path.lstat().st_uid
        path = path.parent / path.readlink()


def _check_may_read(readers: Set[int], path: Path, found: Path) -> None:
    status = found.stat()
    wanted = _READ | _SEARCH if stat.S_ISDIR(status.st_mode) else _READ
    for uid in readers:
        if not (_may(uid, wanted, status) and all(_may(uid, _SEARCH, folder.stat()) for folder in found.parents)):
            raise FolderError(
                f"{_name(path)} leads to {found}, which is not for the user with number {uid} to read",
                note="a link gives what its owner could read, and no more",
                hint="put the file itself there",
            )


def _may(uid: int, wanted: int, status: os.stat_result) -> bool:
    """Tell whether a user may do with a file what is wanted; access control lists are not looked at."""
    if uid in (0, os.geteuid()) or uid == status.st_uid:  # an owner can give himself what he has not
        return True
    mode = status.st_mode >> 3 if status.st_gid in _groups(uid) else status.st_mode
    return mode & wanted == wanted


@functools.cache
def _groups(uid: int) -> frozenset[int]:
    try:
        account = pwd.getpwuid(uid)
    except KeyError:  # of a container, or another machine
        return frozenset()
    return frozenset(os.getgrouplist(account.pw_name, account.pw_gid))


def _name(path: Path) -> str:
    return f"{layout.shown(path.parent)}/{path.name}"  # the link's own: `shown` follows it
