"""Every release is listed with its state, parked ones too."""

import json
from pathlib import Path

import pytest

from contracts import repository
from tests.conftest import Workspace
from tests.small_releases import NETWORK, published, written


@pytest.fixture
def root(workspace: Workspace) -> Path:
    """Of `net` 1 was superseded, 2 serves, was sealed and served, and 3 is parked and was never served."""
    written(workspace.repository, {"net/config.pbtxt": NETWORK})
    published(workspace.repository, 1)
    published(workspace.repository, 2, models=("net",), served="2.51.0")
    published(workspace.repository, 3, ".parked-3", models=("net",))
    return workspace.repository


def rows(out: str) -> list[list[str]]:
    """Model, version and state of each line of the table."""
    return [[cell.strip() for cell in line.split("│")[1:4]] for line in out.splitlines() if "│ net" in line]


def test_states_are_those_of_the_repository_now(workspace: Workspace, root: Path) -> None:
    out = workspace.must("export", "list", "--repository", root)
    assert [row[1:] for row in rows(out)] == [["1", "superseded"], ["2", "serving"], ["3", "parked"]]
    with repository.locked(root / "net"):
        repository.restore(root / "net", 3)
        repository.park(root / "net", 2)
    out = workspace.must("export", "list", "--repository", root)
    assert [row[1:] for row in rows(out)] == [["1", "superseded"], ["2", "parked"], ["3", "serving"]]


def test_who_served_it_before_it_was_published_is_told(workspace: Workspace, root: Path) -> None:
    out = workspace.must("export", "list", "--repository", root)
    one, two, three = (line for line in out.splitlines() if "│ net" in line)
    assert "not sealed" in one and "2.51.0" in two and "not yet served" in three
    assert "adopt" not in out, "what serves is sealed"
    with repository.locked(root / "net"):
        repository.park(root / "net", 2)
    out = workspace.must("export", "list", "--repository", root)
    assert "net serves what is not sealed, and changes with the repository: python -m export adopt net\n" in out


def test_machines_read_the_same(workspace: Workspace, root: Path) -> None:
    told = json.loads(workspace.must("export", "list", "--json", "--repository", root))
    found = [(release["version"], release["state"], release["served"], release["models"]) for release in told]
    assert found == [(1, "superseded", None, []), (2, "serving", "2.51.0", ["net"]), (3, "parked", None, ["net"])]


def test_what_a_server_did_not_take_is_refused_until_it_is_promoted(workspace: Workspace, root: Path) -> None:
    with repository.locked(root / "net"):
        repository.restore(root / "net", 3)
        repository.refuse(root / "net", 3, "net version 3 gives a wrong answer")
    out = workspace.must("export", "list", "--repository", root)
    assert rows(out)[-1][1:] == ["3", "refused"]
    assert "net version 3 was refused: net version 3 gives a wrong answer\n" in out
    told = json.loads(workspace.must("export", "list", "--json", "--repository", root))
    assert [(r["state"], r["refusal"]) for r in told[1:]] == [
        ("serving", None),
        ("refused", "net version 3 gives a wrong answer"),
    ]
    with repository.locked(root / "net"):
        repository.make_newest(root / "net", 3)
        repository.make_newest(root / "net", 2)
    assert rows(workspace.must("export", "list", "--repository", root))[-1][1:] == ["3", "parked"]


def test_a_damaged_manifest_hides_no_other_release(workspace: Workspace, root: Path) -> None:
    (root / "net" / "1" / "manifest.json").write_text("{")
    done = workspace.run("export", "list", "--repository", root)
    assert done.returncode == 1
    assert f"✗ net version 1 (superseded): {root}/net/1/manifest.json is not valid JSON" in done.stdout
    assert [row[1] for row in rows(done.stdout)] == ["2", "3"]
    machine = workspace.run("export", "list", "--json", "--repository", root)
    assert machine.returncode == 1
    assert [release["version"] for release in json.loads(machine.stdout) if "fault" in release] == [1]


def test_parked_releases_are_shown_and_verified_like_others(workspace: Workspace, root: Path) -> None:
    assert "Sealed with" not in workspace.must("export", "show", "net", "1", "--repository", root)
    shown = workspace.must("export", "show", "net", "2", "--repository", root)
    assert "Sealed with net; Triton 2.51.0 served it.\n" in shown
    (root / "net" / ".parked-3" / "model.onnx").write_text("another")
    done = workspace.run("export", "verify", "net", "--json", "--repository", root)
    verdicts = {Path(directory).name: verdict for directory, verdict in json.loads(done.stdout).items()}
    assert done.returncode == 1
    assert verdicts["1"] == "as published" and "changed: model.onnx" in verdicts[".parked-3"]
    assert "there is no release/net" in verdicts["2"]
