"""The locks are lists that pip takes, with the hash of every file, and what the Dockerfiles install is in them."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cli.installing import locks
from contracts import layout
from tests.tracked import tracked

PIP = "pip>=26"  # an image brings a recent one, which refuses what older ones let pass
# Published as source alone. pip resolves for another Python than its own only what has wheels.
WITHOUT_WHEELS = {"cppimport", "tensorrt-rtx-cu13"}

LOCKS = [path for path in tracked() if path.suffix == ".lock" and path.name != "dvc.lock"]
DOCKERFILES = [path for path in tracked() if path.name.partition(".")[0] == "Dockerfile"]
PROJECT, TORCH, TORCH_CPU = (layout.ROOT / name for name in (locks.PROJECT, locks.TORCH, locks.TORCH_CPU))
DEPLOY = layout.ROOT / "deploy"


def versions(*files: Path) -> dict[str, str]:
    """{normalized name: version} of locks."""
    pins = [entry.split()[0].split("==") for lock in files for entry in locks.entries(lock)]
    return {canonicalize_name(name): version for name, version in pins}


def hashes(*files: Path) -> dict[str, set[str]]:
    """{normalized name: the SHA-256 of every file that may be installed} of locks."""
    found: dict[str, set[str]] = {}
    for entry in (entry for lock in files for entry in locks.entries(lock)):
        name = canonicalize_name(entry.partition("==")[0])
        found.setdefault(name, set()).update(re.findall(r"--hash=sha256:(\w+)", entry))
    return found


@dataclass(frozen=True)
class PipLine:
    """What one `pip install` or `pip download` of a Dockerfile is told. Paths are of the repository."""

    dockerfile: str
    packages: tuple[Requirement, ...]
    requirements: tuple[Path, ...]
    strict: bool  # it takes nothing but what locks name, by its hash


def pip_lines(dockerfile: Path) -> list[PipLine]:
    """Every call of pip in a Dockerfile. An option that is not known here is an error, not passed over."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("packages", nargs="*", type=Requirement)
    parser.add_argument("--requirement", action="append", default=[], type=lambda name: layout.ROOT / name)
    parser.add_argument("--dest")
    for flag in ("--no-cache-dir", "--break-system-packages", "--ignore-installed", "--no-deps", "--require-hashes"):
        parser.add_argument(flag, action="store_true")
    found = []
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE))
    for instruction in re.findall(r"^RUN (.*)$", text, re.MULTILINE):
        for command in re.split(r"&&|\|\||;", instruction):
            if match := re.search(r"\bpip3? (?:install|download|wheel) (.*)", command):
                told = parser.parse_args(shlex.split(match[1]))
                found.append(
                    PipLine(
                        dockerfile.name,
                        tuple(told.packages),
                        tuple(told.requirement),
                        told.require_hashes and told.no_deps,
                    )
                )
    assert found or "pip" not in text, f"{dockerfile}: its pip lines were not found"
    return found


PIP_LINES = [line for dockerfile in DOCKERFILES for line in pip_lines(dockerfile)]


def test_the_locks_and_the_pip_lines_of_the_images_are_found() -> None:
    made = {layout.ROOT / source.with_suffix(".lock") for source in locks.OTHERS}
    assert {PROJECT, TORCH, TORCH_CPU} | made == set(LOCKS)
    assert len(PIP_LINES) >= 7


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_one_version_of_each_package_and_the_hashes_of_its_files(lock: Path) -> None:
    """Only some machines have a version like torch's `+cpu`: it has a lock of its own."""
    body = re.sub(r"^#.*\n", "", lock.read_text(), flags=re.MULTILINE)
    version = r"[A-Za-z0-9.]+" + (r"\+cpu" if lock == TORCH_CPU else "")
    entry = rf"[A-Za-z0-9._-]+=={version}(?: \\\n    --hash=sha256:[0-9a-f]{{64}})+\n"
    assert re.fullmatch(f"(?:{entry})+", body), re.sub(entry, "", body)[:200]
    names = [canonicalize_name(entry.partition("==")[0]) for entry in locks.entries(lock)]
    assert len(names) == len(set(names)) == body.count("==")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_place_where_packages_come_from(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE), "an option of pip's"


def test_the_locks_have_what_the_project_asks_for() -> None:
    project = tomllib.loads((layout.ROOT / "pyproject.toml").read_text())["project"]
    lock = versions(PROJECT, TORCH)
    for wanted in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["dev"]]):
        assert lock[canonicalize_name(wanted.name)] in wanted.specifier, wanted
    assert versions(TORCH_CPU) == {"torch": f"{lock['torch']}+cpu"}
    assert not versions(PROJECT).keys() & versions(TORCH).keys()


def test_the_server_runs_the_versions_of_the_project() -> None:
    """But for numpy, which its stubs need old, and onnxruntime, which is called otherwise."""
    project, server = versions(PROJECT), versions(DEPLOY / "server.lock")
    both = (project.keys() & server.keys()) - {"numpy"}
    assert both >= {"pillow", "protobuf", "flatbuffers", "sympy", "packaging"}
    assert {name: server[name] for name in both} == {name: project[name] for name in both}


