"""A backend directory for the pip-installed server: Triton's Python backend, and ours, which stand on it."""

import os
import shutil
from pathlib import Path

from deploy.installed import libpython
from deploy.installed.interpreter import Interpreter

OWN_PACKAGES = Path("python", "own_packages")  # in there: what finds the packages that a model has of its own
PYTHON_HOME = "environment"  # in there: where its Python looks for packages
LIBPYTHON = "libpython"  # in there: what stands for the libpython of the server's wheel

_NOT_COPIED = shutil.ignore_patterns("__pycache__")


def assemble(home: Path, sources: Path, server: Path, environment: Path, python: Interpreter, libraries: Path) -> None:
    """Assemble one backend directory: Triton's Python backend with the stub for a Python, and ours.

    Copies, not links: Triton refuses a backend library that lies outside its backend directory.

    Args:
        home: The directory to fill.
        sources: Our backends.
        server: The wheel's folder with the server.
        environment: The virtual environment that it is installed in.
        libraries: The directory of the Python's shared library.
    """
    shutil.copytree(server / "backends" / "python", home / "python")
    shutil.copy2(server / "python_backend_stubs" / python.version / "triton_python_backend_stub", home / "python")
    shutil.copytree(sources, home, dirs_exist_ok=True, ignore=_NOT_COPIED)
    _make_python_home(home / PYTHON_HOME, sources, environment, python)
    _replace_libpython(home / LIBPYTHON, environment / site_packages(python), python, libraries)


def site_packages(python: Interpreter) -> Path:
    """Return where a virtual environment has its packages."""
    return Path("lib", f"python{python.version}", "site-packages")


def _make_python_home(home: Path, sources: Path, environment: Path, python: Interpreter) -> None:
    """Make a virtual environment that has the packages of another, and finds those that a model has of its own.

    The stub of Triton 2.51 does not heed PYTHONPATH with Python 3.11; what it has is of the first `python3` on PATH.
    """
    packages = home / site_packages(python)
    packages.mkdir(parents=True)
    (home / "bin").mkdir()
    for name in ("python", "python3"):
        (home / "bin" / name).symlink_to(environment / "bin" / name)
    shutil.copy2(environment / "pyvenv.cfg", home)
    shutil.copytree(sources / OWN_PACKAGES, packages, dirs_exist_ok=True, ignore=_NOT_COPIED)
    # Relative: the way to it may be through a link, as the path itself may be none that Triton takes.
    servers = os.path.relpath(environment / packages.relative_to(home), packages)
    (packages / "server.pth").write_text(f"{servers}\n")


def _replace_libpython(home: Path, packages: Path, python: Interpreter, libraries: Path) -> None:
    """Link this machine's libpython under the name of the wheel's copy, for a stub that is linked to that.

    The stub for 3.13 alone is. The copy looks for the extension modules where its builder had them: "No module named
    '_opcode'". What LD_LIBRARY_PATH names first is loaded.
    """
    minor = python.version.partition(".")[2]
    for copy in (packages / "nvidia_pytriton.libs").glob(f"libpython3-*.{minor}.so.1.0"):
        home.mkdir(exist_ok=True)
        (home / copy.name).symlink_to(libraries / libpython.file_name(python))
