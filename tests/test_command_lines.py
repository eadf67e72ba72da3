"""What a command says and ends with is the same in the test's process, where most tests run it, and in its own."""

import os
from pathlib import Path

import pytest

from tests.command_lines import may_run_here
from tests.conftest import Workspace
from tests.workspace import FAMILY


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("deploy status", 1),
        ("deploy up --http-port x", 2),
        ("deploy up --http-port 8000 --grpc-port 8000", 1),
        ("export list --repository .", 0),
        ("export show nothing --repository .", 1),
        ("export --onnx nothing.onnx", 2),
        ("training --help", 0),
        (f"training examples {FAMILY} --count 0", 2),
    ],
)
def test_a_command_is_the_same_here_and_in_a_process_of_its_own(
    workspace: Workspace, arguments: str, code: int
) -> None:
    here, apart = workspace.run_here(*arguments.split()), workspace.run_apart(*arguments.split())
    assert here.returncode == apart.returncode == code
    assert here.stdout == apart.stdout
    assert here.stderr == apart.stderr
    assert here.stdout or here.stderr


def test_it_leaves_this_process_as_it_was(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLY_HERE", "1")
    before, folder = dict(os.environ), Path.cwd()
    workspace.run_here("export", "list", "--repository", ".")
    assert os.environ == before and "ARTIFACTS_DIR" not in before
    assert Path.cwd() == folder


@pytest.mark.parametrize("arguments", ["deploy up", "deploy drill", f"training fit {FAMILY}", "deploy status --watch"])
def test_what_goes_on_until_it_is_stopped_gets_a_process_of_its_own(arguments: str) -> None:
    assert not may_run_here(arguments.split())
