"""Programs out of Debian's packages, unpacked once into artifacts/tools."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cli import debian


def unpack(packages: Sequence[str], directory: Path, check: Callable[[Path], None] = lambda _: None) -> None:
    """Unpack packages into a directory that is not there yet, in one step.

    Raises:
        OSError: they cannot be had, or `check` raised it on what was unpacked.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        unpacked = Path(scratch, "root")
        unpacked.mkdir()
        debian.unpack(packages, unpacked)
        check(unpacked)
        if not directory.exists():  # another run may have been faster
            unpacked.rename(directory)
