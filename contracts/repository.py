"""Versions of a model in the model repository: published whole, parked out of a server's sight, removed when asked for.

A version is filled in a hidden sibling directory and renamed into place in one step; parked, it is renamed to
another. Triton ignores directories whose name is not a number, so it sees neither.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import PublishError
from contracts.files import locks

_STAGING = ".staging-"
_PARKED = ".parked-"
_REMOVED = ".removed-"
_REFUSED = ".refused-"  # a file beside a parked version: why it was refused
_LOCK = ".publish.lock"


@dataclass(frozen=True)
class StagedVersion:
    """A version being filled; not visible to readers yet."""

    version: int
    directory: Path


def versions(model_directory: Path) -> list[int]:
    """List the published versions that are not parked, oldest first."""
    return _numbers(model_directory, "")


def parked(model_directory: Path) -> list[int]:
    """List the versions that are out of a server's sight, oldest first."""
    return _numbers(model_directory, _PARKED)


def park(model_directory: Path, version: int) -> None:
    """Take `version` out of a server's sight. The caller holds the lock."""
    _move(_version(model_directory, version), _parked(model_directory, version))


def refuse(model_directory: Path, version: int, reason: str) -> None:
    """Park `version`, which a server did not take, and note why. The caller holds the lock."""
    park(model_directory, version)
    _refusal(model_directory, version).write_text(reason, encoding="utf-8")


def refusal(model_directory: Path, version: int) -> str | None:
    """Return why a parked version was refused; None of any other."""
    if not _parked(model_directory, version).is_dir():
        return None
    with suppress(OSError, UnicodeDecodeError):
        return _refusal(model_directory, version).read_text(encoding="utf-8")
    return None


def restore(model_directory: Path, version: int) -> None:
    """Undo `park` or `refuse`. The caller holds the lock."""
    _move(_parked(model_directory, version), _version(model_directory, version))
    _refusal(model_directory, version).unlink(missing_ok=True)


def directory(model_directory: Path, version: int) -> Path:
    """Return the directory with the files of `version`, parked or not."""
    place = _parked(model_directory, version)
    return place if place.is_dir() else _version(model_directory, version)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep a version from being removed for as long as the block runs, as who serves it does. Many may hold it.

    The kernel lets go of it, also when this process is killed. Parking does not change it.
    """
    with _opened(directory) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def is_held(directory: Path) -> bool:
    """Tell whether somebody holds the version; of a file system that cannot tell, that somebody does."""
    with _opened(directory) as descriptor:
        return not _is_ours_alone(descriptor)


def remove(model_directory: Path, version: int) -> bool:
    """Remove `version` for good: for a reader in one step. The caller holds the lock.

    Returns:
        False if somebody holds it, and nothing was done.
    """
    place, removed = directory(model_directory, version), model_directory / f"{_REMOVED}{version}"
    with _opened(place) as descriptor:
        if not _is_ours_alone(descriptor):
            return False
        _move(place, removed)
    shutil.rmtree(removed)
    _refusal(model_directory, version).unlink(missing_ok=True)
    return True


def remove_leftovers(model_directory: Path) -> None:
    """Remove what a `remove` has left behind that was interrupted. The caller holds the lock."""
    for removed in model_directory.glob(f"{_REMOVED}*"):
        shutil.rmtree(removed)


@contextmanager
def locked(model_directory: Path) -> Iterator[None]:
    """Hold the model's lock: nobody else publishes, parks or restores meanwhile. Waits for whoever has it."""
    with locks.locked(model_directory / _LOCK):
        yield


def remove_stale_links(model_directory: Path) -> None:
    """Remove the links that a killed command left behind while versions were tried in the repository itself."""
    for path in model_directory.iterdir():
        if _is_stand_in(path):
            path.unlink(missing_ok=True)


def make_newest(model_directory: Path, version: int) -> None:
    """Make `version` the newest that is not parked: it is restored, and what is newer parked.

    At every moment, and so after a kill, the newest is the one that was or `version`. The caller holds the lock.
    """
    was_parked = version in parked(model_directory)
    hidden: list[int] = []
    try:
        if was_parked:
            restore(model_directory, version)
        for other in [v for v in versions(model_directory) if v > version]:  # the newest last
            park(model_directory, other)
            hidden.append(other)
    except BaseException:
        for other in reversed(hidden):
            restore(model_directory, other)
        if was_parked and version in versions(model_directory):
            park(model_directory, version)
        raise


@contextmanager
def new_version(model_directory: Path) -> Iterator[StagedVersion]:
    """Fill the yielded directory; leaving the block without an error publishes it as the next version.

    On any error, a full disk and Ctrl-C included, the repository is left as it was. What a killed process
    left behind is removed by the next call. One publisher at a time: a second one waits.

    Raises:
        PublishError: the operating system refused a write (no space, no permission).
    """
    try:
        with locked(model_directory):
            for abandoned in model_directory.glob(f"{_STAGING}*"):
                if abandoned.is_symlink():  # none of ours
                    abandoned.unlink()
                else:
                    shutil.rmtree(abandoned)
            remove_leftovers(model_directory)
            version = max([*versions(model_directory), *parked(model_directory)], default=0) + 1
            staged = StagedVersion(version, model_directory / f"{_STAGING}{version}-{secrets.token_hex(8)}")
            try:
                staged.directory.mkdir()
                yield staged
                _flush_to_disk(staged.directory)
                _move(staged.directory, model_directory / str(version))
            finally:
                shutil.rmtree(staged.directory, ignore_errors=True)
    except OSError as error:
        raise PublishError(
            f"could not publish {model_directory.name}: {error}",
            note="nothing was published; the earlier versions are untouched",
            hint=f"free disk space or mend the permissions of {model_directory}, then run the same command again",
        ) from error


def _numbers(model_directory: Path, prefix: str) -> list[int]:
    if not model_directory.is_dir():
        return []
    found = [(p, p.name.removeprefix(prefix)) for p in model_directory.iterdir() if p.name.startswith(prefix)]
    return sorted(int(number) for p, number in found if number.isdecimal() and p.is_dir() and not _is_stand_in(p))


def _version(model_directory: Path, version: int) -> Path:
    return model_directory / str(version)


def _parked(model_directory: Path, version: int) -> Path:
    return model_directory / f"{_PARKED}{version}"


def _refusal(model_directory: Path, version: int) -> Path:
    return model_directory / f"{_REFUSED}{version}"


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_ours_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _move(source: Path, target: Path) -> None:
    source.rename(target)
    with suppress(OSError):  # it is done; at worst a power cut takes it back whole
        _flush_to_disk(target.parent, recurse=False)


def _is_stand_in(path: Path) -> bool:
    """Tell whether it is a link to a sibling, as commands once made; one to elsewhere is a version kept there."""
    return path.name.isdecimal() and path.is_symlink() and path.readlink().name == str(path.readlink())


def _flush_to_disk(directory: Path, *, recurse: bool = True) -> None:
    """Make the rename safe against a power cut: contents first, then the names."""
    paths = [directory, *(directory.rglob("*") if recurse else [])]
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
