"""Metrics: one figure for how good a network's answers are, and how much of it a variant may have lost.

A metric gives every sample of a split a score, or every one that is judged. Its figure is their mean, or another
function of them all; its loss, between a reference and a variant on the same samples, has a paired test. Training
monitors a family's metric, the export holds every precision to it, and the manifest records it.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.errors import SpecError
from contracts.judging import interval, paired
from contracts.judging.interval import Interval
from contracts.judging.paired import Scores
from contracts.samples import Batch

Targets = Sequence[NDArray[Any]]  # what is true: an array [n, …] a group of samples, of any dtype
_RECALL = re.compile(r"recall_at_([1-9]\d*)")
_CHUNK = 1024  # queries whose similarities to all others are held at a time


@dataclass(frozen=True)
class Predicted:
    """What a network gave for a split, in the order of its samples."""

    outputs: Sequence[Batch]  # {output: [n, …]} a group
    values: Sequence[NDArray[Any]]  # of the output that the answer is read from
    answers: NDArray[Any] | None  # as the task reads them, [N, …]; None for the task "values"


@dataclass(frozen=True)
class Loss:
    """How far a variant's figure is from its reference's, for the worse; negative: it is better."""

    measured: float
    bound: float  # the upper end of its one-sided 95 % confidence interval
    detail: str


@dataclass(frozen=True)
class Metric:
    """A figure of a split's outputs and targets.

    Attributes:
        name: As it is written in specs, logged ("val_accuracy") and tagged: letters, digits and _.
        scores: One score a sample that is judged, [N], from what was predicted and what is true.
        figure: Of all scores and their targets; their mean unless given.
        bound: The upper 95 % bound of the loss, from the reference's scores, the variant's and the targets. Unless
            given: for a mean Tango's or Student's paired interval, for another figure the paired bootstrap.
        interval: The 95 % interval of the figure, from scores and targets. Unless given: for a share Wilson's, for
            another mean Student's, for another figure the bootstrap's.
        counted: How many samples of a split a loss of nothing is shown on; None: where that has no width.
        better: Which direction is better.
        share: Whether it is a share of one, shown in percent, and its loss in percentage points.
    """

    name: str
    scores: Callable[[Predicted, Targets], Scores]
    figure: Callable[[Scores, Targets], float] | None = None
    bound: Callable[[Scores, Scores, Targets], float] | None = None
    better: Literal["higher", "lower"] = "higher"
    share: bool = True
    counted: Callable[[Targets], int] | None = None
    interval: Callable[[Scores, Targets], Interval] | None = None
    resamples: int = 2000  # of the bootstrap of its loss

    def __repr__(self) -> str:  # cached steps are told apart by it: no addresses of functions
        return f"Metric({self.name})"

    def value(self, scores: Scores, targets: Targets) -> float:
        """Return the figure of these scores."""
        return float(self.figure(scores, targets)) if self.figure else float(scores.mean())

    def interval_of(self, scores: Scores, targets: Targets) -> Interval:
        """Return the two ends of the figure's 95 % confidence interval."""
        if self.interval is not None:
            return self.interval(scores, targets)
        if self.figure is not None:
            figure, true = self.figure, np.concatenate(list(targets))
            return interval.of_figure(lambda drawn, rows: figure(drawn, [true[rows]]), scores)
        if _all_or_nothing(scores):
            return interval.of_share(float(scores.sum()), len(scores))
        return interval.of_mean(scores)

    def loss(self, before: Scores, after: Scores, targets: Targets) -> Loss:
        """Compare a variant's scores with its reference's on the same samples."""
        sign = 1 if self.better == "higher" else -1
        was, now = self.value(before, targets), self.value(after, targets)
        measured = sign * (was - now)
        detail = f"{was:.5g} → {now:.5g}"
        if self.bound is not None:
            return Loss(measured, self.bound(before, after, targets), detail)
        if self.figure is not None:
            return Loss(measured, self._bootstrap_bound(sign, before, after, targets), detail)
        if _all_or_nothing(before) and _all_or_nothing(after):
            lost, gained = int((before > after).sum()), int((before < after).sum())
            if self.better == "lower":
                lost, gained = gained, lost
            bound, count = paired.tango_bound(lost, gained, len(before)), len(before)
            return Loss(measured, bound, f"{lost} lost, {gained} gained of {count:,}")
        return Loss(measured, paired.mean_bound(sign * before, sign * after), detail)

    def _bootstrap_bound(self, sign: int, before: Scores, after: Scores, targets: Targets) -> float:
        true = np.concatenate(list(targets))
        assert self.figure is not None
        figure = self.figure
        return paired.bootstrap_bound(
            lambda scores, drawn: sign * figure(scores, [true[drawn]]), before, after, resamples=self.resamples
        )


