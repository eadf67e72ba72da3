"""No trial is begun twice, none is forgotten, and which one comes next depends on those before and on nothing else."""

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.training.sweep.quick_fit import quality
from tests.training.sweep.searches import search, study
from training.sweep import claims
from training.sweep.claims import PLACE, SAME_AS, SEEN, claim
from training.sweep.study import Study

MOST = 14  # some are drawn by what those before have shown


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return study(tmp_path, search(tmp_path), monkeypatch)


def value(trial: optuna.Trial) -> float:
    return quality(trial.params["model.x"], trial.params["model.y"])


def carry_out(known: Study, most: int = MOST) -> list[dict[str, Any]]:
    """Carry out one trial after the other; return their parameters."""
    opened = known.opened()
    while not claims.is_done(opened, most):
        with claim(known, opened, most) as taken:
            assert taken is not None
            opened.tell(taken.trial, value(taken.trial))
    return [trial.params for trial in claims.started(opened.trials)]


def leave(known: Study) -> optuna.Trial:
    """Begin a trial and die."""
    with claim(known, known.opened(), MOST) as taken:
        assert taken is not None
        return taken.trial


def test_a_trial_that_was_left_is_taken_first_and_as_it_was(known: Study) -> None:
    left = leave(known)
    with claim(known, known.opened(), MOST) as taken:
        assert taken is not None
        assert (taken.number, taken.trial.params) == (left.number, left.params)


def test_one_that_is_being_carried_out_is_nobody_elses(known: Study) -> None:
    with claim(known, known.opened(), 2) as first, claim(known, known.opened(), 2) as second:
        assert first is not None and second is not None and first.number != second.number
        with claim(known, known.opened(), 2) as third:
            assert third is None


def test_a_search_that_is_killed_again_and_again_draws_what_an_undisturbed_one_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    undisturbed = carry_out(study(tmp_path / "undisturbed", search(tmp_path), monkeypatch))
    for most in range(1, MOST + 1):
        killed = study(tmp_path / "killed", search(tmp_path), monkeypatch)
        drawn_half(killed, most)
        leave(killed)
        found = carry_out(killed, most)
    assert found == undisturbed
    assert len(found) == MOST
    assert len(killed.opened().trials) > MOST + 5, "most were drawn twice"


def drawn_half(known: Study, most: int) -> None:
    """Die while the next trial is drawn: it has one of its two parameters."""
    opened = known.opened()
    if len(claims.started(opened.trials)) < most:
        opened.enqueue_trial({}, user_attrs={PLACE: known.place, SEEN: time.time()})
        opened.ask({"model.x": known.search.distributions["model.x"]})


def test_threads_and_processes_share_a_search(known: Study) -> None:
    with ExitStack() as held:
        taken: list[int] = []

        def take() -> None:
            for _ in range(4):
                found = held.enter_context(claim(known, known.opened(), 10))
                taken.extend([found.number] if found else [])

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == list(range(10))


def test_what_was_tried_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = "search:\n  model.y: {low: 1, high: 3}\n"
    known = study(tmp_path, search(tmp_path, few), monkeypatch)
    opened = known.opened()
    tried = []
    while not claims.is_done(opened, 9):
        with claim(known, opened, 9) as taken:
            if taken is not None:
                tried.append(taken.trial.params["model.y"])
                opened.tell(taken.trial, float(taken.trial.params["model.y"]))
    assert sorted(tried) == [1, 2, 3]
    same = [trial for trial in opened.trials if SAME_AS in trial.user_attrs]
    assert len(same) == 6
    assert all(trial.value == trial.params["model.y"] for trial in same)


def test_a_trial_of_a_machine_that_is_gone_is_tried_again_and_one_that_is_there_is_not(known: Study) -> None:
    opened = known.opened()
    left = leave(known)
    left.set_user_attr(PLACE, "another")
    with claim(known, opened, 1) as taken:
        assert taken is None, "it was heard of just now"
    left.set_user_attr(SEEN, time.time() - 3600)
    with claim(known, opened, 1) as taken:
        assert taken is not None
        assert taken.number != left.number and taken.trial.params == left.params
    assert [trial.state for trial in opened.trials] == [TrialState.FAIL, TrialState.RUNNING]
    assert len(claims.started(opened.trials)) == 1, "the one that is gone does not count"


def test_the_lock_of_a_trial_ends_with_its_process(known: Study) -> None:
    if (child := os.fork()) == 0:
        with claim(known, known.opened(), MOST):
            os._exit(0)
    os.waitpid(child, 0)
    with claim(known, known.opened(), MOST) as taken:
        assert taken is not None and taken.number == 0
