"""Files out of Debian's packages, which needs no root: they are used where they were unpacked."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def unpack(packages: Sequence[str], directory: Path) -> None:
    """Download packages from where this machine's apt gets them, and unpack them into an existing directory.

    Raises:
        OSError: apt does not know one or cannot be asked, or there is no room; its text is what apt or dpkg said.
    """
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        _run(["apt-get", "download", *packages], scratch)
        for package in sorted(Path(scratch).glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(directory.absolute())], scratch)


def is_known(package: str) -> bool:
    """Tell whether apt knows a package, without asking the network."""
    try:
        _run(["apt-get", "download", "--print-uris", package], ".")
    except OSError:
        return False
    return True


def _run(command: list[str], directory: str) -> None:
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise OSError(error.stderr.strip() or str(error)) from error
