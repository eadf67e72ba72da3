"""`make setup` says one line, pip's words only when it fails, and takes nothing half-made for whole."""

import hashlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from cli.installing import environments
from cli.installing.environments import HALF_MADE, LOG, MADE
from contracts import layout
from tests.conftest import wait_for

MAKING = "Making the environment in .venv from requirements.lock (once; a few minutes)"
BRINGING = "Bringing the environment in .venv to what requirements.lock says now"
FROM_WHEELS = "PIP_ARGS=--no-index --find-links wheels"


def make_wheel(
    directory: Path, version: str, name: str = "tiny", needs: Sequence[str] = (), tag: str = "py3-none-any"
) -> Path:
    """A package of one module, which knows its version."""
    info = f"{name}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {each}\n" for each in needs)
    files = {
        f"{name}.py": f'VERSION = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = directory / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(zipfile.ZipInfo(member), text)  # of no time: the same bytes whenever it is made
    return path


def hashed(package: Path) -> str:
    """The line of a lock that names it, a wheel or a source."""
    name, version, *_ = package.name.removesuffix(".tar.gz").split("-")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(package.read_bytes()).hexdigest()}"


def make_source(directory: Path, name: str, builds: str) -> Path:
    """A package without a wheel, and the program that is to build one; it needs no other package."""
    folder = directory / f"{name}-1.0"
    folder.mkdir()
    (folder / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = []\nbuild-backend = "builder"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\n'
    )
    (folder / "builder.py").write_text(builds)
    with tarfile.open(directory / f"{name}-1.0.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    shutil.rmtree(folder)
    return Path(str(archive.name))


def command(*options: str) -> list[str]:
    return ["make", "setup", f"PYTHON={sys.executable}", *options]


def setup(checkout: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*options), cwd=checkout, capture_output=True, text=True, check=False)


