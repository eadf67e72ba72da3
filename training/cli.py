"""Lightning's command line, with this project's tracking, lineage and checkpoints built in."""

import logging
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities import rank_zero_only

from contracts import layout
from training import families
from training.errors import TrainingError
from training.lineage import RecordLineage


def run(subcommand: str, family: str, preset: str | None, flags: list[str]) -> None:
    """`subcommand` (fit, validate, test) of `family` with Lightning's own flags.

    Raises:
        TrainingError: there is no such preset.
        DataError: the data cannot be had.
    """
    _quieten()
    chosen = families.load(family)
    configs = [chosen.directory / "config.yaml"]
    if preset:
        configs.append(_preset(chosen.directory, preset))
    args = [subcommand, *(f"--config={path}" for path in configs), *flags]
    _CLI(chosen, args)


class _SaveConfig(SaveConfigCallback):
    """Keeps the resolved configuration beside the checkpoints it produced."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.checkpoint_callback is not None:
            directory = Path(trainer.checkpoint_callback.dirpath)  # type: ignore[attr-defined]  # ModelCheckpoint
            directory.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, str(directory / "config.yaml"), skip_none=False, overwrite=True)


class _SayHowToResume(pl.Callback):
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        last = getattr(trainer.checkpoint_callback, "last_model_path", None)
        if isinstance(exception, KeyboardInterrupt) and last and trainer.is_global_zero:
            print(f"\nStopped. Go on with the same command and --ckpt_path {layout.shown(Path(last))}")


class _CLI(LightningCLI):
    def __init__(self, family: families.Family, args: list[str]) -> None:
        self._family = family
        self._run_name = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        self._started = time.monotonic()
        super().__init__(
            family.module,
            family.data,
            args=args,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={
                "logger": self._mlflow(),
                "callbacks": [RecordLineage(family.name), LearningRateMonitor("epoch"), _SayHowToResume()],
                "enable_model_summary": False,
                "log_every_n_steps": 100,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": "val_accuracy", "early_stopping.mode": "max"})
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.dirpath": str(layout.CHECKPOINTS / self._family.name / self._run_name),
                "checkpoint.filename": "best",
                "checkpoint.monitor": "val_accuracy",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
            }
        )

    def after_fit(self) -> None:
        best = self.trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]  # always set
        if self.trainer.interrupted or not best:
            return
        [metrics] = self.trainer.test(datamodule=self.datamodule, ckpt_path=best, weights_only=True, verbose=False)
        self._report(Path(best), metrics)

    @rank_zero_only
    def _report(self, best: Path, metrics: Mapping[str, float]) -> None:
        minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"\nTrained {self._family.name} in {minutes} min {seconds:02d} s: {figures}")
        print(f"Checkpoint: {layout.shown(best)}")
        print(f"Next: python -m export {self._family.name}")

    def _mlflow(self) -> dict[str, Any]:
        layout.ARTIFACTS.mkdir(parents=True, exist_ok=True)
        store = os.environ.get("MLFLOW_TRACKING_URI")
        arguments = {
            "experiment_name": self._family.name,
            "run_name": self._run_name,
            "tracking_uri": store or f"sqlite:///{layout.ARTIFACTS / 'mlflow.db'}",
            # A tracking server decides for itself where artifacts go.
            "artifact_location": None if store else (layout.ARTIFACTS / "mlflow").as_uri(),
            "log_model": True,
        }
        return {"class_path": "pytorch_lightning.loggers.MLFlowLogger", "init_args": arguments}


def _preset(directory: Path, name: str) -> Path:
    path = directory / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in directory.glob("*.yaml") if p.stem != "config")
        raise TrainingError(f"{directory.name} has no preset {name!r}", note=f"presets: {', '.join(known)}")
    return path


def _quieten() -> None:
    """Silence what says nothing to a user of this command line."""
    for name in ("alembic", "mlflow.store.db.utils", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the data is in memory
    warnings.filterwarnings("ignore", message=".*args parameter is intended to run from within Python.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # it holds our config.yaml
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # inside Lightning
