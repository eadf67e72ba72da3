"""Who does which trial: a new one, or one that was begun by a worker that has died. No trial is begun twice.

Every trial has a lock in its folder, which is held by who carries it out, and is free once that process has ended,
however it ended: a trial that is under way and not locked was begun by somebody who is gone.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from contracts import layout
from training.errors import SweepError
from training.sweep.storage import locked
from training.sweep.study import Study

PLACE, SEEN, SAME_AS, LOST, ERROR, STARTS = "place", "seen", "same_as", "lost", "error", "starts"  # of a trial
BEAT_S = 30  # how often a worker says that its trial is under way
_GONE_S = 600  # a trial of another place that nobody has spoken of for so long is begun anew
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Claim:
    """A trial that is ours to carry out."""

    trial: optuna.Trial
    lock: int  # descriptor

    @property
    def number(self) -> int:
        """Its number in the study."""
        return int(self.trial.number)


def started(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that count: those that were begun, and not lost."""
    return [t for t in trials if PLACE in t.user_attrs and LOST not in t.user_attrs and t.state != TrialState.WAITING]


def ended(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that have ended, well or not."""
    return [trial for trial in started(trials) if trial.state in _ENDED]


@contextmanager
def claim(study: Study, opened: optuna.Study, most: int) -> Iterator[Claim | None]:
    """Take a trial for as long as the block runs: one that was left, else a new one while there are fewer than `most`.

    None: there is none to take now; `is_done` says whether there will be.
    """
    with locked(study.folder / ".lock"):
        found = _left(study, opened) or _new(study, opened, most)
    try:
        yield found
    finally:
        if found is not None:
            os.close(found.lock)


def is_done(opened: optuna.Study, most: int) -> bool:
    """Tell whether that many have ended, whoever carried them out."""
    return len(ended(opened.get_trials(deepcopy=False))) >= most


def lose(opened: optuna.Study, trial: optuna.Trial) -> None:
    """End a trial that is not to count."""
    trial.set_user_attr(LOST, True)
    opened.tell(trial, state=TrialState.FAIL)


def _left(study: Study, opened: optuna.Study) -> Claim | None:
    """Take a trial whose worker is gone."""
    for frozen in opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        whole = len(frozen.params) == len(study.search.space.search)
        if frozen.user_attrs.get(PLACE) != study.place:
            if _silent_s(frozen) > _GONE_S:
                _give_up(opened, frozen, whole=whole)
        elif (lock := _lock(study, frozen.number)) is not None:
            if whole:
                trial = optuna.Trial(opened, frozen._trial_id)
                trial.set_user_attr(SEEN, time.time())
                return Claim(trial, lock)
            _give_up(opened, frozen, whole=False)  # killed as it was drawn: the next is drawn as it was
            os.close(lock)
    return None


def _new(study: Study, opened: optuna.Study, most: int) -> Claim | None:
    """Draw a trial; it has its place's name from the first moment on."""
    while len(before := started(opened.get_trials(deepcopy=False))) < most:
        named = {PLACE: study.place, SEEN: time.time()}
        if not opened.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            opened.enqueue_trial({}, user_attrs=named)
        opened.sampler = study.sampler(len(before))
        trial = opened.ask(study.search.distributions)
        for name, value in named.items():
            trial.set_user_attr(name, value)
        if (lock := _lock(study, trial.number)) is None:
            raise SweepError(f"somebody has locked {layout.shown(study.trial_folder(trial.number))}")
        if (same := _same(before, trial.params)) is None:
            return Claim(trial, lock)
        trial.set_user_attr(SAME_AS, same.number)
        opened.tell(trial, same.values if same.state == TrialState.COMPLETE else None, same.state)
        os.close(lock)
    return None


def _same(before: list[FrozenTrial], parameters: dict[str, Any]) -> FrozenTrial | None:
    """Find a trial with the same parameters that has ended: fits are seeded, and another would find the same."""
    known = (t for t in before if t.state in (TrialState.COMPLETE, TrialState.PRUNED) and t.params == parameters)
    return next(known, None)


def _give_up(opened: optuna.Study, frozen: FrozenTrial, *, whole: bool) -> None:
    """End a trial that does not count, and have tried again what it was to try, if that is known."""
    if wanted := frozen.params if whole else frozen.system_attrs.get("fixed_params"):
        opened.enqueue_trial(wanted)
    lose(opened, optuna.Trial(opened, frozen._trial_id))


def _silent_s(frozen: FrozenTrial) -> float:
    begun = frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0
    return time.time() - float(frozen.user_attrs.get(SEEN, begun))


def _lock(study: Study, number: int) -> int | None:
    folder = study.trial_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
