"""Lightning's command line, with this project's tracking, lineage and checkpoints built in."""

import argparse
import logging
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only
from torch.distributed import DistNetworkError

from contracts import layout
from training import checkpoints, families
from training.checkpoints import Checkpoint
from training.errors import TrainingError
from training.estimators import fitting
from training.lightning import asked, profile
from training.lightning.batch_norm import SharedBatchNorm
from training.lightning.checkpoint_callbacks import KeepLast, SaveConfig, SeedEpochs, StopEarly
from training.lightning.lineage_callback import RecordLineage
from training.lightning.metric_callback import LogMetric, monitored
from training.lightning.run_logger import RunLogger
from training.lightning.trial_callback import ReportToSearch, finish
from training.runs.folder import held
from training.runs.labels import Labels
from training.states import not_finite
from training.sweep.fits import trial

_NAME = "mlflow.runName"


def run(subcommand: str, family: str, preset: str | None, flags: list[str]) -> None:
    """Run `subcommand` (fit, validate or test) for `family` with Lightning's own flags.

    Raises:
        TrainingError: there is no such preset, or what the flags ask for cannot be done.
        CheckpointError: `--ckpt_path` names none of this family.
        DataError: the data cannot be had.
    """
    _quieten()
    if subcommand != "fit":  # it keeps nothing: its own folder is none that a checkpoint could be missed in
        warnings.filterwarnings("ignore", message=".*dirpath has changed.*")
    chosen = families.load(family)
    configs = [chosen.directory / "config.yaml"]
    if preset:
        configs.append(_preset(chosen.directory, preset))
    path, estimator = _checkpoint_flag(flags), preset and fitting.named_in(configs[-1])
    checkpoint = checkpoints.read(path, chosen) if path is not None else None
    if checkpoint is not None:
        estimator = checkpoint.estimator
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
    resumed = checkpoint if subcommand == "fit" else None
    try:
        # What is resumed is the same run: its best checkpoint stays the one to beat. A search has folders of its own.
        searched = trial.current()
        there = resumed.path.resolve().parent if resumed else searched.directory if searched else None
        with held(family, there) as folder:
            _fit(chosen, args, folder, resumed)
    except MisconfigurationException as error:  # what Lightning calls a mistake in the flags
        raise TrainingError(" ".join(str(error).split())) from error
    except DistNetworkError as error:
        raise TrainingError(
            "the processes of this fit cannot reach each other",
            note=str(error).strip().splitlines()[0],
            hint="MASTER_ADDR and MASTER_PORT, where they are set, name this machine and a port that is free",
        ) from error


def _fit(family: families.Family, args: list[str], folder: Path, resumed: Checkpoint | None) -> None:
    keeper = KeepLast(folder)
    try:
        _CLI(family, args, keeper, folder, resumed)
    except SystemExit:
        if keeper.interrupted:
            raise KeyboardInterrupt from None
        raise


