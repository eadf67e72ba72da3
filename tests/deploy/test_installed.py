"""Which Python the server's models run with, and what is said where none will do."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from contracts import layout
from deploy.errors import SetupError
from deploy.installed import backends, choice, interpreter, libpython
from deploy.installed.choice import Choice
from deploy.installed.interpreter import Interpreter

COMPILERS = ("cc", "c++")


class Machine:
    """A machine with just the programs that a test puts on it; each Python has its libpython."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin, self.libraries, self.made = root / "bin", root / "lib", set[str]()
        self.bin.mkdir()
        self.libraries.mkdir()
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PATH", str(self.bin))
        for variable in (choice.VARIABLE, "CC", "CXX"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(libpython, "_USUAL", root / "none")

    def program(self, name: str, does: str = "") -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)
        return path

    def python(self, version: str, *, headers: bool = True, shared: bool = True) -> Interpreter:
        if shared:
            (self.libraries / f"libpython{version}.so.1.0").touch()
        said = {
            "version": version,
            "build": f"{version}.1 (main)",
            "libraries": str(self.libraries),
            "standard_library": f"/usr/lib/python{version}",
            "has_headers": headers,
        }
        self.program(f"python{version}", f"echo '{json.dumps(said)}'")
        found = interpreter.ask(f"python{version}")
        assert found is not None
        return found

    def project(self, version: str, **has: bool) -> Interpreter:
        """The Python that the project runs with."""
        python = self.python(version, **has)
        self._monkeypatch.setattr(interpreter, "own", lambda: python)
        return python

    def choose(self) -> Choice:
        return choice.choose(self.bin.parent / "unpacked", lambda python: python.version in self.made)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_the_projects_own_python_is_taken_where_it_will_do(version: str, machine: Machine) -> None:
    machine.python("3.12" if version == "3.11" else "3.11")
    own = machine.project(version)
    assert machine.choose() == Choice(own)
    assert not machine.choose().builds_numpy


@pytest.mark.parametrize(
    ("here", "taken"), [(("3.13", "3.11", "3.12"), "3.12"), (("3.13", "3.11"), "3.11"), (("3.13",), "3.13")]
)
def test_a_python_without_a_stub_has_the_server_run_on_the_first_other(
    here: tuple[str, ...], taken: str, machine: Machine
) -> None:
    own = machine.project("3.14")
    for name in (*COMPILERS, *(f"python{version}" for version in ("3.12", "3.11", "3.13") if version not in here)):
        machine.program(name, "exit 127" if name.startswith("python") else "")  # a shim of pyenv's
    pythons = {version: machine.python(version) for version in here}
    assert machine.choose() == Choice(pythons[taken], f"{own}: Triton's Python backend has no stub for it")


def test_on_3_13_numpy_is_built_where_a_compiler_and_the_headers_are(machine: Machine) -> None:
    own = machine.project("3.13")
    machine.program(COMPILERS[0])
    with pytest.raises(SetupError) as refused:
        machine.choose()
    assert str(refused.value).splitlines() == [
        f"the pip-installed Triton cannot run here on {own}: the server's numpy has no wheel for it, "
        "and cannot be built without a C++ compiler",
        "Note: nor on another Python:",
        "  not here: python3.12, python3.11",
        "Hint: sudo apt-get update && sudo apt-get install g++ python3.13-dev",
    ]
    machine.program(COMPILERS[1])
    assert machine.choose() == Choice(own)
    assert machine.choose().builds_numpy
    machine.project("3.13", headers=False)
    with pytest.raises(SetupError, match=r"built without Python\.h\n"):
        machine.choose()


def test_what_was_built_before_is_used_without_a_compiler(machine: Machine) -> None:
    own = machine.project("3.13", headers=False)
    machine.made.add("3.13")
    assert machine.choose() == Choice(own)


