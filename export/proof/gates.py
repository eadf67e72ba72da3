"""The proofs a variant must pass before anybody is served by it: what was measured of it, held to its limits."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from contracts.judging import paired, tasks
from contracts.judging.metric import Metric, Targets, joined
from contracts.judging.paired import Scores
from contracts.judging.tasks import Answers
from contracts.manifest import Gate
from contracts.spec import Limits, ModelSpec, Precision
from export.proof.compare import Comparison

_UNLIKELY = 0.05  # that so many answers differ by chance
# What Tolerance limits, and how it is called in tables.
_FIGURES = {
    "largest": ("largest_difference", "largest difference of {}"),
    "mean": ("mean_difference", "mean difference of {}"),
    "p99": ("p99_difference", "99 % of the differences of {}"),
    "relative": ("relative_difference", "RMS difference of {} as a share of its RMS"),
}


@dataclass(frozen=True)
class Judged:
    """A split as its reference answers it, and what is true of it."""

    answers: Answers | None
    scores: Scores | None  # the metric's; None where nothing is labelled
    targets: Targets | None
    also: Mapping[str, Scores] = field(default_factory=dict)  # {further metric: its scores}
    segments: Mapping[str, slice] = field(default_factory=dict)  # {name: where its samples are}

    def score(self, spec: ModelSpec, scores: Scores | None) -> float | None:
        """Return the metric's figure of a variant's scores, or of its own; None where nothing is labelled."""
        if spec.metric is None or scores is None or self.targets is None:
            return None
        return spec.metric.value(scores, self.targets)


def check(
    spec: ModelSpec,
    precision: Precision,
    reference: Judged,
    held_out: Comparison,
    others: Mapping[str, Comparison] | None = None,
) -> tuple[Gate, ...]:
    """Hold what was measured of a variant to its limits, a gate each.

    Args:
        reference: The held-out split as the reference answers it.
        held_out: Measured on the whole held-out split.
        others: Measured at the ends of the dynamic dimensions, or as another runtime computes it: {where: …}.
    """
    limits, everywhere = spec.limits[precision], {"held-out split": held_out, **(others or {})}
    proofs = [gate for tensor in spec.outputs for gate in _tolerances(tensor.name, spec, precision, everywhere)]
    broken = [where for where, c in everywhere.items() if c.not_finite]
    not_finite = sum(c.not_finite for c in everywhere.values())
    proofs.append(
        Gate("inf or nan", not_finite, 0, "at most", f"in {', '.join(broken)}" if broken else "", id="finite")
    )
    # What has another shape is compared with nothing, and must not pass for the same.
    if not spec.batched or any(c.reshaped for c in everywhere.values()):
        proofs.append(_same_shapes(spec, everywhere, limits.agreement))
    if limits.agreement is not None and (agreement := _agreement(spec, reference, held_out, limits.agreement)):
        proofs.append(agreement)
    proofs += _metric_drops(spec, limits, reference, held_out)
    return tuple(proofs)


def failures(proofs: Sequence[Gate]) -> str:
    """Name the gates that failed, with their figures and limits, in one line; "" where all passed."""
    return "; ".join(str(gate) for gate in proofs if not gate.passed)


def verdict(proofs: Sequence[Gate]) -> str:
    """Say in one line why it is refused, or the figures that matter most: its answers', else its numbers'."""
    if failed := failures(proofs):
        return f"REFUSED: {failed}"
    shown = [gate for gate in proofs if gate.id in ("agreement", "metric_drop")] or [
        gate for gate in proofs if "_difference:" in gate.id
    ]
    return ", ".join(f"{gate.name} {gate.figure:.5g}" for gate in shown)


def _tolerances(output: str, spec: ModelSpec, precision: Precision, everywhere: Mapping[str, Comparison]) -> list[Gate]:
    """Hold an output's differences to its tolerance; the largest one counts wherever it was measured."""
    tolerance, proofs = spec.limits[precision].of(output), []
    for name, (gate_id, title) in _FIGURES.items():
        if (limit := getattr(tolerance, name)) is None:
            continue
        places = everywhere if name == "largest" else {"held-out split": everywhere["held-out split"]}
        figure, where = max((float(getattr(c.differences[output], name)), where) for where, c in places.items())
        proofs.append(Gate(title.format(output), figure, limit, "at most", f"in {where}", id=f"{gate_id}:{output}"))
    return proofs


