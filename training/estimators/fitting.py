"""Fit, validate and test models that are not Lightning's: an estimator of a family, tracked as a run of Lightning's is.

What they share with Lightning's command line (training/lightning/cli.py) are presets, flags, checkpoints with their
lineage, and MLflow. A preset names the estimator, and has its arguments under `model`:

  estimator: lightgbm
  model: {trees: 200}
"""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from jsonargparse import ArgumentParser

from contracts import layout
from contracts.judging import tasks
from contracts.samples import Batch, Split
from training import checkpoints, tracking
from training.errors import TrainingError
from training.families import Estimator, Family, Reports
from training.lineage import Lineage, git_state
from training.runs import beginning
from training.runs.folder import held
from training.runs.labels import Labels
from training.runs.outbox import Outbox
from training.sweep.fits import trial

_SUBCOMMANDS: Mapping[str, Literal["val", "test"]] = {"validate": "val", "test": "test"}
_CHUNK = 8192  # samples that are answered at a time


def named_in(preset: Path) -> str | None:
    """Return which estimator a preset is of; None: of the family's LightningModule."""
    held = yaml.safe_load(preset.read_text(encoding="utf-8"))
    return held.get("estimator") if isinstance(held, dict) else None


def run(subcommand: str, family: Family, name: str, preset: Path | None, flags: list[str]) -> None:
    """Run `subcommand` (fit, validate or test) for an estimator.

    Raises:
        TrainingError: there is no such estimator; it is to go on from a checkpoint; MLflow does not answer.
        DataError: the data cannot be had.
    """
    parser = _parser(family, name)
    given = parser.parse_args([*([f"--config={preset}"] if preset else []), *flags])
    if subcommand == "fit" and given.ckpt_path:
        raise TrainingError(
            f"a fit of {name} cannot be gone on with: it is fitted at once, from its beginning",
            hint=f"leave --ckpt_path out; --preset NAME says which, as {layout.shown(layout.model_params())} has them",
        )
    data = family.data(**given.data)
    if subcommand == "fit":
        searched = trial.current()
        with held(family.name, searched.directory if searched else None) as directory:
            _fit(parser, family, name, given, data, directory)
        return
    figures = _figures(checkpoints.read(Path(given.ckpt_path), family).module, family, data, _SUBCOMMANDS[subcommand])
    print(_told(figures))


def _parser(family: Family, name: str) -> ArgumentParser:
    parser = ArgumentParser(prog=f"python -m training fit {family.name} --preset {name}", description=__doc__)
    parser.add_argument("--config", action="config", help="a file with any of these")
    parser.add_argument("--estimator", default=name, choices=[name], help="which it is")
    parser.add_argument("--seed_everything", type=int, default=0, help="what all that is drawn begins with")
    parser.add_argument("--ckpt_path", type=str, default=None, help="a checkpoint, to validate or test")
    parser.add_class_arguments(Labels, "run")
    parser.add_class_arguments(family.estimators[name], "model")
    parser.add_class_arguments(family.data, "data")
    return parser


def _fit(parser: ArgumentParser, family: Family, name: str, given: Any, data: Any, directory: Path) -> None:
    started = time.monotonic()
    outbox = _begin(family, Labels(**given.run), directory)
    try:
        parameters = dict(given.model)
        came = Lineage(family.name, data.fingerprint, *git_state(), outbox.run_id, tracking.account())
        outbox.tags(came.tags())
        outbox.parameters({"estimator": name, **parameters})
        estimator, figures = _trained(family, name, given, data)
        checkpoints.write(directory / "best.ckpt", name, parameters, estimator.state(), came, data.hparams)
        parser.save(given, str(directory / "config.yaml"), skip_none=False, overwrite=True)
        outbox.metrics(figures, 0)
        for path in (directory / "best.ckpt", directory / "config.yaml"):
            outbox.file(path, "checkpoint")
        if searched := trial.current():
            _finish(searched, estimator, family, data, figures)
    except BaseException as error:
        outbox.status("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
        raise
    outbox.status("FINISHED")
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\nTrained {family.name}, {name}, in {minutes} min {seconds:02d} s: {_told(figures)}")
    print(f"Checkpoint: {layout.shown(directory / 'best.ckpt')}")
    if not outbox.send():
        print(f"MLflow was not told all. When it is back: python -m training send {layout.shown(directory)}")
    print(f"Next: python -m export {family.name}")


def _trained(family: Family, name: str, given: Any, data: Any) -> tuple[Estimator, dict[str, float]]:
    """Fit an estimator; return it with its figures."""
    estimator = family.estimators[name](**given.model)
    if (searched := trial.current()) and isinstance(estimator, Reports):
        estimator.report = searched.report
    estimator.fit(data.split("train"), data.split("val"), given.seed_everything)
    return estimator, _figures(estimator, family, data, "val") | _figures(estimator, family, data, "test")


def _finish(searched: trial.Trial, estimator: Estimator, family: Family, data: Any, figures: dict[str, float]) -> None:
    """Tell the search that this fit is a trial of what came of it."""
    from training.sweep.fits import latency

    cost = latency.of_estimator(estimator, data.split("val"), family.spec) if searched.wants_latency else None
    value = figures[f"val_{family.spec.metrics[0].name}"]
    searched.finish(trial.Result(value, figures, data.fingerprint, cost))


def _begin(family: Family, labels: Labels, folder: Path) -> Outbox:
    """Begin a run of MLflow's, or go on with the one that a search made; return what tells it.

    Raises:
        TrainingError: MLflow does not answer; nothing is trained yet.
    """
    from mlflow import MlflowClient

    beginning.be_impatient()
    store, searched = tracking.open_store(), trial.current()
    with beginning.answers(store):
        client = MlflowClient(tracking_uri=store)
        run_id = searched.mlflow_run if searched else None
        if not run_id:
            experiment, called = tracking.experiment(client, family.name), labels.name or folder.name
            run_id = client.create_run(experiment, run_name=called, tags=labels.as_tags()).info.run_id
    return Outbox(client, run_id, folder, partial(print, file=sys.stderr))


def _figures(estimator: Estimator, family: Family, data: Any, part: Literal["val", "test"]) -> dict[str, float]:
    """Return each metric of the spec on a split, {"test_auc": …}."""
    split: Split = data.split(part)
    assert split.targets is not None  # what a family trains on is labelled
    predicted, targets = tasks.predicted(answers(estimator.predict, split), family.spec), split.targets
    return {
        f"{part}_{metric.name}": metric.value(metric.scores(predicted, targets), targets)
        for metric in family.spec.metrics
    }


def answers(answer: Callable[[Batch], Batch], split: Split) -> list[Batch]:
    """Return what a model answers to each group of a split."""
    found: list[Batch] = []
    for group in split.groups:
        parts = [answer(batch) for batch in Split((group,)).batches(_CHUNK)]
        found.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return found


def _told(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
