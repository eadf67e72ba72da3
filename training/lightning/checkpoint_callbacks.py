"""What a run keeps to be gone on with: its configuration, every epoch's state, how long it waits, what it draws."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.cli import SaveConfigCallback

from contracts import layout
from contracts.errors import ProjectError
from training.lightning.run_logger import RunLogger

STOPS = (KeyboardInterrupt, SystemExit)  # Ctrl-C; SIGTERM and a terminal that was closed


class SaveConfig(SaveConfigCallback):
    """A callback that keeps the resolved configuration beside the checkpoints it produced."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write config.yaml into the run's folder; only a fit makes checkpoints."""
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it
            directory = Path(self.config["checkpoint"]["dirpath"])
            directory.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, str(directory / "config.yaml"), skip_none=False, overwrite=True)


class KeepLast(ModelCheckpoint):
    """A callback that saves every epoch's state, to resume from: save_last only saves when the best is beaten."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, filename="last", enable_version_counter=False)
        self.interrupted = False  # by Ctrl-C, for which Lightning exits as for a failure

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Have the last step of `max_steps` validated, though it is in the middle of an epoch."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how the run is resumed, and to MLflow that it was stopped, not that it failed."""
        self.interrupted = isinstance(exception, KeyboardInterrupt)
        if isinstance(exception, STOPS) and isinstance(trainer.logger, RunLogger):
            trainer.logger.ended = "KILLED"
        if not trainer.is_global_zero or trainer.state.fn != "fit" or isinstance(exception, ProjectError):
            return
        what = "Stopped" if isinstance(exception, STOPS) else "It failed"
        if self.best_model_path:
            print(f"\n{what}. Go on with the same command and --ckpt_path {layout.shown(Path(self.best_model_path))}")
        elif isinstance(exception, STOPS):
            print(f"\n{what} before the first epoch was done: there is nothing to go on from")


class StopEarly(EarlyStopping):
    """Early stopping whose patience is what the command says, also of a run that is resumed."""

    @property
    def state_key(self) -> str:
        """What its state is called in a checkpoint: as that of Lightning's own, which older ones have."""
        return f"EarlyStopping{ {'monitor': self.monitor, 'mode': self.mode}!r}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what a checkpoint has, but for its patience, and for why that fit may have ended."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED

    @property
    def told(self) -> str | None:
        """Say why the fit ended before its last epoch, if this ended it."""
        if self.stopping_reason == EarlyStoppingReason.NOT_STOPPED:
            return None
        if self.stopping_reason == EarlyStoppingReason.NON_FINITE_METRIC:
            return f"{self.monitor} was no finite number"
        if self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
            times = "once" if self.wait_count == 1 else f"{self.wait_count} times"
            return f"{self.monitor} was looked at {times} and was no better (--early_stopping.patience)"
        return f"{self.monitor} has passed a threshold of --early_stopping"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the figure, unless there is no validation to have one."""
        if any(trainer.num_val_batches):
            super().on_train_epoch_end(trainer, pl_module)


class SeedEpochs(pl.Callback):
    """A callback with which an epoch's random numbers follow from the seed, the epoch and the process alone.

    So a run that is resumed draws what it would have drawn, and ends as if it had not stopped.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed what modules draw from, before an epoch's first batch is there to be augmented."""
        given = os.environ.get("PL_GLOBAL_SEED")  # where Lightning keeps it; none with --seed_everything false
        if given is None:
            return
        seed = (int(given) + 1_000_003 * trainer.current_epoch + 7919 * trainer.global_rank) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
