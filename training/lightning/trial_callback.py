"""Tells the search that a fit is a trial of how good the model is after each epoch, and what came of it."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from contracts.spec import ModelSpec
from training.errors import TrainingError
from training.lightning.metric_callback import monitored
from training.sweep.fits.trial import Result, Trial


class ReportToSearch(pl.Callback):
    """A callback that reports what early stopping goes by, once an epoch and once among several processes."""

    def __init__(self, trial: Trial, spec: ModelSpec) -> None:
        self._trial = trial
        self._figure, _ = monitored(spec)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch that has ended, where it was validated; Lightning validates before it calls this."""
        value = trainer.callback_metrics.get(self._figure)
        if value is not None and trainer.is_global_zero:
            epoch = trainer.current_epoch + 1
            self._trial.report(epoch, trainer.max_epochs or epoch, float(value))


def finish(trial: Trial, spec: ModelSpec, trainer: Any, best: Any, figures: Mapping[str, float]) -> None:
    """Tell the search what came of a fit.

    Args:
        best: The ModelCheckpoint that kept the best epoch; its weights are the trainer's.
        figures: On the test split.
    """
    if not trainer.is_global_zero:
        return
    if best.best_model_score is None:
        raise TrainingError(
            f"this trial never saw {monitored(spec)[0]}, which the search goes by", hint="leave validation on"
        )
    cost = None
    if trial.wants_latency:
        from training.sweep.fits import latency

        cost = latency.of_network(trainer.lightning_module.served(), trainer.datamodule.split("val"), spec)
    value, name = float(best.best_model_score), monitored(spec)[0]
    trial.finish(Result(value, {name: value, **figures}, trainer.datamodule.fingerprint, cost))
