"""A test that is not marked `heavy` and is all the same does not go unnoticed."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import heavy
from tests.attackers import PLAYS
from tests.conftest import pytest_terminal_summary
from tests.workspace import FAMILY


@pytest.mark.parametrize(
    "left", ["artifacts/server/triton.jsonl", f"artifacts/export/{FAMILY}", f"artifacts/checkpoints/{FAMILY}"]
)
def test_what_a_server_an_export_or_a_training_leaves_is_found(
    tmp_path_factory: pytest.TempPathFactory, left: str
) -> None:
    folder = tmp_path_factory.mktemp("left")
    assert heavy.found(folder, heavy.count()) == []
    (folder / left).mkdir(parents=True)
    assert heavy.found(folder, heavy.count()) == [str(folder / left)]


def test_a_tritonserver_is_heard_when_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heavy, "_tritons", [])
    program = tmp_path / "tritonserver"
    program.symlink_to("/bin/true")
    subprocess.run(["/bin/true"], check=True)
    assert heavy.found(None, 0) == []
    subprocess.run([program], check=True)
    assert heavy.found(None, 0) == [str(program)]


def test_heavy_tests_are_marked_and_a_file_is_in_one_group(request: pytest.FixtureRequest) -> None:
    groups: dict[Path, set[str]] = {}
    for item in request.session.items:
        if heavy.HEAVY_FIXTURES & set(getattr(item, "fixturenames", ())):
            assert item.get_closest_marker("heavy"), item.nodeid
        if group := item.get_closest_marker("xdist_group"):
            groups.setdefault(item.path, set()).add(group.args[0])
    assert all(len(found) == 1 for found in groups.values()), groups


def test_attacks_that_were_not_tried_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = (f"{PLAYS}: needs root", "needs a GPU", f"{PLAYS}: needs unshare")
    skipped = [SimpleNamespace(longrepr=("test_keys.py", 1, f"Skipped: {why}")) for why in reasons]
    for stats in ({"skipped": skipped}, {}):
        pytest_terminal_summary(SimpleNamespace(stats=stats, write_line=print))  # type: ignore[arg-type]
    assert capsys.readouterr().out == f"Not tried, as this is not root: 2 tests in which somebody {PLAYS}\n"
