"""What a run keeps to be gone on with: its configuration, every epoch's state, and the state of its random numbers."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import SaveConfigCallback
from torch import distributed

from contracts import layout
from training.batching import process, processes
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

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how the run is resumed, and to MLflow that it was stopped, not that it failed."""
        if isinstance(exception, STOPS) and isinstance(trainer.logger, RunLogger):
            trainer.logger.ended = "KILLED"
        if not trainer.is_global_zero or trainer.state.fn != "fit":
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
        """Go on from what a checkpoint has, but for its patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})


class KeepRandomNumbers(pl.Callback):
    """A callback with which a run that was resumed draws what it would have drawn: it ends as if it had not stopped."""

    def __init__(self) -> None:
        self._to_come: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of every process that trains, [{"torch": …}, …]."""
        own, states = _random_state(), [None] * processes()
        if len(states) > 1:
            distributed.all_gather_object(states, own)
        return {"states": states if len(states) > 1 else [own]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over this process's, where as many train now as did then."""
        states = state_dict["states"]
        self._to_come = states[process()] if len(states) == processes() else None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the first epoch after a resume as the last one ended."""
        if self._to_come is not None:
            _set_random_state(self._to_come)
            self._to_come = None


def _random_state() -> dict[str, Any]:
    """Return where the generators are, as tensors and numbers, which are read without executing anything."""
    _, keys, at, has_normal, normal = np.random.get_state(legacy=True)  # type: ignore[misc]  # of numpy's own default
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [torch.from_numpy(np.asarray(keys, np.int64)), int(at), int(has_normal), float(normal)],
        "python": list(random.getstate()[1]),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    keys, at, has_normal, normal = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), at, has_normal, normal))
    random.setstate((3, tuple(state["python"]), None))
