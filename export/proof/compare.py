"""What is measured of a variant: how far its outputs are from its reference's, what it answers, and its scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.judging import tasks
from contracts.judging.paired import Scores
from contracts.judging.tasks import Answers
from contracts.manifest import Difference
from contracts.samples import Batch
from contracts.spec import ModelSpec


@dataclass(frozen=True)
class Comparison:
    """What was measured of a variant on one set of inputs."""

    answers: Answers | None  # None for the task "values"
    scores: Scores | None  # the metric's, one a sample; None where nothing is labelled
    differences: dict[str, Difference]  # by output
    not_finite: int  # elements that are inf or nan
    samples: int
    reshaped: int  # outputs of another shape than the reference's: other rows where they depend on the data
    error: float  # RMS difference of the answer output as a share of its RMS
    also: Mapping[str, Scores] = field(default_factory=dict)  # {further metric: its scores}, where all is labelled


def compare(
    outputs: Sequence[Batch], reference: Sequence[Batch], spec: ModelSpec, targets: Sequence[NDArray[Any]] | None = None
) -> Comparison:
    """Measure `outputs` against the reference's on the same inputs.

    Args:
        targets: What is true of the samples, if it is known.
    """
    differences, not_finite, reshaped = {}, 0, 0
    for tensor in spec.outputs:
        pairs = [(out[tensor.name], ref[tensor.name]) for out, ref in zip(outputs, reference, strict=True)]
        comparable = [(found, expected) for found, expected in pairs if found.shape == expected.shape]
        reshaped += len(pairs) - len(comparable)
        not_finite += sum(int((~_finite(found)).sum()) for found, _ in pairs)
        differences[tensor.name] = _difference(comparable)
    predicted = tasks.predicted(outputs, spec)
    scores = spec.metric.scores(predicted, targets) if spec.metric is not None and targets is not None else None
    also = {metric.name: metric.scores(predicted, targets) for metric in spec.also} if targets is not None else {}
    error = differences[spec.answer_output].relative
    samples = sum(len(values) for values in predicted.values)
    return Comparison(predicted.answers, scores, differences, not_finite, samples, reshaped, error, also)


def _difference(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Difference:
    """Summarise how far arrays are from others of the same shapes; what is not finite is counted elsewhere."""
    distances, squares, scale, count = [], 0.0, 0.0, 0
    for found, expected in pairs:
        if expected.dtype.kind in "OSU":  # strings differ or do not
            distances.append(np.not_equal(found, expected).astype(np.float32).ravel())
            continue
        finite = _finite(found) & _finite(expected)
        distance = np.abs(np.subtract(found, expected, dtype=np.float64))[finite]
        squares += float(np.square(distance).sum())
        scale += float(np.square(expected, dtype=np.float64)[finite].sum())
        count += distance.size
        distances.append(distance.astype(np.float32).ravel())
    together = np.concatenate(distances) if distances else np.empty(0, np.float32)
    if not together.size:
        return Difference(0.0, 0.0, 0.0, 0.0)
    return Difference(
        largest=float(together.max()),
        mean=float(together.mean(dtype=np.float64)),
        p99=float(np.quantile(together, 0.99)),
        relative=math.sqrt(squares / scale) if scale else 0.0,
    )


def _finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
