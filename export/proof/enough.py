"""What so many samples can show: too few stop an export before any work, and what they do not tell is said.

A loss that is measured as nothing still has an upper end of its interval. A limit below that can be held by no variant
at all; and a variant that is refused for it is not worse than a lower precision with a wider limit.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.judging import paired
from contracts.judging.metric import Targets, joined
from contracts.manifest import Variant
from contracts.samples import Split
from contracts.spec import DISCRETE, ModelSpec, Precision
from export.errors import SampleError
from export.proof.gates import Judged

_WORSE = 0.05  # than always the commonest answer, as a share: labels and classes hardly mean the same


def require(spec: ModelSpec, precisions: Sequence[Precision], held_out: Split, *, own_reference: bool) -> None:
    """See that the held-out samples can show what the spec limits.

    Args:
        own_reference: The FP32 graph is what it is compared with: what is the same by construction needs no samples.

    Raises:
        SampleError: they are too few, with how many it takes.
    """
    metric, targets = spec.metric, held_out.targets
    if metric is None or targets is None or metric.counted is None:
        return
    count, needed, notes = metric.counted(targets), 0, []
    kind = "held-out samples" if count == len(held_out) else "held-out samples of the rarer class"
    least = 100 * paired.tango_bound(0, 0, count)
    for precision in precisions:
        limit = spec.limits[precision].drop
        same = metric.name == "auc" and precision == "fp32" and own_reference  # the very scores, which lose nothing
        if limit is None or round(least, 4) <= limit or same:
            continue
        wanted = paired.samples_for(limit / 100)
        needed = max(needed, wanted or 0)
        for_it = f"{wanted:,} {kind}" if wanted else "more samples than there can be"
        notes.append(f"limits.{precision}: a drop of at most {limit:g} points of {metric.name} takes {for_it}")
    if notes:
        shown = math.ceil(10 * least) / 10
        raise SampleError(
            f"{count:,} {kind} cannot show what the spec limits: less than {shown} points they never show",
            note="; ".join(notes),
            hint=(f"hold out {needed:,} of them (of a graph's samples half are), or " if needed else "")
            + f"limit what these can show: drop = {shown} or more",
        )


def lacking(variants: Sequence[Variant]) -> list[Variant]:
    """Return what is higher than all that passed, and was not refused: its samples are too few to tell."""
    passed = next((at for at, variant in enumerate(variants) if variant.passed), len(variants))
    above = variants[:passed] if passed < len(variants) else []
    return [v for v in above if all(gate.needed is not None for gate in v.gates if not gate.passed)]


def warnings(spec: ModelSpec, precisions: Sequence[Precision], judged: Judged, split: Split) -> Iterator[str]:
    """Say what the held-out samples do not show although every figure looks well.

    Args:
        judged: The held-out samples as the reference answers them.
    """
    count, answers = len(split), judged.answers
    if spec.task in DISCRETE and answers is not None and count:
        if len(np.unique(answers, axis=0)) == 1:
            told = _named(spec, answers[0])
            yield f"the reference gives all {count:,} held-out samples the same answer, {told}: agreement shows nothing"
        for precision in precisions:
            limit = spec.limits[precision].agreement
            if limit is not None and limit < 1 and (1 - limit) * count < 1 - 1e-9:
                yield (
                    f"limits.{precision}: an agreement of {limit:g} lets none of {count:,} held-out samples differ; "
                    f"with {math.ceil(1 / (1 - limit) - 1e-9):,} or more one may"
                )
    if spec.task in ("classification", "binary") and judged.targets is not None and answers is not None:
        yield from _of_labels(spec, answers, _flat(judged.targets))
    if spec.metric is not None and spec.metric.name == "auc":
        score = judged.score(spec, judged.scores)
        if score is not None and score < 0.5:
            yield f"the reference's auc is {score:.2f}, below chance: are yes and no the other way round in the labels?"


def _of_labels(spec: ModelSpec, answers: NDArray[np.int64], labels: NDArray[np.int64]) -> Iterator[str]:
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 1:
        yield f"every label of the held-out samples is {_named(spec, classes[0])}: of other classes nothing is shown"
        return
    right, commonest = float((answers == labels).mean()), float(counts.max() / len(labels))
    if right + _WORSE >= commonest:
        return
    told = f"the reference's accuracy is {right:.2f}, and always {_named(spec, classes[counts.argmax()])} would be "
    told += f"{commonest:.2f}: do the labels count the classes as the network does?"
    for shift, words in ((1, "from 1"), (-1, "from -1")):
        if float((answers + shift == labels).mean()) > max(commonest, 2 * right):
            told += f" They seem to be counted {words}"
    yield told


def _flat(targets: Targets) -> NDArray[np.int64]:
    return joined(targets).reshape(sum(map(len, targets)), -1)[:, 0].astype(np.int64)


def _named(spec: ModelSpec, answer: NDArray[np.int64] | np.int64) -> str:
    if np.ndim(answer):
        return " ".join(str(int(value)) for value in np.ravel(answer) if value >= 0) or "an empty one"
    return repr(spec.labels[int(answer)]) if 0 <= int(answer) < len(spec.labels) else str(int(answer))
