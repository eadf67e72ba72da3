"""A search from beginning to end, with quick fits: what it keeps, what it says, and how it goes on."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

from tests.training.sweep.quick_search import quick
from tests.training.sweep.searches import BOTH, HALVING, TEXT, search
from tests.workspace import FAMILY, Workspace, new_workspace
from training.sweep import carrying_out, claims

SLOW_STEPS = "--pause=0.01"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One MLflow store for all of these: to make one takes seconds."""
    return new_workspace(tmp_path_factory.mktemp("searched"))


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying_out, "command", quick)


def sweep(place: Workspace, *arguments: str, text: str = TEXT) -> "subprocess.CompletedProcess[str]":
    space = place.root / "known.yaml"
    space.write_text(text)
    return place.run_here("training", "sweep", FAMILY, "--space", str(space), *arguments)


def found(place: Workspace, *arguments: str, text: str = TEXT) -> dict[str, Any]:
    done = sweep(place, "--json", *arguments, text=text)
    assert done.returncode == 0, done.stderr
    described: dict[str, Any] = json.loads(done.stdout)
    return described


def test_a_search_finds_what_is_best_and_keeps_all_of_it(place: Workspace) -> None:
    both = found(place, "--study", "both", "--trials", "12", "--workers", "2", text=BOTH + HALVING + TEXT)
    assert len(both["trials"]) == 12
    states = [trial["state"] for trial in both["trials"]]
    assert states.count("pruned") >= 2 and states.count("complete") >= 2
    figures = [(point["val_accuracy"], point["latency_ms"]) for point in both["front"]]
    assert figures == sorted(figures, reverse=True), "what is better costs more, or it would not be on the front"
    assert all(Path(point["checkpoint"]).read_text().split()[0] for point in both["front"])
    assert Path(both["picture"]).stat().st_size > 5000

    client = MlflowClient(f"sqlite:///{place.root / 'artifacts' / 'mlflow.db'}")
    [experiment] = [e.experiment_id for e in client.search_experiments() if e.name == FAMILY]
    [above] = client.search_runs([experiment], "tags.sweep = 'both' and tags.trial IS NULL")
    below = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{above.info.run_id}'")
    assert sorted(int(run.data.tags["trial"]) for run in below) == list(range(12))
    assert {run.info.status for run in below} == {"FINISHED", "KILLED"}
    assert above.info.status == "FINISHED"
    assert above.data.metrics["best_val_accuracy"] == both["front"][0]["val_accuracy"]
    assert {file.path for file in client.list_artifacts(above.info.run_id, "sweep")} == {
        "sweep/front.png",
        "sweep/trials.csv",
    }


def test_the_same_command_goes_on_and_then_has_nothing_to_do(place: Workspace) -> None:
    before = found(place, "--study", "again", "--trials", "4")
    after = found(place, "--study", "again", "--trials", "6")
    assert after["trials"][:4] == before["trials"] and len(after["trials"]) == 6
    done = sweep(place, "--study", "again", "--trials", "6")
    assert "trial " not in done.stderr, "nothing was carried out"
    assert "again: 6 of 6 trials ran to their end" in " ".join(done.stdout.split())
    [number] = {point["trial"] for point in after["front"]}
    checkpoint = place.root / "artifacts" / "sweeps" / "again" / "trials" / f"{number:04d}" / "best.ckpt"
    assert done.stdout.splitlines()[-1] == f"Next: python -m export {FAMILY} --checkpoint {checkpoint}"
    assert (place.root / "artifacts" / "sweeps" / "again" / "trials.csv").read_text().count("complete") == 6


def test_a_space_that_is_exhausted_ends_with_its_best_once(place: Workspace) -> None:
    """Two workers may draw the same at the same moment, and what there was is not tried again."""
    few = "search:\n  model.x: {among: [0.5, 0.7]}\n"
    done = found(place, "--study", "few", "--trials", "8", "--workers", "2", SLOW_STEPS, text=few)
    assert [trial["state"] for trial in done["trials"]] == ["complete"] * 8
    assert sum(trial["same_as"] is None for trial in done["trials"]) <= 4, "those of both workers, at most"
    assert [point["parameters"] for point in done["front"]] == [{"model.x": "0.7"}]
    again = sweep(place, "--study", "few", "--trials", "3", SLOW_STEPS, text=few)
    assert "few: 8 of 8 trials ran to their end" in " ".join(again.stdout.split())


