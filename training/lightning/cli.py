"""Lightning's command line, with this project's tracking, lineage and checkpoints built in."""

import argparse
import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

from contracts import layout
from training import checkpoints, families, tracking
from training.errors import TrainingError
from training.estimators import fitting
from training.lightning.lineage_callback import RecordLineage
from training.lightning.metric_callback import LogMetric, monitored
from training.lightning.trial_callback import ReportToSearch, finish
from training.sweep.fits import trial


def run(subcommand: str, family: str, preset: str | None, flags: list[str]) -> None:
    """Run `subcommand` (fit, validate or test) for `family` with Lightning's own flags.

    Raises:
        TrainingError: there is no such preset.
        CheckpointError: `--ckpt_path` names none of this family.
        DataError: the data cannot be had.
    """
    _quieten()
    chosen = families.load(family)
    configs = [chosen.directory / "config.yaml"]
    if preset:
        configs.append(_preset(chosen.directory, preset))
    checkpoint, estimator = _checkpoint_flag(flags), preset and fitting.named_in(configs[-1])
    if checkpoint is not None:
        estimator = checkpoints.read(checkpoint, chosen).estimator
    elif subcommand != "fit":
        raise TrainingError(
            f"{subcommand} needs a checkpoint: without one it would judge random weights",
            hint=f"python -m training {subcommand} {family} --ckpt_path "
            f"{layout.shown(layout.checkpoints())}/…/best.ckpt",
        )
    if estimator:
        fitting.run(subcommand, chosen, estimator, configs[-1] if preset else None, flags)
        return
    args = [subcommand, *(f"--config={path}" for path in configs), *flags]
    _CLI(chosen, args, resumed=checkpoint if subcommand == "fit" else None)


class _SaveConfig(SaveConfigCallback):
    """A callback that keeps the resolved configuration beside the checkpoints it produced."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write config.yaml into the run's folder; only a fit makes checkpoints."""
        if stage == "fit":
            directory = Path(self.config["checkpoint"]["dirpath"])
            directory.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, str(directory / "config.yaml"), skip_none=False, overwrite=True)


class _KeepLast(ModelCheckpoint):
    """A callback that saves every epoch's state, to resume from: save_last only saves when the best is beaten."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, filename="last", enable_version_counter=False)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say after Ctrl-C how the run is resumed."""
        if isinstance(exception, KeyboardInterrupt) and self.best_model_path and trainer.is_global_zero:
            last = layout.shown(Path(self.best_model_path))
            print(f"\nStopped. Go on with the same command and --ckpt_path {last}")


class _CLI(LightningCLI):
    """Lightning's command line for one family, with this project's defaults.

    Args:
        args: Lightning's arguments, without the family.
        resumed: The checkpoint that a fit goes on from, if it does.
    """

    def __init__(self, family: families.Family, args: list[str], resumed: Path | None) -> None:
        self._family = family
        self._directory = layout.checkpoints() / family.name / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        self._trial = trial.current()
        if self._trial is not None:
            self._directory = self._trial.directory
        if resumed is not None:  # it is the same run: its best checkpoint stays the one to beat
            self._directory = resumed.resolve().parent
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
                "callbacks": [
                    *(RecordLineage(family.name), LogMetric(family.spec)),
                    *(LearningRateMonitor("epoch"), _KeepLast(self._directory)),
                    *([ReportToSearch(self._trial, family.spec)] if self._trial else []),
                ],
                "enable_model_summary": False,
                "log_every_n_steps": 100,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add early stopping and the best checkpoint, both by the family's metric on the validation split."""
        figure, mode = monitored(self._family.spec)
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": figure, "early_stopping.mode": mode})
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.dirpath": str(self._directory),
                "checkpoint.filename": "best",
                "checkpoint.monitor": figure,
                "checkpoint.mode": mode,
            }
        )

    def after_fit(self) -> None:
        """Test the best checkpoint, log it to MLflow, and say what to do next."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it
            return
        # Among several processes only the first one's directory counts; the callback knows it in each.
        [callback] = [c for c in self.trainer.checkpoint_callbacks if getattr(c, "monitor", None)]
        best = Path(callback.best_model_path)  # type: ignore[attr-defined]  # a ModelCheckpoint
        [metrics] = self.trainer.test(datamodule=self.datamodule, ckpt_path=best, weights_only=True, verbose=False)
        self._report(best, metrics)
        if self._trial is not None:
            finish(self._trial, self._family.spec, self.trainer, callback, metrics)

    @rank_zero_only
    def _report(self, best: Path, metrics: Mapping[str, float]) -> None:
        if isinstance(self.trainer.logger, MLFlowLogger):
            files = tracking.files_of(self.trainer.logger.experiment, str(self.trainer.logger.run_id))
            for path in (best, best.with_name("config.yaml")):
                files.log_artifact(str(path), "checkpoint")
        minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"\nTrained {self._family.name} in {minutes} min {seconds:02d} s: {figures}")
        print(f"Checkpoint: {layout.shown(best)}")
        print(f"Next: python -m export {self._family.name}")

    def _mlflow(self) -> dict[str, Any]:
        arguments = {
            "experiment_name": self._family.name,
            "run_name": self._directory.name,
            "tracking_uri": tracking.open_store(),
            "artifact_location": tracking.artifact_location(),
            "run_id": self._trial.mlflow_run if self._trial else None,
        }
        return {"class_path": "pytorch_lightning.loggers.MLFlowLogger", "init_args": arguments}


def _checkpoint_flag(flags: list[str]) -> Path | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ckpt_path", type=Path)
    found: Path | None = parser.parse_known_args(flags)[0].ckpt_path
    return found


def _preset(directory: Path, name: str) -> Path:
    found = {path.stem: path for folder in (directory, layout.model_params() / directory.name)
             for path in sorted(folder.glob("*.yaml")) if path.stem != "config"}  # fmt: skip
    if name not in found:
        raise TrainingError(f"{directory.name} has no preset {name!r}", note=f"presets: {', '.join(found)}")
    return found[name]


def _quieten() -> None:
    """Silence what says nothing to a user of this command line."""
    for name in ("alembic", "mlflow.store.db.utils", "pytorch_lightning.loggers.mlflow", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the data is in memory
    warnings.filterwarnings("ignore", message=".*args parameter is intended to run from within Python.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # it holds our config.yaml
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # inside Lightning
