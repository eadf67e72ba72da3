"""Programs out of Debian's packages, unpacked once into artifacts/tools."""

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cli.installing import debian

_STARTERS = "started-by"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


def unpack(packages: Sequence[str], directory: Path, check: Callable[[Path], None] = lambda _: None) -> None:
    """Unpack packages, and what they need that this machine lacks, into a directory that is not there yet, in one step.

    Raises:
        OSError: they cannot be had, or `check` raised it on what was unpacked.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        unpacked = Path(scratch, "root")
        unpacked.mkdir()
        debian.unpack([*packages, *_lacking(packages)], unpacked)
        check(unpacked)
        _write_starters(unpacked, directory.absolute())
        if not directory.exists():  # another run may have been faster
            unpacked.rename(directory)


def started_by(directory: Path, name: str) -> Path:
    """Return what starts an unpacked program with the libraries that were unpacked beside it."""
    return directory / _STARTERS / name


def _lacking(packages: Sequence[str]) -> list[str]:
    """Return the packages that apt would install beside these."""
    asked = ["apt-get", "install", "--simulate", "--no-install-recommends", *packages]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return [name for name in re.findall(r"^Inst (\S+)", said, re.MULTILINE) if name not in packages]


def _write_starters(unpacked: Path, directory: Path) -> None:
    (unpacked / _STARTERS).mkdir()
    for program in unpacked.glob("usr/*bin/*"):
        within = directory / program.relative_to(unpacked)
        starter = unpacked / _STARTERS / program.name
        starter.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={directory / _LIBRARIES} exec {within} "$@"\n')
        starter.chmod(0o755)
