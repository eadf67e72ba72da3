"""The shared library of a Python, which the stub of Triton's Python backend is linked to.

Debian's python3.11 comes without it. Where apt can be asked, the package is unpacked, which needs no root.
"""

import tempfile
from pathlib import Path

from cli.installing import debian
from deploy.errors import SetupError
from deploy.installed.interpreter import Interpreter

_USUAL = Path("/usr/lib/x86_64-linux-gnu")


def file_name(python: Interpreter) -> str:
    """Return what the file is called."""
    return f"{_package(python)}.so.1.0"


def directory(python: Interpreter, unpacked: Path) -> Path | None:
    """Find the directory of the shared library; None where it is missing.

    Args:
        unpacked: Where `unpack` puts it.
    """
    for place in (python.libraries, _USUAL, unpacked):
        if place and (place / file_name(python)).exists():
            return place
    return None


def can_be_unpacked(python: Interpreter) -> bool:
    """Tell whether apt knows a package with it, without asking the network."""
    return debian.is_known(_package(python))


def how_to_install(python: Interpreter) -> str:
    """Say how to get it as root."""
    return f"install it: sudo apt-get update && sudo apt-get install {_package(python)}"


def unpack(python: Interpreter, unpacked: Path) -> Path:
    """Download and unpack the package with the shared library; return its directory.

    Raises:
        SetupError: apt does not know it, or cannot be asked.
    """
    package = _package(python)
    try:
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as scratch:
            debian.unpack([package], Path(scratch))
            unpacked.mkdir(exist_ok=True)
            unpacked.chmod(0o755)
            for library in Path(scratch).rglob(f"{package}.so.*"):
                if not library.is_symlink():
                    library.rename(unpacked / file_name(python))  # in one step: another process may be starting
    except OSError as error:
        raise SetupError(
            f"Triton's Python backend needs {file_name(python)}, which this Python does not have",
            note=str(error),
            hint=how_to_install(python),
        ) from error
    return unpacked


def _package(python: Interpreter) -> str:
    return f"libpython{python.version}"
