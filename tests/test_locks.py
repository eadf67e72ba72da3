"""The locks are lists that pip takes, and what the Dockerfiles install is found for the image's Python."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from contracts import layout
from tests.test_architecture import tracked

IMAGE_PYTHON = "3.12"  # Ubuntu 24.04's, on which NGC's Triton stands
PIP = "pip>=26"  # an image brings a recent one, which refuses what older ones let pass
# Their packages on the registry are a script that downloads from elsewhere.
DOWNLOADS_FROM_ELSEWHERE = {"tensorrt-cu13"}
# Published as source alone. pip resolves for another Python than its own only what has wheels.
WITHOUT_WHEELS = {"cppimport", "tensorrt-rtx-cu13"}

LOCKS = [path for path in tracked() if path.suffix == ".lock"]
DOCKERFILES = [path for path in tracked() if path.name.partition(".")[0] == "Dockerfile"]


def entries(lock: Path) -> list[str]:
    return [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]


def versions(lock: Path) -> dict[str, str]:
    """{normalized name: version} of a lock."""
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in entries(lock))}


@dataclass(frozen=True)
class PipLine:
    """What one `pip install` of a Dockerfile is told. Paths are of the repository: the Dockerfile copies them."""

    dockerfile: str
    packages: tuple[Requirement, ...]
    requirements: tuple[Path, ...]
    constraints: tuple[Path, ...]
    alone: bool  # without what they need


def pip_lines(dockerfile: Path) -> list[PipLine]:
    """Every `pip install` of a Dockerfile. An option that is not known here is an error, not passed over."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("packages", nargs="*", type=Requirement)
    for files in ("--requirement", "--constraint"):
        parser.add_argument(files, action="append", default=[], type=lambda name: layout.ROOT / name)
    for flag in ("--no-cache-dir", "--break-system-packages", "--no-deps"):
        parser.add_argument(flag, action="store_true")
    found = []
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE))
    for instruction in re.findall(r"^RUN (.*)$", text, re.MULTILINE):
        for command in re.split(r"&&|\|\||;", instruction):
            if match := re.search(r"\bpip3? install (.*)", command):
                told = parser.parse_args(shlex.split(match[1]))
                packages, files = tuple(told.packages), (tuple(told.requirement), tuple(told.constraint))
                found.append(PipLine(dockerfile.name, packages, *files, told.no_deps))
    assert found or "pip" not in text, f"{dockerfile}: its pip lines were not found"
    return found


PIP_LINES = [line for dockerfile in DOCKERFILES for line in pip_lines(dockerfile)]


def test_the_locks_and_the_pip_lines_of_the_images_are_found() -> None:
    assert {path.name for path in LOCKS} >= {"requirements.lock", "server.lock", "server-gpu.lock"}
    assert len(PIP_LINES) >= 4
    assert any(line.constraints for line in PIP_LINES) and any(line.requirements for line in PIP_LINES)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_one_plain_version_of_each_package(lock: Path) -> None:
    """pip takes no extra in a list of constraints, and only some machines have a version like torch's `+cpu`."""
    names = []
    for line in entries(lock):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"{lock.name}: {line}"
        names.append(canonicalize_name(Requirement(line).name))
    assert names and len(names) == len(set(names))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_place_where_packages_come_from(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text, re.MULTILINE), "an option of pip's"


def test_the_lock_has_what_the_project_asks_for() -> None:
    project = tomllib.loads((layout.ROOT / "pyproject.toml").read_text())["project"]
    lock = versions(layout.ROOT / "requirements.lock")
    for wanted in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["dev"]]):
        assert lock[canonicalize_name(wanted.name)] in wanted.specifier, wanted


def test_the_server_runs_the_versions_of_the_project() -> None:
    """But for numpy, which its stubs need old, and onnxruntime, which is called otherwise."""
    project, server = versions(layout.ROOT / "requirements.lock"), versions(layout.ROOT / "deploy" / "server.lock")
    both = (project.keys() & server.keys()) - {"numpy"}
    assert both >= {"pillow", "protobuf", "flatbuffers", "sympy", "packaging"}
    assert {name: server[name] for name in both} == {name: project[name] for name in both}


@pytest.mark.parametrize("line", PIP_LINES, ids=lambda line: line.dockerfile)
def test_a_pip_line_installs_the_versions_of_the_lock(line: PipLine) -> None:
    assert {*line.requirements, *line.constraints} <= set(LOCKS)
    assert not DOWNLOADS_FROM_ELSEWHERE & {canonicalize_name(package.name) for package in line.packages}
    lock = versions(layout.ROOT / "requirements.lock")
    for package in line.packages:
        pinned = lock.get(canonicalize_name(package.name))
        if line.constraints:
            assert pinned, f"{package} is not in the lock, so that its version is anybody's"
        else:
            assert re.fullmatch(r"==[^*]+", str(package.specifier)), f"{package}: which version?"
        assert pinned is None or pinned in package.specifier, f"{package}, but {pinned} in the lock"


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recent pip, in an environment that is thrown away."""
    home = tmp_path_factory.mktemp("pip")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run([home / "bin" / "pip", "install", "--quiet", PIP], check=True)
    return home / "bin" / "pip"


def resolve(pip: Path, *arguments: str | Path, python: str = IMAGE_PYTHON) -> None:
    """Let pip find everything for another Python, without installing it; what it says is in the failure."""
    # Without wheels there is nothing to choose from: pip then asks that no dependencies be looked for.
    wheels = [] if "--no-deps" in arguments else ["--only-binary=:all:"]
    done = subprocess.run(
        [pip, "install", "--dry-run", "--quiet", "--ignore-installed", "--python-version", python, *wheels, *arguments],
        cwd=layout.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def without(packages: set[str], lock: Path, directory: Path) -> Path:
    """A copy of a lock without some packages."""
    copy = directory / lock.name
    copy.write_text("".join(f"{name}=={version}\n" for name, version in versions(lock).items() if name not in packages))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("line", PIP_LINES, ids=lambda line: line.dockerfile)
def test_a_recent_pip_finds_what_an_image_installs(line: PipLine, pip: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [*(["--no-deps"] if line.alone else []), *map(str, line.packages)]
    for path in line.requirements:
        words += ["--requirement", without(WITHOUT_WHEELS, path, tmp_path)]
        sources = [f"{name}=={version}" for name, version in versions(path).items() if name in WITHOUT_WHEELS]
        resolve(pip, "--no-deps", *sources)
    for path in line.constraints:
        words += ["--constraint", path]
    resolve(pip, *words)


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_a_recent_pip_finds_the_servers_environment(python: str, pip: Path) -> None:
    """Its lock is complete: everything but the server itself is asked for with what it needs."""
    lock = layout.ROOT / "deploy" / "server.lock"
    resolve(pip, "--no-deps", "--requirement", lock, python=python)
    packages = [f"{name}=={version}" for name, version in versions(lock).items() if name != "nvidia-pytriton"]
    resolve(pip, "--constraint", lock, *packages, python=python)


@pytest.mark.slow
def test_the_lock_is_what_its_command_writes(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(layout.ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(layout.ROOT / ".venv")
    setup = ".venv/.made-from-lock"  # it is set up, whatever the copies' age says
    done = subprocess.run(
        ["make", f"--assume-old={setup}", "lock"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "requirements.lock").read_text() == (layout.ROOT / "requirements.lock").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".venv",
        "Makefile",
        "pyproject.toml",
        "requirements.lock",
    ]