def _same_shapes(spec: ModelSpec, everywhere: Mapping[str, Comparison], agreement: float | None) -> Gate:
    """Check the shapes of the outputs: all; of those whose rows may depend on the data, as many as have to agree."""
    limit = 1.0 if spec.batched or agreement is None else agreement
    places = everywhere if spec.batched else {"held-out split": everywhere["held-out split"]}
    shares = {where: 1 - c.reshaped / max(1, c.samples * len(spec.outputs)) for where, c in places.items()}
    where = min(shares, key=lambda where: shares[where])
    detail = f"{everywhere[where].reshaped} differ in {where}" if shares[where] < 1 else ""
    return Gate("outputs of the same shape", shares[where], limit, "at least", detail, id="same_shape")


def _agreement(spec: ModelSpec, reference: Judged, held_out: Comparison, limit: float) -> Gate | None:
    if held_out.answers is None or reference.answers is None:
        return None
    same = tasks.agree(held_out.answers, reference.answers, spec)
    if same is None:
        return None
    gate = Gate("agreement", float(same.mean()), limit, "at least", id="agreement")
    allowed = (1 - limit) * len(same)  # to differ, of so many
    # Of so few samples none may differ, and a variant that holds its limit would have had as many by chance.
    by_chance = 0 < allowed < 1 and _at_least(int((~same).sum()), len(same), 1 - limit) > _UNLIKELY
    return replace(gate, needed=math.ceil(1 / (1 - limit) - 1e-9)) if not gate.passed and by_chance else gate


def _at_least(count: int, samples: int, share: float) -> float:
    """Return how likely so many of the samples, or more, are what this share of all samples is."""
    from scipy.stats import binom

    return float(binom.sf(count - 1, samples, share))


def _metric_drops(spec: ModelSpec, limits: Limits, reference: Judged, held_out: Comparison) -> Iterator[Gate]:
    """Check what was lost of each limited metric: on the whole split, and on each segment of it, by the same limit."""
    if spec.metric is None or reference.targets is None or reference.scores is None or held_out.scores is None:
        return
    true = joined(reference.targets)
    for metric, limit in ((m, limits.drop if m is spec.metric else limits.also.get(m.name)) for m in spec.metrics):
        if limit is None:
            continue
        first = metric is spec.metric
        before = reference.scores if first else reference.also[metric.name]
        after = held_out.scores if first else held_out.also[metric.name]
        gate = _metric_drop(metric, before, after, reference.targets, limit)
        yield gate if first else replace(gate, id=f"metric_drop:{metric.name}")
        for segment, rows in reference.segments.items():
            gate = _metric_drop(metric, before[rows], after[rows], [true[rows]], limit)
            yield replace(gate, name=f"{segment}: {gate.name}", id=f"metric_drop:{metric.name}:{segment}")


def _metric_drop(metric: Metric, before: Scores, after: Scores, targets: Targets, limit: float) -> Gate:
    """Check what was lost of a metric: the upper end of its one-sided 95 % confidence interval."""
    loss = metric.loss(before, after, targets)
    scale, unit = (100, ", points") if metric.share else (1, "")
    detail = (
        f"{loss.measured * scale:.{2 if metric.share else 5}{'f' if metric.share else 'g'}} measured: {loss.detail}"
    )
    least = paired.tango_bound(0, 0, len(before)) * scale
    if metric.name == "accuracy" and limit < least:
        detail += f"; so few samples cannot show less than {least:.2f}"
    name = f"{metric.name} drop{unit} (95 % upper bound)"
    gate = Gate(name, round(loss.bound * scale, 4 if metric.share else 9), limit, "at most", detail, id="metric_drop")
    room, width = limit - loss.measured * scale, (loss.bound - loss.measured) * scale
    if gate.passed or room <= 0 or not math.isfinite(width):
        return gate
    # What was measured is within the limit, its interval is not; that shrinks with the root of the samples.
    return replace(gate, needed=math.ceil(len(before) * (width / room) ** 2))
