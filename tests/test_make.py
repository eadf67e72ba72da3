"""`make quick` and `make test` check types beside the tests: either fails them, and Ctrl-C ends both."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from contracts import layout
from tests.conftest import wait_for

PROGRAMS = ("python", "mypy", "ruff", "hadolint", "actionlint", "zizmor")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment has programs that say how they were called, and end well."""
    shutil.copy2(layout.ROOT / "Makefile", tmp_path)
    for name in PROGRAMS:
        program(tmp_path, name, "")
    for name in ("requirements.lock", "torch.lock", "torch-cpu.lock"):
        (tmp_path / name).touch()
    (tmp_path / ".venv" / ".made-from-lock").touch()
    return tmp_path


def program(checkout: Path, name: str, does: str) -> None:
    path = checkout / ".venv" / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{name} is called: $@"\n{does}\n')
    path.chmod(0o755)


def make(checkout: Path, target: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["make", target], cwd=checkout, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("target", "tests"), [("quick", "not heavy and not slow"), ("test", "not slow"), ("pytest", "not slow")]
)
def test_a_target_runs_its_tests(target: str, tests: str, checkout: Path) -> None:
    done = make(checkout, target)
    assert done.returncode == 0, done.stderr
    assert f"python is called: -m pytest --numprocesses=2 --dist=loadgroup -m {tests}\n" in done.stdout
    linted = {name for name in PROGRAMS if f"\n{name} is called: " in f"\n{done.stdout}"}
    assert linted == ({"python"} if target == "pytest" else set(PROGRAMS))


@pytest.mark.parametrize("target", ["quick", "test"])
@pytest.mark.parametrize(("failing", "other"), [("mypy", "python"), ("python", "mypy")])
def test_types_or_tests_that_fail_are_shown_and_fail_it_when_both_have_ended(
    failing: str, other: str, target: str, checkout: Path
) -> None:
    program(checkout, failing, "echo 'this is wrong'; exit 1")
    program(checkout, other, "sleep 0.5; echo 'this went on'")
    done = make(checkout, target)
    assert done.returncode != 0
    assert "this is wrong" in done.stdout and "this went on" in done.stdout


def test_what_does_not_pass_the_linters_is_not_tested(checkout: Path) -> None:
    program(checkout, "zizmor", "exit 14")
    done = make(checkout, "quick")
    assert done.returncode != 0
    assert "pytest" not in done.stdout


def test_both_run_at_the_same_time(checkout: Path) -> None:
    """Each waits for the other: one after the other they would wait for ever."""
    for name, other in (("mypy", "python"), ("python", "mypy")):
        program(checkout, name, f"touch {name}; until [ -e {other} ]; do sleep 0.05; done")
    assert subprocess.run(["make", "quick"], cwd=checkout, capture_output=True, check=False, timeout=30).returncode == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_both(how: signal.Signals, checkout: Path) -> None:
    for name in ("mypy", "python"):
        program(checkout, name, f"echo $$ > {name}.pid; exec sleep 60")
    with subprocess.Popen(["make", "test"], cwd=checkout, stdout=subprocess.DEVNULL, process_group=0) as process:
        pids = [checkout / f"{name}.pid" for name in ("mypy", "python")]
        wait_for(lambda: all(path.exists() and path.read_text().strip() for path in pids))
        time.sleep(0.2)  # from its shell to `sleep`
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # a terminal tells every process
        else:
            process.send_signal(how)
        assert process.wait(10) != 0
    wait_for(lambda: not any(psutil.pid_exists(int(path.read_text())) for path in pids), timeout_s=5)
