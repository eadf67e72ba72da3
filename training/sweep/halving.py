"""Whether a trial goes on: successive halving, by its quality so far (Li et al. 2020, arXiv:1810.05934)."""

from copy import copy
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.study import StudyDirection

from training.sweep.fits.trial import Report
from training.sweep.space import Halving


def pruner(halving: Halving | None) -> BasePruner:
    """Return Optuna's pruner: at `first`, `first` × `factor`, … steps one trial in `factor` goes on."""
    if halving is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=halving.first, reduction_factor=halving.factor)


def is_worse(opened: optuna.Study, trial: optuna.Trial, reports: list[Report], by: BasePruner) -> bool:
    """Tell whether a trial is to stop at the last of its reports.

    Optuna prunes studies of one objective. With several, trials are held against each other by the first, their
    quality; what an answer costs does not change while a model learns.
    """
    last = reports[-1]
    if last.step >= last.of:  # it has cost what it costs
        return False
    if len(opened.directions) == 1 and last.step not in trial.storage.get_trial(trial._trial_id).intermediate_values:
        trial.report(last.value, last.step)
    frozen = copy(trial.storage.get_trial(trial._trial_id))
    frozen.intermediate_values = {report.step: report.value for report in reports}
    return by.prune(_ByQuality(opened), frozen)  # type: ignore[arg-type]  # a study but for its directions


class _ByQuality:
    """A study as it would be with its first objective alone."""

    def __init__(self, opened: optuna.Study) -> None:
        self._opened = opened

    @property
    def direction(self) -> StudyDirection:
        return self._opened.directions[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)
