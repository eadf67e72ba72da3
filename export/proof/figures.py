"""What the reference is worth: each metric on the held-out split, and on its segments, with 95 % intervals.

Segments are the groups of the split that have a name: months, say. Where a classification has none, they are its
classes: how many of each class are found.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.judging.metric import joined
from contracts.manifest import Figure, Judge
from contracts.spec import ModelSpec
from export.proof.gates import Judged

_MOST_CLASSES = 40  # of more nobody reads a table


def of_reference(spec: ModelSpec, judged: Judged) -> Iterator[Figure]:
    """Yield each metric of the whole split, then of each segment; nothing where it is not labelled."""
    if judged.scores is None or judged.targets is None:
        return
    true = joined(judged.targets)
    for metric in spec.metrics:
        scores = judged.also.get(metric.name, judged.scores)
        judge = Judge(metric.name, metric.better, metric.share)
        for segment, rows in {"": slice(None), **_segments(spec, judged, true)}.items():
            part, targets = scores[rows], [true[rows]]
            value, interval = metric.value(part, targets), metric.interval_of(part, targets)
            low, high = interval if all(map(math.isfinite, (value, *interval))) else (None, None)
            yield Figure(judge, segment, len(part), value if math.isfinite(value) else None, low, high)  # JSON: no NaN


def _segments(spec: ModelSpec, judged: Judged, true: NDArray[Any]) -> Mapping[str, slice | NDArray[np.intp]]:
    if judged.segments or spec.task != "classification" or true.ndim != 1:
        return judged.segments
    classes = [int(number) for number in np.unique(true)]
    if len(classes) > _MOST_CLASSES:
        return {}
    return {spec.labels[n] if spec.labels else f"class {n}": np.flatnonzero(true == n) for n in classes}
