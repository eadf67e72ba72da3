"""A family's models side by side on the test split: `python -m training compare FAMILY`.

Of each model the newest checkpoint is judged: the metric with its interval, how much better than the baseline it is on
the very same samples, and both by segment. The baseline is the first of the family's estimators.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cli import plots, tables
from contracts import layout
from contracts.judging import interval, tasks
from contracts.judging.interval import Interval
from contracts.judging.metric import AUC, Metric, Predicted
from contracts.judging.paired import Scores
from contracts.samples import Batch, Split
from training import checkpoints, families
from training.checkpoints import Checkpoint
from training.errors import TrainingError
from training.estimators import fitting
from training.families import Family

NETWORK = "network"  # what the family's LightningModule is called


@dataclass(frozen=True)
class Standing:
    """A model's figure, on the whole test split or on a segment of it."""

    model: str
    segment: str  # "" for the whole
    samples: int
    value: float
    interval: Interval
    gain: float | None  # how much better than the baseline; None of the baseline itself
    gain_interval: Interval | None


def run(name: str, *, as_json: bool = False) -> list[Standing]:
    """Judge the models of a family, print them, and draw them.

    Raises:
        TrainingError: the family has one model alone, or some have no checkpoint.
        CheckpointError: a checkpoint cannot be read.
    """
    family = families.load(name)
    found = _newest(family)
    if lacking := [model for model in (*family.estimators, NETWORK) if model not in found]:
        raise TrainingError(
            f"of {name} {', '.join(lacking)} was not trained yet",
            hint=f"python -m training fit {name} --preset …, for each of them",
        )
    standings = judge(family, found)
    picture = layout.artifacts() / f"{name}_models.png"
    draw(standings, family.spec.metrics[0], picture)
    if as_json:
        print(json.dumps([asdict(standing) for standing in standings], indent=2))
        return standings
    tables.console(110).print(_table(standings, family.spec.metrics[0]))
    print(f"Drawn in {layout.shown(picture)}")
    return standings


def judge(family: Family, found: Mapping[str, Checkpoint]) -> list[Standing]:
    """Judge models by the metric of their spec, the baseline first.

    Args:
        found: {model: its checkpoint}; the first is the baseline.
    """
    data, metric = family.data(), family.spec.metrics[0]
    split: Split = data.split("test")
    assert split.targets is not None  # what a family is tested on is labelled
    true = np.concatenate([part.reshape(len(part), -1)[:, 0] for part in split.targets])
    scores = {model: _scores(checkpoint, family, split) for model, checkpoint in found.items()}
    before = next(iter(scores.values()))
    return [
        _standing(model, segment, metric, before[rows], own[rows], true[rows], is_baseline=own is before)
        for model, own in scores.items()
        for segment, rows in {"": slice(None), **split.segments}.items()
    ]


def draw(standings: list[Standing], metric: Metric, path: Path) -> None:
    """Draw the figures by segment, and what each model gains over the baseline."""
    models = list(dict.fromkeys(standing.model for standing in standings))
    colours = dict(zip(models, (plots.GREY, plots.BLUE, plots.GREEN, plots.AMBER, plots.VERMILION), strict=False))
    with plots.figure(10, 4) as figure:
        left, right = figure.subplots(1, 2)
        for place, model in enumerate(models):
            own = [s for s in standings if s.model == model]
            at = np.arange(len(own)) + 0.1 * (place - len(models) / 2)
            low, high = np.array([s.interval for s in own]).T
            value = np.array([s.value for s in own])
            style = {"color": colours.get(model, plots.INK), "label": model, "fmt": "o", "markersize": 4}
            left.errorbar(at, value, [value - low, high - value], **style)
            gains = np.array([(x, s.gain, *s.gain_interval) for x, s in zip(at, own, strict=True) if s.gain_interval])
            if len(gains):
                x, gain, low, high = gains.T
                right.errorbar(x, gain, [gain - low, high - gain], **style)
        segments = [s.segment or "all" for s in standings if s.model == models[0]]
        for axes, title in ((left, f"{metric.name} on the test split"), (right, f"gain over {models[0]}")):
            axes.set_xticks(range(len(segments)), segments)
            axes.set_title(title)
        right.axhline(0, color=plots.INK, linewidth=0.8)
        # Outside: within, it would lie over some model's interval.
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(models), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _newest(family: Family) -> dict[str, Checkpoint]:
    """Return {model: its newest checkpoint}, the baseline first, for those whose data is today's."""
    paths = (layout.checkpoints() / family.name).glob("*/best.ckpt")
    found: dict[str, Checkpoint] = {}
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        checkpoint = checkpoints.read(path, family)
        found[checkpoint.estimator or NETWORK] = checkpoint
    order = [*family.estimators, NETWORK]
    return {model: found[model] for model in order if model in found}


def predicted(checkpoint: Checkpoint, family: Family, split: Split) -> Predicted:
    """Return what the model in a checkpoint predicts for each sample of a split."""
    answer = checkpoint.module.predict if checkpoint.estimator else _network(checkpoint, family)
    return tasks.predicted(fitting.answers(answer, split), family.spec)


def _scores(checkpoint: Checkpoint, family: Family, split: Split) -> Scores:
    assert split.targets is not None
    return family.spec.metrics[0].scores(predicted(checkpoint, family, split), split.targets)


def _network(checkpoint: Checkpoint, family: Family) -> Any:
    import torch

    served, spec = checkpoint.module.served().eval(), family.spec

    def answer(batch: Batch) -> Batch:
        with torch.inference_mode():
            given = served(*(torch.from_numpy(batch[tensor.name]) for tensor in spec.inputs))
        outputs = given.values() if isinstance(given, dict) else given if isinstance(given, tuple) else (given,)
        return {tensor.name: values.numpy() for tensor, values in zip(spec.outputs, outputs, strict=True)}

    return answer


def _standing(
    model: str, segment: str, metric: Metric, before: Scores, own: Scores, true: NDArray[Any], *, is_baseline: bool
) -> Standing:
    gain, ends = (None, None) if is_baseline else _gain(metric, before, own, true)
    return Standing(model, segment, len(own), metric.value(own, [true]), metric.interval_of(own, [true]), gain, ends)


def _gain(metric: Metric, before: Scores, own: Scores, true: NDArray[Any]) -> tuple[float, Interval]:
    """Return how much better a model is on the same samples, with the interval of that."""
    if metric is AUC:
        return interval.of_auc_difference(before, own, true > 0)
    sign = 1 if metric.better == "higher" else -1
    if metric.figure is None:
        return float(sign * (own - before).mean()), interval.of_mean(sign * (own - before))
    figure = metric.figure
    both = np.arange(len(own), dtype=np.float64)  # the rows that were drawn, as scores

    def gained(_: Scores, rows: NDArray[np.intp]) -> float:
        return sign * (figure(own[rows], [true[rows]]) - figure(before[rows], [true[rows]]))

    return gained(both, np.arange(len(own))), interval.of_figure(gained, both)


def _table(standings: list[Standing], metric: Metric) -> Any:
    table = tables.table("model", "segment", "samples", metric.name, "gain over the baseline", title="Test split")
    for s in standings:
        gained = "—" if s.gain is None else interval.shown(s.gain, s.gain_interval)
        table.add_row(s.model, s.segment or "all", f"{s.samples:,}", interval.shown(s.value, s.interval), gained)
    return table
