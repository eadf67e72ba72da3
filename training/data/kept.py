"""What was trained, kept where DVC finds it: the checkpoint, figures that `dvc metrics diff` compares, and curves."""

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cli.terminal import Rows
from contracts import layout
from contracts.judging.metric import Metric, Predicted
from contracts.samples import Split
from training import checkpoints, families
from training.data.folders import replaced
from training.errors import DataError
from training.estimators import comparing

CHECKPOINT, FIGURES = "best.ckpt", "figures.json"
_POINTS = 200  # of a curve
_BINS = 20  # of the calibration, as many samples in each

Row = Sequence[object]


def write(name: str, into: Path) -> str:
    """Keep a family's newest checkpoint, judged on the test split of the data it was trained on.

    Returns:
        Its figures in words.

    Raises:
        CheckpointError: there is none.
        DataError: the data has changed since.
    """
    family = families.load(name)
    checkpoint = checkpoints.read(checkpoints.newest(name), family)
    data = family.data(**checkpoint.data)
    if data.fingerprint != checkpoint.lineage.data_fingerprint:
        raise DataError(
            f"{layout.shown(checkpoint.path)} was trained on other data",
            note=f"fingerprint {checkpoint.lineage.data_fingerprint[:12]}…, now {data.fingerprint[:12]}…",
            hint=f"train again: python -m training fit {name}, with the flags of before",
        )
    split = data.split("test")
    predicted = comparing.predicted(checkpoint, family, split)
    figures = _figures(family.spec.metrics, predicted, split)
    with replaced(into) as folder:
        shutil.copyfile(checkpoint.path, folder / CHECKPOINT)
        (folder / FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        for curve, (heading, rows) in _curves(family.spec.metrics[0], predicted, split).items():
            with (folder / f"{curve}.csv").open("w", newline="", encoding="utf-8") as stream:
                written = Rows(stream)
                for row in (heading, *rows):
                    written.write(row)
    return ", ".join(f"{metric.name} {figures['test'][metric.name]:.4f}" for metric in family.spec.metrics)


def _figures(metrics: Iterable[Metric], predicted: Predicted, split: Split) -> dict[str, Any]:
    """Return {"test": {metric: its figure, metric_low: …, "samples": …}, "October": …}."""
    found: dict[str, Any] = {}
    for metric in metrics:
        scores, true = _judged(metric, predicted, split)
        for segment, rows in {"test": slice(None), **split.segments}.items():
            own = found.setdefault(segment, {"samples": len(true[rows])})
            own |= _finite({metric.name: metric.value(scores[rows], [true[rows]])})
            if segment == "test":
                low, high = metric.interval_of(scores, [true])
                own |= _finite({f"{metric.name}_low": low, f"{metric.name}_high": high})
    return found


def _finite(figures: Mapping[str, float]) -> Mapping[str, float]:
    """Leave out what is none, as the AUC where all is of one class: DVC's readers of JSON know no NaN."""
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}


def _curves(metric: Metric, predicted: Predicted, split: Split) -> Mapping[str, tuple[Row, list[Row]]]:
    """Return {curve: (its columns, its points)}: the metric by segment, and of a probability ROC and calibration."""
    scores, true = _judged(metric, predicted, split)
    segments: list[Row] = [(s, metric.value(scores[r], [true[r]])) for s, r in split.segments.items()]
    found: dict[str, tuple[Row, list[Row]]] = {"segments": (("segment", metric.name), segments)}
    if metric.name == "auc":
        probability = np.concatenate([values.reshape(len(values)) for values in predicted.values])
        found["roc"] = (("false_positive_rate", "true_positive_rate"), _roc(probability, true > 0))
        found["calibration"] = (("predicted", "observed"), _calibration(probability, true > 0))
    return found


def _judged(metric: Metric, predicted: Predicted, split: Split) -> tuple[NDArray[Any], NDArray[Any]]:
    targets = split.targets
    assert targets is not None  # what a family is tested on is labelled
    return metric.scores(predicted, targets), np.concatenate([part.reshape(len(part), -1)[:, 0] for part in targets])


def _roc(probability: NDArray[Any], positive: NDArray[np.bool_]) -> list[Row]:
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(positive[order])
    ranks = np.arange(1, len(order) + 1)
    at = np.linspace(0, len(order) - 1, min(_POINTS, len(order))).astype(int)
    false, true = (ranks - hits) / max(1, (~positive).sum()), hits / max(1, positive.sum())
    return [(0.0, 0.0), *((round(float(false[i]), 6), round(float(true[i]), 6)) for i in at)]


def _calibration(probability: NDArray[Any], positive: NDArray[np.bool_]) -> list[Row]:
    bins = np.array_split(np.argsort(probability, kind="stable"), _BINS)
    means = ((probability[rows].mean(), positive[rows].mean()) for rows in bins if len(rows))
    return [(round(float(predicted), 6), round(float(observed), 6)) for predicted, observed in means]