def installed(checkout: Path) -> str:
    """The version of `tiny` that the environment imports, or what went wrong."""
    done = subprocess.run(
        [checkout / ".venv" / "bin" / "python", "-c", "import tiny; print(tiny.VERSION)"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def require(checkout: Path, requirement: str) -> None:
    """Write the lock: a version of `tiny`, by the hash of its wheel, or a line as it is."""
    name, _, version = requirement.partition("==")
    line = hashed(checkout / "wheels" / f"{name}-{version}-py3-none-any.whl") if name == "tiny" else requirement
    (checkout / "requirements.lock").write_text(f"{line}\n")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What setting up needs of a checkout, with a lock of one package."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copy2(layout.ROOT / "Makefile", root)
    shutil.copytree(layout.ROOT / "cli", root / "cli", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "wheels").mkdir()
    make_wheel(root / "wheels", "1.0")
    make_wheel(root / "wheels", "2.0")
    require(root, "tiny==1.0")
    for name, version in (("torch-cpu.lock", "1.0+cpu"), ("torch.lock", "1.0")):
        (root / name).write_text(hashed(make_wheel(root / "wheels", version, "torch")) + "\n")
    return root


@pytest.fixture(scope="module")
def output(original: Path) -> str:
    """What making its environment said."""
    done = setup(original, FROM_WHEELS)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def checkout(original: Path, output: str, tmp_path: Path) -> Path:
    """A copy for the test, with the environment made."""
    return Path(shutil.copytree(original, tmp_path / "checkout", symlinks=True))


def test_an_environment_is_made_in_one_line(original: Path, output: str) -> None:
    assert output.splitlines() == [MAKING]
    assert installed(original) == "1.0"
    assert "Successfully installed tiny-1.0 torch-1.0+cpu" in (original / ".venv" / LOG).read_text()
    assert (original / ".venv" / MADE).exists() and not (original / ".venv" / HALF_MADE).exists()


def test_it_is_made_once_and_again_when_the_lock_changes(checkout: Path) -> None:
    assert "Nothing to be done" in setup(checkout).stdout
    require(checkout, "tiny==2.0")
    done = setup(checkout, FROM_WHEELS)
    assert (done.stdout + done.stderr).splitlines() == [BRINGING]
    assert installed(checkout) == "2.0"
    assert "Nothing to be done" in setup(checkout).stdout


def test_pips_words_are_shown_where_it_fails_and_what_was_there_stays(checkout: Path) -> None:
    require(checkout, f"there-is-no-such-package-as-this==1 --hash=sha256:{'0' * 64}")
    for _ in range(2):
        done = setup(checkout, FROM_WHEELS)
        assert done.returncode != 0
        assert done.stderr.startswith(
            "error: pip could not install requirements.lock into .venv\nNote: all that it said"
        )
        assert "No matching distribution found for there-is-no-such-package-as-this==1\nHint: is the" in done.stderr
        assert f" {Path('.venv') / LOG}, " in done.stderr
        assert not (checkout / ".venv" / MADE).exists()
    assert installed(checkout) == "1.0"
    require(checkout, "tiny==1.0")
    assert setup(checkout, FROM_WHEELS).returncode == 0
    assert "Requirement already satisfied" in (checkout / ".venv" / LOG).read_text()


def test_a_file_that_is_not_the_locks_is_not_installed_and_pip_says_which(checkout: Path) -> None:
    lock = checkout / "requirements.lock"
    require(checkout, "tiny==2.0")
    right = lock.read_text()
    more = "".join(f" --hash=sha256:{number:064x}" for number in range(100))  # as of a package with many wheels
    lock.write_text(right[:-2] + ("0" if right[-2] != "0" else "1") + more + "\n")
    done = setup(checkout, FROM_WHEELS)
    assert done.returncode != 0 and installed(checkout) == "1.0"
    said = done.stderr
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in said and "tiny==2.0" in said
    assert f"Got        {right[-65:-1]}" in said
    assert "\nHint: a file is not the one that the lock names. Is the lock as it was committed (git diff)?" in said


def test_what_no_lock_names_is_not_installed(checkout: Path) -> None:
    """Neither by the way, as something that a package needs, nor as a line without its hash."""
    lock = checkout / "requirements.lock"
    lock.write_text("tiny==2.0\n")
    done = setup(checkout, FROM_WHEELS)
    assert done.returncode != 0 and installed(checkout) == "1.0"
    assert "Hashes are required in --require-hashes mode, but they are missing from some requirements" in done.stderr
    make_wheel(checkout / "wheels", "1.0", "needed")
    lock.write_text(hashed(make_wheel(checkout / "wheels", "3.0", needs=["needed"])) + "\n")
    assert setup(checkout, FROM_WHEELS).returncode == 0 and installed(checkout) == "3.0"
    assert not list(checkout.glob(".venv/lib/*/site-packages/needed*"))


def test_a_build_that_the_index_has_takes_the_place_of_one_that_it_has_not(checkout: Path) -> None:
    (checkout / "wheels" / "torch-1.0+cpu-py3-none-any.whl").unlink()
    shutil.rmtree(checkout / ".venv")
    done = setup(checkout, FROM_WHEELS)
    assert done.returncode == 0, done.stderr
    assert "Successfully installed tiny-1.0 torch-1.0\n" in (checkout / ".venv" / LOG).read_text()


def test_a_build_of_another_hash_is_not_taken_and_nothing_in_its_place(checkout: Path) -> None:
    """Else who can put a file there decides that gigabytes are fetched, or that nobody notices."""
    with zipfile.ZipFile(checkout / "wheels" / "torch-1.0+cpu-py3-none-any.whl", "a") as wheel:
        wheel.writestr("planted.py", "")
    shutil.rmtree(checkout / ".venv")
    done = setup(checkout, FROM_WHEELS)
    assert done.returncode != 0 and "torch==1.0+cpu" in done.stderr and "DO NOT MATCH THE HASHES" in done.stderr


def test_what_an_interrupted_run_left_is_not_taken_for_whole(checkout: Path) -> None:
    """pip takes a package for installed whose metadata is there, whatever else of it is."""
    require(checkout, "tiny==2.0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"PIP_ARGS=--index-url http://127.0.0.1:{silent.getsockname()[1]}/simple"
        with subprocess.Popen(command(index), cwd=checkout, stderr=subprocess.PIPE, process_group=0) as process:
            log = checkout / ".venv" / LOG
            wait_for(lambda: log.exists() and "Looking in indexes" in log.read_text())
            os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C
            assert process.wait(30) != 0
            assert process.stderr and b"Traceback" not in process.stderr.read()
    running = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in running if index.partition("=")[2] in line]
    assert not (checkout / ".venv" / MADE).exists()
    [site_packages] = (checkout / ".venv" / "lib").glob("*/site-packages")
    (site_packages / "tiny.py").unlink()
    (site_packages / "tiny-1.0.dist-info").rename(site_packages / "tiny-2.0.dist-info")
    metadata = site_packages / "tiny-2.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "2.0"))
    assert setup(checkout, FROM_WHEELS).returncode == 0
    assert installed(checkout) == "2.0"


_SLOW_TO_END = """
import signal, time
def end(*_):
    time.sleep(1)
    raise SystemExit(1)
signal.signal(signal.SIGINT, end)
print("ready", flush=True)
time.sleep(60)
"""


def test_what_is_interrupted_has_ended_before_we_do(tmp_path: Path) -> None:
    with (
        (tmp_path / "log").open("w") as log,
        pytest.raises(KeyboardInterrupt),
        environments._interruptible([sys.executable, "-c", _SLOW_TO_END], log) as process,
    ):
        wait_for(lambda: (tmp_path / "log").read_text())
        raise KeyboardInterrupt
    assert process.returncode == 1


def test_a_terminal_is_shown_a_bar_that_goes_at_the_end(checkout: Path) -> None:
    require(checkout, "tiny==2.0")
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command(FROM_WHEELS), cwd=checkout, stderr=its, stdout=subprocess.PIPE, env=environment
    ) as done:
        assert done.stdout and done.stdout.read().decode().splitlines() == [BRINGING]
    os.close(its)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "─ 0 of 1 packages found" in shown
    assert shown.endswith("\r\x1b[2K")


_FAILS_TO_BUILD = """
def build_wheel(directory, settings=None, metadata=None):
    print("../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc']]")
    print(*(f"line {number} of a log" for number in range(60)), sep="\\n")
    raise SystemExit(1)
"""


def test_the_errors_of_a_build_are_shown_however_much_it_says_after_them(checkout: Path) -> None:
    source = make_source(checkout / "wheels", "built", _FAILS_TO_BUILD)
    require(checkout, hashed(source))
    said = setup(checkout, FROM_WHEELS).stderr
    assert "\n  ../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc']]\n" in said
    assert "error: subprocess-exited-with-error" in said and "line 59 of a log" in said
    assert "line 9 of a log" not in said
    assert "\nHint: a package is built here, " in said and "sudo apt-get install g++ python3-dev" in said


OTHER = """#!/bin/sh
echo "Python 3.10, /usr/bin/python3.10"
"""


@pytest.mark.parametrize("other", ["another", "gone"])
def test_another_python_makes_the_environment_anew(other: str, checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    if other == "another":
        python.write_text(OTHER)
        python.chmod(0o755)
    left = checkout / ".venv" / "lib" / "left"
    left.touch()
    done = setup(checkout, FROM_WHEELS)
    first, was = done.stdout.splitlines()
    assert first.startswith("Making the environment in .venv anew, for Python 3.")
    assert (
        was == f"  it was made for {'Python 3.10, /usr/bin/python3.10' if other == 'another' else 'one that is gone'}"
    )
    assert installed(checkout) == "1.0" and not left.exists()
    assert "Nothing to be done" in setup(checkout).stdout


def test_an_environment_keeps_its_python_where_none_is_named(checkout: Path, tmp_path: Path) -> None:
    for name in ("python3", "python3.11"):
        (tmp_path / name).write_text(OTHER)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    for lock, said in (("tiny==1.0", "Nothing to be done"), ("tiny==2.0", BRINGING)):
        if not (checkout / "requirements.lock").read_text().startswith(lock):
            require(checkout, lock)
        done = subprocess.run(
            ["make", "setup", FROM_WHEELS], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        assert said in done.stdout, done.stderr
    assert installed(checkout) == "2.0"