def named(name: str) -> Metric:
    """Return a ready-made metric by its name.

    Raises:
        SpecError: there is none of that name.
    """
    if match := _RECALL.fullmatch(name):
        return recall_at(int(match[1]))
    if name not in READY_MADE:
        raise SpecError(f"there is no metric {name!r}", note=f"metrics: {', '.join(READY_MADE)}, recall_at_1, …")
    return READY_MADE[name]


def recall_at(k: int) -> Metric:
    """Make the metric: whether one of the k samples whose embeddings are nearest has the same target.

    Targets are one a sample, and each sample looks through all others. Or they are two, [n, 2]: what it belongs with,
    and whether it is a query (1) or a document (0). Then queries alone have a score, and look through documents alone.
    """
    return Metric(f"recall_at_{k}", partial(_hits, k), counted=lambda targets: int(_roles(targets)[1].sum()))


def _correct(predicted: Predicted, targets: Targets) -> Scores:
    assert predicted.answers is not None  # of a task that has answers
    return same(predicted.answers, joined(targets)).astype(np.float64)


def same(answers: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell of each answer, [N], whether it is the other; a sequence, [N, L] padded with -1, has to be so as a whole."""
    if answers.ndim == 1:
        alike: NDArray[np.bool_] = np.equal(answers, others.reshape(len(answers), -1)[:, 0])
        return alike
    equal: NDArray[np.bool_] = np.equal(*_padded(answers, others)).all(axis=1)
    return equal


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join arrays [n, …]; sequences of different lengths are padded with -1."""
    width = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
    return np.concatenate([_pad(part, width) if part.ndim == 2 else part for part in parts])


def _padded(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    width = max(one.shape[1], other.shape[1])
    return _pad(one, width), _pad(other, width)


def _pad(sequences: NDArray[Any], width: int) -> NDArray[Any]:
    return np.pad(sequences, ((0, 0), (0, width - sequences.shape[1])), constant_values=-1)


def _all(targets: Targets) -> int:
    return sum(map(len, targets))


def _all_or_nothing(scores: Scores) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _positive_score(predicted: Predicted, targets: Targets) -> Scores:
    values = [part.reshape(len(part), -1).astype(np.float64) for part in predicted.values]
    widths = {part.shape[1] for part in values}
    if widths == {2}:  # of two classes
        return np.concatenate([part[:, 1] - part[:, 0] for part in values])
    if widths != {1}:
        raise SpecError("the metric needs an answer of one value, or of two classes")
    return np.concatenate([part[:, 0] for part in values])


def _probability(predicted: Predicted, targets: Targets) -> Scores:
    values = [part.reshape(len(part), -1).astype(np.float64) for part in predicted.values]
    if {part.shape[1] for part in values} - {1, 2}:
        raise SpecError("the metric needs an answer of one probability, or of those of two classes")
    return np.concatenate([part[:, -1] for part in values])  # of two classes, the second's


def _brier(predicted: Predicted, targets: Targets) -> Scores:
    errors: Scores = np.square(_probability(predicted, targets) - _positive(targets))
    return errors


def _calibration_interval(scores: Scores, targets: Targets) -> Interval:
    true = _positive(targets)
    low, high = interval.of_figure(lambda drawn, rows: paired.calibration_error(drawn, true[rows]), scores)
    return max(0.0, low), high


def _positive(targets: Targets) -> NDArray[np.bool_]:
    positive: NDArray[np.bool_] = np.concatenate([part.reshape(len(part), -1)[:, 0] for part in targets]) > 0
    return positive


def _per_sample(
    error: Callable[[NDArray[np.float64]], NDArray[np.float64]], predicted: Predicted, targets: Targets
) -> Scores:
    differences = [
        (found.astype(np.float64).reshape(len(found), -1) - true.reshape(len(true), -1))
        for found, true in zip(predicted.values, targets, strict=True)
    ]
    return np.concatenate([error(part).mean(axis=1) for part in differences])


def _cosine(predicted: Predicted, targets: Targets) -> Scores:
    pairs = zip(predicted.values, targets, strict=True)
    return np.concatenate([cosine_similarity(found, true) for found, true in pairs])


def cosine_similarity(one: NDArray[Any], other: NDArray[Any]) -> Scores:
    """Return the cosine of the angle between the vectors of each sample, [N]; 1 where both are zero."""
    a, b = (part.reshape(len(part), -1).astype(np.float64) for part in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    equal = (a == b).all(axis=1).astype(np.float64)
    cosines: Scores = np.where(lengths > 0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1), equal)
    return cosines


def _hits(k: int, predicted: Predicted, targets: Targets) -> Scores:
    vectors = np.concatenate([part.reshape(len(part), -1).astype(np.float64) for part in predicted.values])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    labels, asks, found = _roles(targets)
    queries, documents = np.flatnonzero(asks), np.flatnonzero(found)
    hits = np.zeros(len(queries))
    for start in range(0, len(queries), _CHUNK):
        rows = queries[start : start + _CHUNK]
        likeness = vectors[rows] @ vectors[documents].T
        likeness[rows[:, None] == documents] = -math.inf  # not itself
        nearest = documents[np.argsort(-likeness, axis=1, kind="stable")[:, :k]]
        hits[start : start + _CHUNK] = (labels[nearest] == labels[rows][:, None]).any(axis=1)
    return hits


def _roles(targets: Targets) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what each sample belongs with, whether it looks for others, and whether it is looked through."""
    flat = np.concatenate([part.reshape(len(part), -1) for part in targets])
    if flat.shape[1] == 1:
        both = np.ones(len(flat), bool)
        return flat[:, 0], both, both
    asks: NDArray[np.bool_] = flat[:, 1].astype(bool)
    return flat[:, 0], asks, ~asks


ACCURACY = Metric("accuracy", _correct, counted=_all)
AUC = Metric(
    "auc",
    _positive_score,
    figure=lambda scores, targets: paired.auc(scores, _positive(targets)),
    bound=lambda before, after, targets: paired.auc_bound(before, after, _positive(targets)),
    counted=lambda targets: paired.rarer(_positive(targets)),
    interval=lambda scores, targets: interval.of_auc(scores, _positive(targets)),
)
# Of probabilities: their squared error (Brier, Mon. Weather Rev. 78, 1950), and how far they are from shares.
BRIER = Metric("brier", _brier, better="lower", share=False)
CALIBRATION_ERROR = Metric(
    "calibration_error",
    _probability,
    figure=lambda scores, targets: paired.calibration_error(scores, _positive(targets)),
    interval=_calibration_interval,
    better="lower",
    share=False,
    resamples=200,  # a loss is judged by segment as well, and 82,000 samples take 5 ms each time
)
SQUARED_ERROR = Metric("squared_error", partial(_per_sample, np.square), better="lower", share=False)
ABSOLUTE_ERROR = Metric("absolute_error", partial(_per_sample, np.abs), better="lower", share=False)
COSINE = Metric("cosine", _cosine, share=False)

_ALL = (ACCURACY, AUC, BRIER, CALIBRATION_ERROR, SQUARED_ERROR, ABSOLUTE_ERROR, COSINE)
READY_MADE = {metric.name: metric for metric in _ALL}