@pytest.mark.parametrize("name", ["commands.lock", "image.lock"])
def test_the_images_have_the_versions_of_the_project(name: str) -> None:
    project, image = versions(PROJECT), versions(DEPLOY / name)
    assert image.items() <= project.items(), image.items() - project.items()
    asked = [
        Requirement(line) for line in (DEPLOY / name).with_suffix(".in").read_text().splitlines() if line[0] != "#"
    ]
    assert asked and {canonicalize_name(each.name) for each in asked} <= image.keys()


@pytest.mark.parametrize("line", PIP_LINES, ids=lambda line: line.dockerfile)
def test_a_pip_line_installs_what_locks_name_by_its_hash_and_nothing_else(line: PipLine) -> None:
    assert line.strict and line.requirements and not line.packages
    assert set(line.requirements) <= set(LOCKS)


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recent pip, in an environment that is thrown away."""
    home = tmp_path_factory.mktemp("pip")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run([home / "bin" / "pip", "install", "--quiet", PIP], check=True)
    return home / "bin" / "pip"


def resolve(pip: Path, scratch: Path, files: list[Path], options: list[str], python: str) -> dict[str, set[str]]:
    """Let pip find what locks name, and all that this needs, for a Python: {normalized name: SHA-256 of its file}.

    Nothing is installed. What pip says is in the failure.
    """
    pins = {pin: canonicalize_name(pin.partition("==")[0]) for file in files for pin in pinned(file)}
    pins = {pin: name for pin, name in pins.items() if name not in WITHOUT_WHEELS}
    alone = {pin for pin, name in pins.items() if name in corrected()}
    found = _resolve(pip, scratch, pins.keys() - alone, options, python)
    return found | (_resolve(pip, scratch, alone, ["--no-deps"], python) if alone else {})


def pinned(lock: Path) -> list[str]:
    return [entry.split()[0] for entry in locks.entries(lock)]


def _resolve(pip: Path, scratch: Path, names: Set[str], options: list[str], python: str) -> dict[str, set[str]]:
    (scratch / "pins.txt").write_text("\n".join(names))
    command: list[str | Path] = [
        pip,
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--only-binary=:all:",
        *options,
    ]
    command += [f"--python-version={python}", "--report=report.json", "--requirement=pins.txt"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, set[str]] = {}
    for package in json.loads((scratch / "report.json").read_text())["install"]:
        name, taken = package["metadata"]["name"], package["download_info"]["archive_info"]["hashes"]["sha256"]
        found[canonicalize_name(name)] = {taken}
    return found


def test_what_is_installed_here_has_all_that_it_needs() -> None:
    """pip is told to install no more than the locks name. What a package needs of others may be left out by name."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    wanting = [line for line in done.stdout.splitlines() if " requires " in line]
    assert not [line for line in wanting if line.split()[0] not in corrected()]
    assert "tokenizers" in corrected() or done.returncode == 0, done.stdout


def corrected() -> set[str]:
    """The packages whose needs are said in pyproject.toml: what they ask for is more than what they are used for."""
    settings = tomllib.loads((layout.ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    return {package["name"] for package in settings["dependency-metadata"]}


SETS = {
    "the project": ([TORCH, PROJECT], [], ["3.11", "3.12", "3.13"]),
    "deploy in an image": ([DEPLOY / "commands.lock"], [], ["3.11", "3.12"]),
    "the Python of NVIDIA's image": ([DEPLOY / "image.lock"], [], ["3.12"]),
    "the exporter's bindings": ([DEPLOY / "bindings.lock"], ["--no-deps"], ["3.12"]),
    "the server": ([DEPLOY / "server.lock"], ["--no-deps"], ["3.11", "3.12"]),  # numpy 1.26 has no wheel for 3.13
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "python"), [(name, python) for name, (*_, pythons) in SETS.items() for python in pythons]
)
def test_a_recent_pip_needs_no_package_and_no_file_that_a_lock_does_not_name(
    name: str, python: str, pip: Path, tmp_path: Path
) -> None:
    files, options, _ = SETS[name]
    known = hashes(*files, *([TORCH_CPU] if TORCH in files else []))
    for package, taken in resolve(pip, tmp_path, files, options, python).items():
        assert package in known, f"{package} is not locked, and Python {python} needs it"
        assert taken <= known[package], f"{package} for Python {python}"


@pytest.mark.slow
def test_the_locks_are_what_their_command_writes(tmp_path: Path) -> None:
    shutil.copytree(layout.ROOT / "cli", tmp_path / "cli", ignore=shutil.ignore_patterns("__pycache__"))
    sources = [layout.ROOT / source for source in locks.OTHERS]
    for path in (layout.ROOT / "Makefile", layout.ROOT / "pyproject.toml", *sources, *LOCKS):
        copy = tmp_path / path.relative_to(layout.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    (tmp_path / ".venv").symlink_to(layout.ROOT / ".venv")
    setup = ".venv/.made-from-lock"  # it is set up, whatever the copies' age says
    done = subprocess.run(
        ["make", f"--assume-old={setup}", "lock"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for lock in LOCKS:
        written = tmp_path / lock.relative_to(layout.ROOT)
        if lock == TORCH_CPU:  # PyTorch's index has it, if that is reached, for other systems as well
            assert hashes(lock)["torch"] <= hashes(written)["torch"]
        else:
            assert written.read_text() == lock.read_text(), lock.name
