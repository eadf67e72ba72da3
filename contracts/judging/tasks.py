"""What a network's outputs say, as its task has it: the answers, and which of them agree (contracts/spec.py, Task)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.judging.metric import Predicted, cosine_similarity, joined, same
from contracts.samples import Batch
from contracts.spec import DISCRETE, ModelSpec

Answers = NDArray[Any]  # [N]; [N, L] padded with -1 (ctc), [N, k] (regression, embedding)


def predicted(outputs: Sequence[Batch], spec: ModelSpec) -> Predicted:
    """Read what a network gave for a split.

    Args:
        outputs: In the order of the split's samples; without a batch, one a sample.
    """
    values = [_rows(batch[spec.answer_output], spec) for batch in outputs]
    return Predicted(outputs, values, _answers(values, spec))


def answers(outputs: Sequence[Batch], spec: ModelSpec) -> Answers | None:
    """Return the answers to a split, [N, …]; None for the task "values"."""
    return _answers([_rows(batch[spec.answer_output], spec) for batch in outputs], spec)


def agree(found: Answers, expected: Answers, spec: ModelSpec) -> NDArray[np.bool_] | None:
    """Tell of each answer, [N], whether it agrees with the other; None where the spec does not say what that means."""
    if spec.task in DISCRETE:
        return same(found, expected)
    if spec.agree_within is None:
        return None
    with np.errstate(invalid="ignore"):  # inf and nan agree with nothing
        if spec.task == "embedding":
            near: NDArray[np.bool_] = np.less_equal(1 - cosine_similarity(found, expected), spec.agree_within)
            return near
        distance = np.abs(found.astype(np.float64) - expected).reshape(len(found), -1)
        close: NDArray[np.bool_] = np.all(distance <= spec.agree_within, axis=1)
        return close


def _rows(values: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    """Return the answer output with a row for each sample: without a batch there is one, which may lack that axis."""
    if spec.batched:
        return values
    rank = {"classification": 2, "ctc": 3, "embedding": 2}.get(spec.task, values.ndim)
    if spec.task in ("binary", "regression"):
        return values.reshape(1, -1)
    return values[None] if values.ndim < rank or spec.task == "values" else values


def _answers(values: Sequence[NDArray[Any]], spec: ModelSpec) -> Answers | None:
    if spec.task == "classification":
        return np.concatenate([part.argmax(axis=-1) for part in values])
    if spec.task == "ctc":
        return joined([_collapsed(part.argmax(axis=-1)) for part in values])
    if spec.task == "binary":
        return np.concatenate([(part.reshape(len(part)) >= spec.threshold).astype(np.int64) for part in values])
    if spec.task in ("regression", "embedding"):
        return np.concatenate([part.reshape(len(part), -1) for part in values])
    return None


def _collapsed(best: NDArray[np.int64]) -> NDArray[np.int64]:
    """Apply CTC's rule: repeats become one, then blanks (0) go. [N, steps] to [N, steps], padded with -1."""
    repeated = np.zeros(best.shape, bool)
    repeated[:, 1:] = best[:, 1:] == best[:, :-1]
    kept = ~repeated & (best != 0)
    result = np.full_like(best, -1)
    for row, (sequence, mask) in enumerate(zip(best, kept, strict=True)):
        result[row, : mask.sum()] = sequence[mask]
    return result