class _CLI(LightningCLI):
    """Lightning's command line for one family, with this project's defaults.

    Args:
        args: Lightning's arguments, without the family.
        keeper: What keeps the last state.
        folder: The run's.
        resumed: The checkpoint that a fit goes on from, if it does.
    """

    def __init__(
        self, family: families.Family, args: list[str], keeper: KeepLast, folder: Path, resumed: Checkpoint | None
    ) -> None:
        self._family, self._folder, self._resumed, self._args = family, folder, resumed, args
        self._started, self._trial = time.monotonic(), trial.current()
        super().__init__(
            family.module,
            family.data,
            args=args,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={
                "logger": self._mlflow(),
                "callbacks": [
                    *(asked.CheckSteps(), asked.WeighLastStep(), RecordLineage(family.name), LogMetric(family.spec)),
                    *(SeedEpochs(), LearningRateMonitor("epoch"), keeper),
                    *([ReportToSearch(self._trial, family.spec)] if self._trial else []),
                ],
                "enable_model_summary": False,
                "log_every_n_steps": 100,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a run is called, early stopping and the best checkpoint, both by the family's validation metric."""
        figure, mode = monitored(self._family.spec)
        parser.add_class_arguments(Labels, "run")
        parser.add_lightning_class_args(StopEarly, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": figure, "early_stopping.mode": mode})
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.dirpath": str(self._folder),
                "checkpoint.filename": "best",
                "checkpoint.monitor": figure,
                "checkpoint.mode": mode,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse them, and note what the flags have of the model: Lightning takes a checkpoint's in its place."""
        super().parse_arguments(parser, args)
        given = {flag.partition("=")[0].removeprefix("--model.") for flag in self._args if flag.startswith("--model.")}
        model = self.config[self.config.subcommand].model
        self._given = {name: model[name] for name in given if name in model}

    def before_instantiate_classes(self) -> None:
        """Refuse what Lightning would quietly do otherwise, and pass on what the run is called."""
        config = self.config[self.subcommand]
        asked.check(config.trainer)
        asked.check_model(self._given, config.model)
        logger = config.trainer.logger
        if getattr(logger, "class_path", "").endswith(RunLogger.__name__):
            labels = Labels(**config.run)
            logger.init_args.run_name = labels.name or logger.init_args.run_name
            logger.init_args.tags = {**(logger.init_args.tags or {}), **labels.as_tags()}
            if labels.name:  # a run that is gone on with has one already
                logger.init_args.tags[_NAME] = labels.name
        if logger is False:  # the learning rate has nowhere to go
            drop = [c for c in self.trainer_defaults["callbacks"] if not isinstance(c, LearningRateMonitor)]
            self.trainer_defaults["callbacks"] = drop

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer.

        Raises:
            TrainingError: its flags contradict each other, or this machine.
        """
        asked_for = self.config_init[self.subcommand].trainer
        if asked_for.sync_batchnorm and asked.on_cpu(asked_for):
            others = asked_for.plugins if isinstance(asked_for.plugins, list) else [asked_for.plugins]
            kwargs |= {"sync_batchnorm": False, "plugins": [SharedBatchNorm(), *filter(None, others)]}
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ModuleNotFoundError, ValueError, RuntimeError) as error:
            if type(error) is RuntimeError and "SLURM" not in str(error):  # of the variables that a job of it has
                raise
            raise TrainingError(" ".join(str(error).split())) from error

    def after_instantiate_classes(self) -> None:
        """Have the profiler, if there is one, write its report into the run's folder."""
        profile.write_into(self.trainer.profiler, self._folder)  # type: ignore[attr-defined]  # Lightning sets it

    def after_fit(self) -> None:
        """Test the best checkpoint, log it to MLflow, and say what to do next."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it
            self._say_tried()
            return
        # Among several processes only the first one's directory counts; the callback knows it in each.
        [callback] = [c for c in self.trainer.checkpoint_callbacks if getattr(c, "monitor", None)]
        validated = callback.best_model_path  # type: ignore[attr-defined]  # a ModelCheckpoint
        best = Path(validated or self._last())
        # To test restores what callbacks had when the best was saved.
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it
        ended = "; ".join(c.told for c in callbacks if isinstance(c, StopEarly) and c.told)
        [metrics] = self.trainer.test(datamodule=self.datamodule, ckpt_path=best, weights_only=True, verbose=False)
        lost = not_finite(self.trainer.lightning_module.state_dict())
        self._report(best, metrics, bool(validated), ended, learned=not lost)
        if self._trial is not None:
            finish(self._trial, self._family.spec, self.trainer, callback, metrics)
        if lost:
            raise TrainingError(
                f"{self._family.name} did not learn: its weights are no finite numbers any more",
                note=f"among them {lost[0]}",
                hint="a lower learning rate, or --trainer.gradient_clip_val 1",
            )

    def _last(self) -> str:
        """Take the last state for the best, where nothing was validated."""
        path = str(self.trainer.strategy.broadcast(str(self._folder / "best.ckpt")))
        self.trainer.save_checkpoint(path)
        return path

    @rank_zero_only
    def _say_tried(self) -> None:
        print(f"\nTried {self._family.name}: a step of each kind; nothing was kept")
        print(f"Next: python -m training fit {self._family.name}")

    @rank_zero_only
    def _report(self, best: Path, metrics: Mapping[str, float], validated: bool, ended: str, *, learned: bool) -> None:
        reports = profile.reports(self._folder)
        if isinstance(self.trainer.logger, RunLogger):
            outbox = self.trainer.logger.outbox
            for path in (best, best.with_name("config.yaml")):
                outbox.file(path, "checkpoint")
            for path in reports:
                outbox.file(path, "profile")
            if not learned:
                outbox.status("FAILED")
            unsent = not outbox.send()
        minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"\nTrained {self._family.name} in {minutes} min {seconds:02d} s: {figures}")
        if ended:
            print(f"Ended early: {ended}")
        print(f"Checkpoint: {layout.shown(best)}{'' if validated else ', the last state: nothing was validated'}")
        if reports:
            print(f"Profile: {layout.shown(reports[0].parent)}")
        if isinstance(self.trainer.logger, RunLogger) and unsent:
            print(f"MLflow was not told all. When it is back: python -m training send {layout.shown(self._folder)}")
        if learned:
            print(f"Next: python -m export {self._family.name}")

    def _mlflow(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "experiment_name": self._family.name,
            "folder": str(self._folder),
            "run_name": self._folder.name,
        }
        if self._resumed is not None:
            arguments["run_id"] = self._resumed.lineage.mlflow_run_id
        elif self._trial is not None:
            arguments["run_id"] = self._trial.mlflow_run
        return {"class_path": f"{RunLogger.__module__}.{RunLogger.__name__}", "init_args": arguments}


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
    if os.environ.get("LOCAL_RANK", "0") != "0":  # one of several processes speaks
        logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    for name in (
        "alembic",
        "lightning_fabric.utilities.distributed",
        "mlflow.store.db.utils",
        "pytorch_lightning.loggers.mlflow",
        "pytorch_lightning",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the data is in memory
    warnings.filterwarnings("ignore", message=".*args parameter is intended to run from within Python.*")
    warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")  # said in the end
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # figures of epochs are logged
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # it holds our config.yaml
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # inside Lightning
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated.*")  # and this
