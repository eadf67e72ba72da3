"""Successive halving stops the same trials whether or not a second objective is asked for."""

from pathlib import Path

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from tests.training.sweep.searches import BOTH, HALVING, TEXT, search, study
from training.sweep.claims import claim
from training.sweep.fits.trial import Report
from training.sweep.halving import Judge
from training.sweep.space import Halving

LEARNED = (0.5, 0.9, 0.2, 0.8, 0.95, 0.1, 0.6, 0.99, 0.3, 0.97)  # by trial, at every step


def stopped(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At which step each trial stops; 0: it runs to its end."""
    folder.mkdir()
    known = study(folder, search(folder, text), monkeypatch)
    opened, found = known.opened(), []
    for value in LEARNED:
        with claim(known, opened, len(LEARNED)) as taken:
            assert taken is not None
            reports = [Report(step, 9, value) for step in range(1, 10)]
            judge = Judge(opened, taken.trial, Halving(1, 3))
            at = next((step for step in range(1, 10) if judge.is_worse(reports[:step])), 0)
            found.append(at)
            values = [value] * len(opened.directions)
            opened.tell(taken.trial, None if at else values, optuna.trial.TrialState.PRUNED if at else None)
    return found


def test_with_two_objectives_it_stops_what_optuna_stops_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = stopped(tmp_path / "alone", HALVING + TEXT, monkeypatch)
    assert stopped(tmp_path / "both", BOTH + HALVING + TEXT, monkeypatch) == alone
    study_of_optunas_own = optuna.create_study(direction="maximize", pruner=SuccessiveHalvingPruner(1, 3))
    own = []
    for value in LEARNED:
        trial, at = study_of_optunas_own.ask(), 0
        for step in range(1, 9):
            trial.report(value, step)
            if trial.should_prune():
                at = step
                break
        own.append(at)
        study_of_optunas_own.tell(trial, None if at else value, optuna.trial.TrialState.PRUNED if at else None)
    assert alone == own
    assert 0 in alone and 1 in alone, "some are stopped, and some are not"


def test_the_last_step_is_not_stopped_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = study(tmp_path, search(tmp_path), monkeypatch)
    opened = known.opened()
    for value, last in ((1.0, False), (0.1, True)):
        with claim(known, opened, 2) as taken:
            assert taken is not None
            judge = Judge(opened, taken.trial, Halving(1, 2))
            assert not judge.is_worse([Report(1, 1 if last else 2, value)])
            opened.tell(taken.trial, value)


def test_a_trial_that_is_begun_again_is_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been killed between the rung that it reached and the word that it is to stop there."""
    known = study(tmp_path, search(tmp_path), monkeypatch)
    opened = known.opened()
    for value, worse in ((0.8, False), (0.9, False), (0.1, True), (0.1, True), (0.1, True)):
        with claim(known, opened, 3) as taken:
            assert taken is not None
            judge = Judge(opened, taken.trial, Halving(1, 2))
            assert judge.is_worse([Report(1, 4, value)]) == worse
            if not worse:
                judge.is_worse([Report(1, 4, value), Report(2, 4, value)])
                opened.tell(taken.trial, value)
    assert [trial.intermediate_values for trial in opened.trials] == [{1: 0.8, 2: 0.8}, {1: 0.9, 2: 0.9}, {1: 0.1}]


def test_without_halving_every_trial_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = study(tmp_path, search(tmp_path), monkeypatch)
    opened = known.opened()
    for value in (1.0, 0.1):
        with claim(known, opened, 2) as taken:
            assert taken is not None
            assert not Judge(opened, taken.trial, None).is_worse([Report(1, 9, value)])
            opened.tell(taken.trial, value)