def test_where_none_will_do_the_command_that_gets_one_is_said(machine: Machine) -> None:
    machine.project("3.14")
    other = machine.python("3.12", shared=False)
    with pytest.raises(SetupError) as refused:
        machine.choose()
    assert str(refused.value).splitlines()[1:] == [
        "Note: nor on another Python:",
        f"  {other}: its shared library is missing, and apt does not know it",
        "  not here: python3.11, python3.13",
        "Hint: get one beside yours: uv python install 3.12 (uv comes with: pipx install uv), "
        "or name one: SERVER_PYTHON=/path/to/python3.12",
    ]


def test_a_libpython_that_apt_knows_is_no_hindrance(machine: Machine) -> None:
    own = machine.project("3.11", shared=False)
    with pytest.raises(SetupError, match=r"Hint: install it: .* apt-get install libpython3\.11"):
        machine.choose()
    machine.program("apt-get", '[ "$*" = "download --print-uris libpython3.11" ]')
    assert machine.choose() == Choice(own)


def test_the_environment_may_name_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.project("3.11")
    named = machine.python("3.12")
    monkeypatch.setenv(choice.VARIABLE, str(named.executable))
    assert machine.choose() == Choice(named, "SERVER_PYTHON names it")
    monkeypatch.setenv(choice.VARIABLE, str(machine.python("3.10").executable))
    with pytest.raises(SetupError, match=r"cannot run on Python 3\.10 .*: Triton's Python backend has no stub for it"):
        machine.choose()
    monkeypatch.setenv(choice.VARIABLE, "/there/is/none")
    with pytest.raises(SetupError, match="there is no Python /there/is/none, which SERVER_PYTHON names"):
        machine.choose()


@pytest.mark.parametrize(
    ("machine_", "libc"), [("aarch64", ("glibc", "2.36")), ("x86_64", ("glibc", "2.31")), ("x86_64", ("", ""))]
)
def test_a_machine_that_the_wheel_is_not_for_is_named(
    machine_: str, libc: tuple[str, str], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.project("3.11")
    monkeypatch.setattr(platform, "machine", lambda: machine_)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    shown = f"{machine_}, {' '.join(libc).strip() or 'another libc'}"
    with pytest.raises(
        SetupError, match=rf"x86_64 with glibc 2\.35 or later; this is linux, {shown}\nHint: serve from"
    ):
        machine.choose()


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_wheels_own_libpython_gives_way_to_the_machines(version: str, machine: Machine, tmp_path: Path) -> None:
    python = machine.python(version)
    environment, server = tmp_path / "packages", tmp_path / "server"
    packages = environment / backends.site_packages(python)
    for folder in (server / "backends" / "python", server / "python_backend_stubs" / version, environment / "bin"):
        folder.mkdir(parents=True)
    (server / "python_backend_stubs" / version / "triton_python_backend_stub").touch()
    (environment / "pyvenv.cfg").touch()
    (packages / "nvidia_pytriton.libs").mkdir(parents=True)
    (packages / "nvidia_pytriton.libs" / "libpython3-419a3a08.13.so.1.0").touch()
    home = tmp_path / "home"
    backends.assemble(home, layout.ROOT / "deploy" / "backends", server, environment, python, machine.libraries)
    links = {path.name: path.resolve() for path in (home / backends.LIBPYTHON).glob("*")}
    real = machine.libraries / "libpython3.13.so.1.0"
    assert links == ({"libpython3-419a3a08.13.so.1.0": real} if version == "3.13" else {})


def test_this_python_is_asked_as_any_other() -> None:
    own, asked = interpreter.own(), interpreter.ask(os.path.realpath(sys.executable))
    assert asked is not None
    assert replace(asked, executable=own.executable) == own
    assert (own.version, own.build) == (f"{sys.version_info[0]}.{sys.version_info[1]}", sys.version)


def test_the_demo_says_what_cannot_be_before_it_installs_anything(tmp_path: Path) -> None:
    """With the standard library alone."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy2(layout.ROOT / name, tmp_path)
    for name in ("cli", "contracts", "deploy"):
        shutil.copytree(layout.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={python}"],
        cwd=tmp_path,
        env={**os.environ, "SERVER_PYTHON": "/there/is/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("error: there is no Python /there/is/none, which SERVER_PYTHON names\n")
    assert not (tmp_path / ".venv").exists() and not (tmp_path / ".venv-server").exists()
