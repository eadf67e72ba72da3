"""A study is one search: whoever opens it goes on with that, or is told what differs."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from contracts import layout
from tests.training.sweep.searches import BOTH, TEXT, search, study
from training import families
from training.errors import SweepError
from training.families import FAMILIES
from training.lightning.metric_callback import monitored
from training.sweep.storage import shown
from training.sweep.study import open_study, quality


def test_a_study_is_opened_again_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = study(tmp_path, search(tmp_path), monkeypatch)
    again = study(tmp_path, search(tmp_path), monkeypatch)
    assert (again.folder, again.place) == (first.folder, first.place)


@pytest.mark.parametrize(
    ("differing", "told"),
    [
        ({"seed": 7}, "differs in seed"),
        ({"preset": "demo"}, "differs in preset"),
        ({"flags": ("--trainer.max_epochs=3",)}, "differs in flags"),
    ],
)
def test_another_search_does_not_go_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differing: dict[str, object], told: str
) -> None:
    wanted = search(tmp_path)
    study(tmp_path, wanted, monkeypatch)
    with pytest.raises(SweepError) as refused:
        study(tmp_path, replace(wanted, **differing), monkeypatch)
    assert told in str(refused.value) and "--study ANOTHER" in str(refused.value)


@pytest.mark.parametrize(
    "text", [TEXT.replace("0.9", "0.8"), BOTH + TEXT, TEXT.replace("{low: 1, high: 6}", "{among: [1]}")]
)
def test_nor_does_another_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    study(tmp_path, search(tmp_path), monkeypatch)
    with pytest.raises(SweepError, match="is of another search: it differs in"):
        study(tmp_path, search(tmp_path, text), monkeypatch)


def test_trials_of_an_earlier_study_of_that_name_are_not_taken_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path, search(tmp_path), monkeypatch)
    (tmp_path / "sweeps.db").unlink()
    with pytest.raises(SweepError, match="has the trials of another study that was called known"):
        study(tmp_path, search(tmp_path), monkeypatch)


def test_one_that_was_killed_as_it_began_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.create_study(study_name="known", storage=f"sqlite:///{tmp_path / 'sweeps.db'}", direction="maximize")
    opened = study(tmp_path, search(tmp_path, BOTH + TEXT), monkeypatch).opened()
    assert len(opened.directions) == 2 and "search" in opened.user_attrs


def test_a_study_of_somebody_elses_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = optuna.create_study(study_name="known", storage=f"sqlite:///{tmp_path / 'sweeps.db'}")
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(SweepError, match="the study known was not begun by this command"):
        study(tmp_path, search(tmp_path), monkeypatch)
    assert len(theirs.trials) == 1


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nonsense", "--storage nonsense… is no address of a database"),
        ("oracle9://u:secret@h/d", "--storage oracle9… is no address of a database"),
        ("postgresql://u:secret@127.0.0.1:1/d", "postgresql://u:***@127.0.0.1:1/d does not answer"),
        ("sqlite:////proc/none/sweeps.db", "does not answer"),
    ],
)
def test_a_storage_that_is_none_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, told: str
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    with pytest.raises(SweepError) as refused:
        open_study("known", search(tmp_path), address, families.spec(layout.DEFAULT_FAMILY))
    assert told in str(refused.value) and "secret" not in str(refused.value)
    assert shown("postgresql://u:secret@h/d") == "postgresql://u:***@h/d"


def test_a_storage_of_another_optuna_is_said_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path, search(tmp_path), monkeypatch)
    with closing(sqlite3.connect(tmp_path / "sweeps.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
        database.commit()
        before = [*database.iterdump()]
        with pytest.raises(SweepError, match="is of another version of Optuna") as refused:
            study(tmp_path, search(tmp_path), monkeypatch)
        assert "optuna storage upgrade" in str(refused.value)
        assert [*database.iterdump()] == before


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", "a" * 101])
def test_a_name_is_a_folder_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(SweepError, match="a study cannot be called"):
        study(tmp_path, search(tmp_path), monkeypatch, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_trials_are_judged_by_what_the_best_checkpoint_is_chosen_by(family: str) -> None:
    spec = families.spec(family)
    figure, mode = monitored(spec)
    assert quality(spec) == (figure, {"max": "maximize", "min": "minimize"}[mode])
