"""Versions of a model in the model repository, published so that no reader ever sees half of one.

A version is filled in a hidden sibling directory and renamed into place in one step. Triton ignores
directories whose name is not a number, so an unfinished one is invisible to it as well.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import PublishError

_STAGING = ".staging-"
_LOCK = ".publish.lock"


@dataclass(frozen=True)
class StagedVersion:
    """A version being filled; not visible to readers yet."""

    version: int
    directory: Path


def versions(model_directory: Path) -> list[int]:
    """The published versions, oldest first."""
    if not model_directory.is_dir():
        return []
    return sorted(int(p.name) for p in model_directory.iterdir() if p.name.isdecimal() and p.is_dir())


@contextmanager
def new_version(model_directory: Path) -> Iterator[StagedVersion]:
    """Fill the yielded directory; leaving the block without an error publishes it as the next version.

    On any error, a full disk and Ctrl-C included, the repository is left as it was. What a killed process
    left behind is removed by the next call. One publisher at a time: a second one waits.

    Raises:
        PublishError: the operating system refused a write (no space, no permission).
    """
    try:
        with _lock(model_directory):
            for abandoned in model_directory.glob(f"{_STAGING}*"):
                shutil.rmtree(abandoned)
            version = max(versions(model_directory), default=0) + 1
            staged = StagedVersion(version, model_directory / f"{_STAGING}{version}")
            try:
                staged.directory.mkdir()
                yield staged
                _flush_to_disk(staged.directory)
                staged.directory.rename(model_directory / str(version))
                with suppress(OSError):  # published already; at worst a power cut takes it back whole
                    _flush_to_disk(model_directory, recurse=False)
            finally:
                shutil.rmtree(staged.directory, ignore_errors=True)
    except OSError as error:
        raise PublishError(
            f"could not publish {model_directory.name}: {error}",
            note="nothing was published; the earlier versions are untouched",
            hint=f"free disk space or mend the permissions of {model_directory}, then run the same command again",
        ) from error


@contextmanager
def _lock(model_directory: Path) -> Iterator[None]:
    with (model_directory / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel, also when this process is killed
        yield


def _flush_to_disk(directory: Path, *, recurse: bool = True) -> None:
    """Make the rename safe against a power cut: contents first, then the names."""
    paths = [directory, *(directory.rglob("*") if recurse else [])]
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
