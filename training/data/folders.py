"""Folders that are replaced whole, or file by file: filled beside the old one, which stays until all is complete."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.files.locks import locked


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which takes the place of `folder` when the block has ended without an error.

    Whatever goes wrong before, also a kill, leaves `folder` as it was: at the latest when it is replaced next time.
    Others who replace it wait.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        restore(folder)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        made = scratch / "new"
        try:
            made.mkdir()
            yield made
            if folder.exists():
                folder.rename(scratch / "old")
            made.rename(folder)
        finally:
            restore(folder)


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, whose files are moved into `folder` when the block has ended without an error.

    What else is in `folder` stays. Each file is replaced in one step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        restore(folder)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        try:
            yield scratch
            for path in sorted(scratch.iterdir()):
                path.replace(folder / path.name)
        finally:
            restore(folder)


def restore(folder: Path) -> None:
    """Put back what a stopped process had moved aside, and remove what it left."""
    for scratch in folder.parent.glob(f"{_prefix(folder)}*"):
        if not folder.exists() and (scratch / "old").is_dir():
            (scratch / "old").rename(folder)
        shutil.rmtree(scratch, ignore_errors=True)


def _prefix(folder: Path) -> str:
    return f".{folder.name}.made-"
