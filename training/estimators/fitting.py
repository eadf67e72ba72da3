"""Fit, validate and test models that are not Lightning's: an estimator of a family, tracked as a run of Lightning's is.

What they share with Lightning's command line (training/lightning/cli.py) are presets, flags, checkpoints with their
lineage, and MLflow. A preset names the estimator, and has its arguments under `model`:

  estimator: lightgbm
  model: {trees: 200}
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from jsonargparse import ArgumentParser

from contracts import layout
from contracts.judging import tasks
from contracts.samples import Batch, Split
from training import checkpoints, tracking
from training.families import Estimator, Family, Reports
from training.lineage import Lineage, git_state
from training.runs.folder import held
from training.runs.labels import Labels
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
        TrainingError: there is no such estimator.
        DataError: the data cannot be had.
    """
    parser = _parser(family, name)
    given = parser.parse_args([*([f"--config={preset}"] if preset else []), *flags])
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
    parser.add_argument("--estimator", default=name, choices=list(family.estimators), help="which it is")
    parser.add_argument("--seed_everything", type=int, default=0, help="what all that is drawn begins with")
    parser.add_argument("--ckpt_path", type=str, default=None, help="a checkpoint, to validate or test")
    parser.add_class_arguments(Labels, "run")
    parser.add_class_arguments(family.estimators[name], "model")
    parser.add_class_arguments(family.data, "data")
    return parser


def _fit(parser: ArgumentParser, family: Family, name: str, given: Any, data: Any, directory: Path) -> None:
    from mlflow import MlflowClient

    started = time.monotonic()
    client = MlflowClient(tracking_uri=tracking.open_store())
    searched = trial.current()
    run_id = (searched and searched.mlflow_run) or _begin(client, family, Labels(**given.run), directory.name)
    try:
        parameters = dict(given.model)
        commit, dirty = git_state()
        came = Lineage(family.name, data.fingerprint, commit, dirty, run_id, tracking.account())
        for key, tag in came.tags().items():
            client.set_tag(run_id, key, tag)
        for key, value in {"estimator": name, **parameters}.items():
            client.log_param(run_id, key, value)
        estimator = family.estimators[name](**parameters)
        if searched and isinstance(estimator, Reports):
            estimator.report = searched.report
        estimator.fit(data.split("train"), data.split("val"), given.seed_everything)
        figures = _figures(estimator, family, data, "val") | _figures(estimator, family, data, "test")
        for key, value in figures.items():
            client.log_metric(run_id, key, value)
        checkpoints.write(directory / "best.ckpt", name, parameters, estimator.state(), came, data.hparams)
        parser.save(given, str(directory / "config.yaml"), skip_none=False, overwrite=True)
        for path in (directory / "best.ckpt", directory / "config.yaml"):
            tracking.upload(client, run_id, path, "checkpoint")
        if searched:
            _finish(searched, estimator, family, data, figures)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\nTrained {family.name}, {name}, in {minutes} min {seconds:02d} s: {_told(figures)}")
    print(f"Checkpoint: {layout.shown(directory / 'best.ckpt')}")
    print(f"Next: python -m export {family.name}")


def _finish(searched: trial.Trial, estimator: Estimator, family: Family, data: Any, figures: dict[str, float]) -> None:
    """Tell the search that this fit is a trial of what came of it."""
    from training.sweep.fits import latency

    cost = latency.of_estimator(estimator, data.split("val"), family.spec) if searched.wants_latency else None
    value = figures[f"val_{family.spec.metrics[0].name}"]
    searched.finish(trial.Result(value, figures, data.fingerprint, cost))


def _begin(client: Any, family: Family, labels: Labels, name: str) -> str:
    known = client.get_experiment_by_name(family.name)
    if known is not None:
        experiment = known.experiment_id
    else:
        experiment = client.create_experiment(family.name, artifact_location=tracking.artifact_location())
    return str(client.create_run(experiment, run_name=labels.name or name, tags=labels.as_tags()).info.run_id)


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
