"""The workflows run what developers run, with no more rights than that takes, and their linters see what is wrong."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts import layout

WORKFLOWS = sorted((layout.ROOT / ".github" / "workflows").glob("*.y*ml"))
BIN = Path(sys.executable).parent


def jobs(workflow: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(workflow.read_text())["jobs"]
    return found


def commands(workflow: Path) -> list[str]:
    return [step["run"] for job in jobs(workflow).values() for step in job["steps"] if "run" in step]


def test_there_is_a_workflow() -> None:
    assert layout.ROOT / ".github" / "workflows" / "ci.yml" in WORKFLOWS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_a_commit_and_says_which_version_that_is(workflow: Path) -> None:
    used = re.findall(r"uses: *(\S+)(.*)$", workflow.read_text(), re.MULTILINE)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action
    assert len({action for action, _ in used}) == len({action.partition("@")[0] for action, _ in used})


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_may_read_the_code_and_no_more(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["permissions"] == {}
    for name, job in jobs(workflow).items():
        assert job["permissions"] == {"contents": "read"}, name
        assert 0 < job["timeout-minutes"] <= 120, name
        [checkout] = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert checkout["with"]["persist-credentials"] is False, name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_it_runs_make_as_developers_do(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (layout.ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {words[1] for command in commands(workflow) if (words := command.split())[0] == "make"}
    assert made and made <= targets
    assert all(command.startswith(("make ", "sudo apt-get update")) for command in commands(workflow))


def test_quick_runs_on_every_python_and_everything_on_the_locks() -> None:
    ci = jobs(layout.ROOT / ".github" / "workflows" / "ci.yml")
    assert ci["quick"]["strategy"]["matrix"] == {"python": ["3.11", "3.12", "3.13"]}
    for name in ("quick", "test"):
        assert f"make {name}" in [step.get("run") for step in ci[name]["steps"]]
    [locked_for] = re.findall(r"lock is resolved for Python (\S+);", (layout.ROOT / "Makefile").read_text())
    assert ci["test"]["name"] == f"make test (Python {locked_for})"
    assert locked_for in [step.get("with", {}).get("python-version") for step in ci["test"]["steps"]]


@pytest.mark.parametrize(
    ("right", "wrong", "command", "found"),
    [
        pytest.param("timeout-minutes", "timeout-minute", "actionlint", "timeout-minute", id="a key that is none"),
        pytest.param("${{ matrix.python }}", "${{ matrix.pyton }}", "actionlint", "pyton", id="a value that is none"),
        pytest.param("name: CI", "name: CI", "actionlint", None, id="none, for actionlint"),
        pytest.param("name: CI", "name: CI", "zizmor", None, id="none, for zizmor"),
        pytest.param(
            "permissions: {}", "permissions: write-all", "zizmor", "excessive-permissions", id="too many rights"
        ),
        pytest.param("persist-credentials: false", "fetch-depth: 1", "zizmor", "artipacked", id="a token is left"),
        pytest.param(
            "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "zizmor", "unpinned-uses", id="a moving tag"
        ),
    ],
)
def test_the_linters_find_a_fault(right: str, wrong: str, command: str, found: str | None, tmp_path: Path) -> None:
    """As `make lint` calls them, on a copy with one fault or none."""
    text = (layout.ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert right in text
    workflow = tmp_path / ".github" / "workflows" / "ci.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(text.replace(right, wrong))
    (tmp_path / ".git").mkdir()  # where actionlint looks for workflows from
    makefile = (layout.ROOT / "Makefile").read_text()
    [options] = re.findall(rf"^\t\$\(BIN\)/{command}(.*)$", makefile, re.MULTILINE)
    done = subprocess.run([BIN / command, *options.split()], cwd=tmp_path, capture_output=True, text=True, check=False)
    if found is None:
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert done.returncode != 0
        assert found in done.stdout + done.stderr