def test_trials_that_fail_are_told_of_and_three_in_a_row_end_it(place: Workspace) -> None:
    failing = "search:\n  model.x: {low: 0.001, high: 0.019}\n"
    done = sweep(place, "--study", "failing", text=failing)
    assert done.returncode == 1
    assert "error: 3 trials in a row failed\nNote: RuntimeError: it is too small to be fitted" in done.stderr
    assert "Hint: what it printed: " in done.stderr and "Traceback" not in done.stderr
    done = sweep(place, "--study", "failing", "--trials", "3", text=failing)
    assert "error: of 3 trials none ended well" in done.stderr


def test_one_that_did_not_learn_is_no_reason_to_stop_but_to_look_elsewhere(place: Workspace) -> None:
    mostly = "search:\n  model.x: {low: 0.8, high: 1.2}\n"
    done = found(place, "--study", "mostly", "--trials", "6", text=mostly)
    states = {trial["error"]: trial["state"] for trial in done["trials"]}
    # Those that failed are nothing to TPE; those that were stopped are what it keeps away from.
    assert states == {None: "complete", "its quality is nan: it did not learn": "pruned"}


def test_trials_of_other_data_are_not_compared(place: Workspace) -> None:
    flags = (SLOW_STEPS, "--study", "data", "--trials")
    found(place, *flags, "1")
    study = optuna.load_study(
        study_name="data", storage=f"sqlite:///{place.root / 'artifacts' / 'sweeps' / 'sweeps.db'}"
    )
    study.set_user_attr("data_fingerprint", "of yesterday")
    done = sweep(place, *flags, "2")
    assert done.returncode == 1
    assert "trial 1 was trained on other data than the trials before it" in done.stderr


def test_what_is_typed_counts_before_what_the_space_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    known = search(tmp_path, "fit: {trainer.max_epochs: 6}\n" + TEXT, ("--trainer.max_epochs=2",))
    words = carrying_out.command(replace(known, preset="demo"), {"model.x": 0.5})
    assert words == [
        *("-m", "training", "fit", FAMILY, "--preset", "demo"),
        *("--trainer.max_epochs=6", "--trainer.max_epochs=2", "--model.x=0.5"),
    ]


def test_a_trial_that_another_machine_gave_up_does_not_end_the_search(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a night's sleep of a laptop."""
    follow, seen = carrying_out.follow, []

    def slept(directory: Path, *rest: Any) -> Any:
        outcome = follow(directory, *rest)
        if not seen:
            seen.append(directory)
            database = place.root / "artifacts" / "sweeps" / "sweeps.db"
            elsewhere = optuna.load_study(study_name="slept", storage=f"sqlite:///{database}")
            claims.lose(elsewhere, optuna.Trial(elsewhere, elsewhere.trials[0]._trial_id))
        return outcome

    monkeypatch.setattr(carrying_out, "follow", slept)
    done = sweep(place, "--study", "slept", "--trials", "2")
    assert done.returncode == 0, done.stderr
    assert "was given up by another machine" in done.stderr
    assert "2 of 2 trials ran to their end" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--objectives", "latency"], "objectives are [quality] or [quality, latency]"),
        (["--space", "nope"], "nope.yaml does not exist"),
        (["--model.lr", "0.1"], "--model.lr is given, and searched"),
        (["--storage", "nonsense"], "is no address of a database"),
    ],
)
def test_a_mistake_is_one_line(place: Workspace, arguments: list[str], told: str) -> None:
    done = place.run_here("training", "sweep", FAMILY, *arguments)
    assert done.returncode == 1
    assert told in done.stderr and "Traceback" not in done.stderr
