"""Old releases are removed, and never what serves, the way back, or what somebody has."""

import json
from pathlib import Path

import pytest

from contracts import repository
from tests.conftest import Workspace
from tests.small_releases import NETWORK, ensemble, published, written


@pytest.fixture
def root(workspace: Workspace) -> Path:
    """Six releases of `net`: 4 serves, 2 and 5 and 6 are parked."""
    written(workspace.repository, {"net/config.pbtxt": NETWORK})
    for version in range(1, 7):
        published(workspace.repository, version, f".parked-{version}" if version in (2, 5, 6) else None)
    return workspace.repository


def left(root: Path) -> list[int]:
    return sorted([*repository.versions(root / "net"), *repository.parked(root / "net")])


def prune(workspace: Workspace, *arguments: str) -> dict[str, str]:
    """{version: why it was kept, "" where it was not} of what `export prune --json` decided about."""
    told = json.loads(workspace.must("export", "prune", "--json", "--repository", workspace.repository, *arguments))
    assert told["freed_bytes"] == sum(removed["size_bytes"] for removed in told["removed"])
    return {str(r["version"]): "" for r in told["removed"]} | {str(k["version"]): k["because"] for k in told["kept"]}


def test_what_serves_and_the_way_back_are_kept_however_old_they_are(workspace: Workspace, root: Path) -> None:
    assert prune(workspace, "net", "--keep", "1") == {
        "1": "",
        "2": "",
        "5": "",
        "3": "the way back",
        "4": "it serves",
    }
    assert left(root) == [3, 4, 6], "of the newest one, which is parked, the number is not given again"
    assert prune(workspace, "--keep", "1") == {"3": "the way back", "4": "it serves"}


def test_a_roll_back_skips_parked_releases_and_the_newest_older_one_is_kept_as_well(
    workspace: Workspace, root: Path
) -> None:
    with repository.locked(root / "net"):
        repository.park(root / "net", 3)
    assert prune(workspace, "--keep", "1") == {
        "2": "",
        "5": "",
        "1": "the way back",
        "3": "the way back",
        "4": "it serves",
    }


def test_what_is_asked_for_by_its_number_is_kept(workspace: Workspace, root: Path) -> None:
    written(root, {"way/config.pbtxt": ensemble("net", version=2)})
    (root / "net" / "config.pbtxt").write_text(NETWORK + " version_policy { specific { versions: [ 5 ] } }")
    found = prune(workspace, "--keep", "1")
    assert found["2"] == "way asks for it" and found["5"] == "net asks for it"
    assert left(root) == [2, 3, 4, 5, 6]


def test_what_a_running_server_has_is_kept(workspace: Workspace, root: Path) -> None:
    with repository.held(root / "net" / "1"):
        assert prune(workspace, "--keep", "2")["1"] == "a running server has it"
    assert 1 in left(root)
    assert prune(workspace, "--keep", "2")["1"] == ""


def test_the_way_back_from_what_a_running_server_has_is_kept(workspace: Workspace, root: Path) -> None:
    """The repository is ahead of the server, whose next reload may fail."""
    with repository.held(root / "net" / "3"):
        found = prune(workspace, "--keep", "1")
    assert found == {"1": "the way back", "2": "the way back", "3": "the way back", "4": "it serves", "5": ""}
    assert prune(workspace, "--keep", "1") == {"1": "", "2": "", "3": "the way back", "4": "it serves"}


def test_what_was_refused_is_no_way_back(workspace: Workspace, root: Path) -> None:
    with repository.locked(root / "net"):
        repository.refuse(root / "net", 3, "it does not load")
    found = prune(workspace, "--keep", "1")
    assert found == {"1": "the way back", "2": "the way back", "3": "", "4": "it serves", "5": ""}
    assert not (root / "net" / ".refused-3").exists()


def test_a_dry_run_says_the_same_and_touches_nothing(workspace: Workspace, root: Path) -> None:
    before = sorted(root.rglob("*"))
    told = workspace.must("export", "prune", "--keep", "1", "--dry-run", "--repository", root)
    assert sorted(root.rglob("*")) == before
    assert "net version 3 (superseded): kept, the way back\n" in told and "net version 1 (superseded): 0.0 MB\n" in told
    assert told.splitlines()[-1].startswith("Would free ")
    done = workspace.must("export", "prune", "--keep", "1", "--repository", root)
    assert "net version 1 (superseded): 0.0 MB, removed\n" in done and done.splitlines()[-1].startswith("Freed ")
    assert workspace.must("export", "prune", "--keep", "6", "--repository", root) == "Nothing to remove\n"


def test_what_was_never_exported_is_left_alone(workspace: Workspace, root: Path) -> None:
    """Sources of steps, which git has, and graphs that somebody put there by hand."""
    written(root, {"own/config.pbtxt": NETWORK, "own/1/model.onnx": "own", "own/2/model.onnx": "own"})
    before = sorted(path for path in root.rglob("*") if "net" not in path.parts)
    prune(workspace, "--keep", "1")
    assert sorted(path for path in root.rglob("*") if "net" not in path.parts) == before


def test_a_version_that_is_kept_elsewhere_is_not_followed(workspace: Workspace, root: Path, tmp_path: Path) -> None:
    (root / "net" / "1").rename(tmp_path / "elsewhere")
    (root / "net" / "1").symlink_to(tmp_path / "elsewhere")
    assert "1" not in prune(workspace, "--keep", "1")
    assert (tmp_path / "elsewhere" / "model.onnx").is_file()


@pytest.mark.parametrize("count", ["0", "-1", "all"])
def test_at_least_one_is_kept(workspace: Workspace, root: Path, count: str) -> None:
    done = workspace.run("export", "prune", f"--keep={count}", "--repository", root)
    assert done.returncode == 2 and f"{count} is not a number of versions, 1 or more" in done.stderr
    assert left(root) == [1, 2, 3, 4, 5, 6]


def test_of_what_is_not_there_nothing_is_removed(workspace: Workspace, root: Path) -> None:
    done = workspace.run("export", "prune", "nothing", "--keep", "1", "--repository", root)
    assert done.returncode == 1 and done.stderr.startswith("error: nothing to prune in ")
