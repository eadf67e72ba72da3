"""Writes a run's lineage into its checkpoints and into MLflow. Apart from lineage.py, which needs no Lightning."""

from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import MLFlowLogger

from training.lineage import KEY, Lineage, git_state


class RecordLineage(pl.Callback):
    """A callback that writes the Lineage into every checkpoint, and as tags into the MLflow run."""

    def __init__(self, family: str) -> None:
        self._family = family
        self._commit, self._dirty = git_state()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tag the MLflow run, once among several processes."""
        if trainer.is_global_zero and isinstance(trainer.logger, MLFlowLogger):
            for key, value in asdict(self._lineage(trainer)).items():
                trainer.logger.experiment.set_tag(trainer.logger.run_id, key, value)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the lineage to what is saved."""
        checkpoint[KEY] = asdict(self._lineage(trainer))

    def _lineage(self, trainer: pl.Trainer) -> Lineage:
        run_id = trainer.logger.run_id if isinstance(trainer.logger, MLFlowLogger) else None
        fingerprint = trainer.datamodule.fingerprint  # type: ignore[attr-defined]  # set by the trainer
        return Lineage(self._family, fingerprint, self._commit, self._dirty, run_id)
