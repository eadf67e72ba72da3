"""Writes a run's lineage into its checkpoints and into MLflow. Apart from lineage.py, which needs no Lightning."""

from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl

from training import tracking
from training.lightning.run_logger import RunLogger
from training.lineage import KEY, Lineage, git_state


class RecordLineage(pl.Callback):
    """A callback that writes the Lineage into every checkpoint, and as tags into the MLflow run."""

    def __init__(self, family: str) -> None:
        self._family = family
        self._commit, self._dirty = git_state()
        self._account = tracking.account()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tag the MLflow run, once among several processes."""
        if trainer.is_global_zero and isinstance(trainer.logger, RunLogger):
            trainer.logger.outbox.tags(self._lineage(trainer).tags())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell MLflow that a run which is gone on with runs again: nothing has refused it by now."""
        if isinstance(trainer.logger, RunLogger):
            trainer.logger.begin()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the lineage to what is saved."""
        checkpoint[KEY] = asdict(self._lineage(trainer))

    def _lineage(self, trainer: pl.Trainer) -> Lineage:
        run_id = trainer.logger.run_id if isinstance(trainer.logger, RunLogger) else None
        fingerprint = trainer.datamodule.fingerprint  # type: ignore[attr-defined]  # set by the trainer
        return Lineage(self._family, fingerprint, self._commit, self._dirty, run_id, self._account)
