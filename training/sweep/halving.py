"""Whether a trial goes on: successive halving, by its quality so far (Li et al. 2020, arXiv:1810.05934)."""

from copy import copy
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from training.sweep.fits.trial import Report
from training.sweep.space import Halving


class Judge:
    """What decides, for one start of a trial, after each of its reports.

    Optuna prunes studies of one objective. With several, trials are held against each other by the first, their
    quality; what an answer costs does not change while a model learns. And to Optuna a trial has passed the rungs that
    an earlier start of it has reached, also the one at which it was killed before it could be stopped.
    """

    def __init__(self, opened: optuna.Study, trial: optuna.Trial, halving: Halving | None) -> None:
        self._opened, self._trial, self._pruner = opened, trial, _pruner(halving)
        self._others = _ByQuality(opened, trial)

    def is_worse(self, reports: list[Report]) -> bool:
        """Tell whether the trial is to stop at the last of its reports."""
        last = reports[-1]
        if last.step >= last.of:  # it has cost what it costs
            return False
        held = self._trial.storage.get_trial(self._trial._trial_id)
        if len(self._opened.directions) == 1 and last.step not in held.intermediate_values:
            self._trial.report(last.value, last.step)
        own = copy(held)
        own.intermediate_values = {report.step: report.value for report in reports}
        own.system_attrs = dict(self._others.rungs)
        return self._pruner.prune(self._others, own)  # type: ignore[arg-type]  # a study to it


def _pruner(halving: Halving | None) -> BasePruner:
    """Return Optuna's: at `first`, `first` × `factor`, … steps one trial in `factor` goes on."""
    if halving is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=halving.first, reduction_factor=halving.factor)


class _ByQuality:
    """A study as a pruner sees it: its first objective, and all trials but one, whose rungs are of this start alone."""

    def __init__(self, opened: optuna.Study, trial: optuna.Trial) -> None:
        self._opened, self._own = opened, trial._trial_id
        self.rungs: dict[str, Any] = {}  # that it has passed, {name: value}
        self._storage = self

    @property
    def direction(self) -> StudyDirection:
        return self._opened.directions[0]

    def get_trials(self, *, deepcopy: bool = True) -> list[FrozenTrial]:
        return [trial for trial in self._opened.get_trials(deepcopy=deepcopy) if trial._trial_id != self._own]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keep that a rung was reached, for this start and for the other trials."""
        self.rungs[key] = value
        self._opened._storage.set_trial_system_attr(trial_id, key, value)
