"""Which Python the pip-installed server's models run with: the project's own, or another one that is here.

Its Python backend has a stub for each Python, and its packages must be had for that. What cannot be is known before
anything is installed, and nothing but the standard library is needed to know it.
"""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from deploy.errors import SetupError
from deploy.installed import interpreter, libpython
from deploy.installed.interpreter import Interpreter

VARIABLE = "SERVER_PYTHON"

# nvidia-pytriton 0.7.0 has stubs for 3.8 to 3.13; ours are written for 3.11. The first that is there is taken.
_SERVED = ("3.12", "3.11", "3.13")
_BUILT = "3.13"  # numpy 1.26, which the stubs need, has no wheel for it
_GLIBC = (2, 35)  # of nvidia-pytriton's wheel, manylinux_2_35_x86_64
_COMPILERS = (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++")))
_GET_ONE = (
    "get one beside yours: uv python install 3.12 (uv comes with: pipx install uv), "
    f"or name one: {VARIABLE}=/path/to/python3.12"
)


@dataclass(frozen=True)
class Choice:
    """A Python for the server's models, and why it is not the project's own."""

    python: Interpreter
    instead: str = ""  # "" where it is

    @property
    def builds_numpy(self) -> bool:
        """Whether numpy is compiled for it, which takes minutes."""
        return self.python.version == _BUILT


@dataclass(frozen=True)
class Unfit:
    """Why the server's models cannot run with a Python, and what to do about it."""

    why: str
    hint: str


def choose(unpacked: Path, is_made: Callable[[Interpreter], bool]) -> Choice:
    """Choose SERVER_PYTHON, else the project's own Python, else the first of 3.12, 3.11 and 3.13 that will do.

    Args:
        unpacked: Where a libpython is unpacked that no package of the system has.
        is_made: Whether the server's environment is there for a Python already: nothing has to be built then.

    Raises:
        SetupError: none will do, or this is no machine for the pip-installed server.
    """
    _check_machine()
    if name := os.environ.get(VARIABLE):
        if (python := interpreter.ask(name)) is None:
            raise SetupError(f"there is no Python {name}, which {VARIABLE} names")
        if (unfit := _unfit(python, unpacked, made=is_made(python))) is not None:
            raise SetupError(f"the server cannot run on {python}: {unfit.why}", hint=unfit.hint)
        return Choice(python, f"{VARIABLE} names it")
    own = interpreter.own()
    refused: list[tuple[Interpreter, Unfit]] = []
    for python in chain([own], _others(own)):
        unfit = _unfit(python, unpacked, made=is_made(python))
        if unfit is None:
            return Choice(python, f"{own}: {refused[0][1].why}" if refused else "")
        refused.append((python, unfit))
    raise _none_will_do(refused)


def _none_will_do(refused: Sequence[tuple[Interpreter, Unfit]]) -> SetupError:
    """Make the error of a machine with these Pythons, the project's own first."""
    (own, unfit), *others = refused
    here = {python.version for python, _ in refused}
    told = [f"{python}: {other.why}" for python, other in others]
    if absent := [f"python{version}" for version in _SERVED if version not in here]:
        told.append(f"not here: {', '.join(absent)}")
    return SetupError(
        f"the pip-installed Triton cannot run here on {own}: {unfit.why}",
        note="\n  ".join(["nor on another Python:", *told]),
        hint=unfit.hint,
    )


def _check_machine() -> None:
    """Check that the only wheel there is can be installed.

    Raises:
        SetupError: it cannot.
    """
    libc, version = platform.libc_ver()
    here = f"{sys.platform}, {platform.machine()}, {f'{libc} {version}' if libc else 'another libc'}"
    if (sys.platform, platform.machine(), libc) != ("linux", "x86_64", "glibc") or _numbers(version) < _GLIBC:
        raise SetupError(
            "the pip-installed Triton does not run on this machine",
            note=f"it is for Linux on x86_64 with glibc {'.'.join(map(str, _GLIBC))} or later; this is {here}",
            hint="serve from an image: docker compose -f deploy/compose.cpu.yaml up --build --wait",
        )


def _others(own: Interpreter) -> Iterator[Interpreter]:
    for version in _SERVED:
        if version != own.version and (found := interpreter.ask(f"python{version}")) is not None:
            yield found


def _unfit(python: Interpreter, unpacked: Path, *, made: bool) -> Unfit | None:
    """Say why the server's models cannot run with a Python; None where they can."""
    if python.version not in _SERVED:
        return Unfit("Triton's Python backend has no stub for it", _GET_ONE)
    if python.version == _BUILT and not made and (missing := [*_missing_for_a_build(python)]):
        return Unfit(
            f"the server's numpy has no wheel for it, and cannot be built without {' and '.join(missing)}",
            f"sudo apt-get update && sudo apt-get install g++ python{python.version}-dev",
        )
    if libpython.directory(python, unpacked) is None and not libpython.can_be_unpacked(python):
        return Unfit("its shared library is missing, and apt does not know it", libpython.how_to_install(python))
    return None


def _missing_for_a_build(python: Interpreter) -> Iterator[str]:
    if not all(os.environ.get(variable) or any(map(shutil.which, names)) for variable, names in _COMPILERS):
        yield "a C++ compiler"
    if not python.has_headers:
        yield "Python.h"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
