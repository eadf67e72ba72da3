"""The proofs a variant must pass before anybody is served by it.

Each compares a variant with its reference on the same inputs. `compare` measures, once; `check` holds what was
measured against the limits, so that other limits need no other run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.manifest import Gate
from contracts.spec import Limits, ModelSpec
from export.proof.runners import Batch

Answers = NDArray[np.int64]  # [N], or [N, L] padded with -1

_Z_95 = 1.6448536  # one-sided: the standard normal distribution's 95 % quantile


@dataclass(frozen=True)
class Comparison:
    """What was measured of a variant on one set of inputs."""

    answers: Answers | None  # None for the task "values"
    differences: Mapping[str, float]  # output -> largest absolute difference from the reference
    not_finite: int  # elements that are inf or nan
    error: float  # RMS difference of the answer output as a share of its RMS

    @staticmethod
    def worst(comparisons: Mapping[str, "Comparison"]) -> tuple[Mapping[str, tuple[float, str]], int, list[str]]:
        """Return ({output: (largest difference, where)}, number of elements that are not finite, where they were)."""
        outputs = next(iter(comparisons.values())).differences
        largest = {o: max((c.differences[o], where) for where, c in comparisons.items()) for o in outputs}
        broken = [where for where, c in comparisons.items() if c.not_finite]
        return largest, sum(c.not_finite for c in comparisons.values()), broken


def answers(outputs: Batch, spec: ModelSpec) -> Answers | None:
    """Read the answers from the outputs as the task says (contracts/spec.py, Task); None for the task "values"."""
    if spec.task == "values":
        return None
    best: Answers = outputs[spec.answer_output].argmax(axis=-1)
    return _collapsed(best) if spec.task == "ctc" else best


def compare(outputs: Batch, reference: Batch, spec: ModelSpec) -> Comparison:
    """Measure `outputs` against the reference's on the same inputs."""
    differences, not_finite = {}, 0
    for tensor in spec.outputs:
        found, expected = outputs[tensor.name], reference[tensor.name]
        finite = np.isfinite(found)
        not_finite += int((~finite).sum())
        difference = np.subtract(found, expected, dtype=np.float64)
        differences[tensor.name] = float(np.abs(difference)[finite].max(initial=0.0))
    expected = reference[spec.answer_output].astype(np.float64)
    difference = outputs[spec.answer_output].astype(np.float64) - expected
    difference[~np.isfinite(difference)] = 0.0  # counted above
    scale = math.sqrt(np.square(expected).mean())
    error = math.sqrt(np.square(difference).mean()) / scale if scale else 0.0
    return Comparison(answers(outputs, spec), differences, not_finite, error)


def correct(predicted: Answers, labels: Answers) -> NDArray[np.bool_]:
    """Tell of each answer, [N], whether it is the label's; a sequence has to be the same as a whole."""
    if predicted.ndim == 1:
        return np.equal(predicted, labels)
    width = max(predicted.shape[1], labels.shape[1])
    same: NDArray[np.bool_] = (_padded(predicted, width) == _padded(labels, width)).all(axis=1)
    return same


def accuracy(predicted: Answers | None, labels: Answers | None) -> float | None:
    """Return the share of right answers, where there are answers and labels."""
    return None if predicted is None or labels is None else float(correct(predicted, labels).mean())


def check(
    held_out: Comparison,
    others: Mapping[str, Comparison],
    reference: Answers | None,
    labels: Answers | None,
    limits: Limits,
) -> tuple[Gate, ...]:
    """Hold what was measured of a variant to its limits, a gate each.

    Args:
        held_out: Measured on the whole held-out split.
        others: Measured at the ends of the dynamic dimensions, or as another runtime computes it: {where: …}.
        reference: The reference's answers on the held-out split.
        labels: The true ones, or None.
    """
    largest, not_finite, broken = Comparison.worst({"held-out split": held_out, **others})
    proofs = [
        Gate(
            f"largest difference of {output}",
            difference,
            limits.tolerance[output],
            "at most",
            f"in {where}",
            id=f"largest_difference:{output}",
        )
        for output, (difference, where) in largest.items()
    ]
    proofs.append(
        Gate("inf or nan", not_finite, 0, "at most", f"in {', '.join(broken)}" if broken else "", id="finite")
    )
    if held_out.answers is not None and reference is not None and limits.agreement is not None:
        same = float(correct(held_out.answers, reference).mean())
        proofs.append(Gate("agreement", same, limits.agreement, "at least", id="agreement"))
        if labels is not None and limits.accuracy_drop_points is not None:
            before, after = correct(reference, labels), correct(held_out.answers, labels)
            proofs.append(accuracy_drop(before, after, limits.accuracy_drop_points))
    return tuple(proofs)


def accuracy_drop(before: NDArray[np.bool_], after: NDArray[np.bool_], limit: float) -> Gate:
    """Check the accuracy lost, in percentage points: the upper end of its one-sided 95 % confidence interval.

    The samples are paired, so only those that changed sides count: Tango's score interval for a difference of
    paired proportions (Stat. Med. 17, 1998), which keeps its promise also where few change sides or most of them
    in one direction (Fagerland, Lydersen and Laake, Stat. Med. 33, 2014, doi:10.1002/sim.6148).
    """
    count = len(before)
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    detail = f"{(lost - gained) / count * 100:.2f} measured: {lost} lost, {gained} gained of {count:,}"
    bound = _upper_bound(lost, gained, count) * 100
    if limit < (least := _upper_bound(0, 0, count) * 100):
        detail += f"; so few samples cannot show less than {least:.2f}"
    return Gate(
        "accuracy drop, points (95 % upper bound)", round(bound, 4), limit, "at most", detail, id="accuracy_drop"
    )


def _upper_bound(lost: int, gained: int, count: int) -> float:
    """Return the difference at which the score test of `lost` - `gained` just rejects: Tango's equations (2) to (4)."""
    from scipy.optimize import brentq

    def above(difference: float) -> float:
        a, c = 2 * count, -gained * difference * (1 - difference)
        b = -lost - gained + (2 * count - lost + gained) * difference
        p_gained = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)  # the likeliest, given the difference
        variance = count * (2 * p_gained + difference * (1 - difference))
        return lost - gained - count * difference + _Z_95 * math.sqrt(max(variance, 0.0))

    measured = (lost - gained) / count
    just_above = measured + 1e-9  # where nothing changed sides, the measured difference solves it too
    return float(brentq(above, just_above, 1.0)) if just_above < 1 else 1.0


def failures(proofs: Sequence[Gate]) -> str:
    """Name the gates that failed, with their figures and limits, in one line; "" where all passed."""
    return "; ".join(str(gate) for gate in proofs if not gate.passed)


def _collapsed(best: Answers) -> Answers:
    """Apply CTC's rule: repeats become one, then blanks (0) go. [N, steps] to [N, steps], padded with -1."""
    repeated = np.zeros(best.shape, bool)
    repeated[:, 1:] = best[:, 1:] == best[:, :-1]
    kept = ~repeated & (best != 0)
    result = np.full_like(best, -1)
    for row, (sequence, mask) in enumerate(zip(best, kept, strict=True)):
        result[row, : mask.sum()] = sequence[mask]
    return result


def _padded(sequences: Answers, width: int) -> NDArray[Any]:
    return np.pad(sequences, ((0, 0), (0, width - sequences.shape[1])), constant_values=-1)
