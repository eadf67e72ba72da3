"""A gate fails when, and only when, its figure is beyond its limit."""

import dataclasses

import numpy as np
import pytest

from contracts.judging import metric, tasks
from contracts.judging.metric import same
from contracts.judging.tasks import Answers
from contracts.manifest import Difference, Gate
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from export.proof import gates
from export.proof.compare import compare
from export.proof.gates import Judged

N = 1000
BATCH = DynamicDim("batch", 1, 8, 64)
SPEC = ModelSpec(
    family="toy",
    model="toy",
    inputs=(TensorSpec("x", "float32", (BATCH, 4)),),
    outputs=(TensorSpec("logits", "float32", (BATCH, 10)),),
    limits={"int8": Limits({"logits": 0.5}, agreement=0.98, drop=2.0)},
)
LABELS = np.arange(N, dtype=np.int64) % 10


@pytest.fixture
def reference() -> np.ndarray:
    """Logits of a model that is right on 90 % of 1,000 inputs labelled by turns 0…9, with a margin of 5."""
    answers = np.arange(N) % 10
    answers[:100] = (answers[:100] + 1) % 10
    return np.eye(10, dtype=np.float32)[answers] * 5


def judged(logits: np.ndarray, labels: Answers | None) -> Judged:
    predicted = tasks.predicted([{"logits": logits}], SPEC)
    assert SPEC.metric is not None
    if labels is None:
        return Judged(predicted.answers, None, None)
    return Judged(predicted.answers, SPEC.metric.scores(predicted, [labels]), [labels])


def prove(logits: np.ndarray, reference: np.ndarray, labels: Answers | None = LABELS) -> dict[str, Gate]:
    targets = None if labels is None else [labels]
    found = compare([{"logits": logits}], [{"logits": reference}], SPEC, targets)
    return {gate.name: gate for gate in gates.check(SPEC, "int8", judged(reference, labels), found)}


def failed(proofs: dict[str, Gate]) -> set[str]:
    return {name for name, gate in proofs.items() if not gate.passed}


DROP = "accuracy drop, points (95 % upper bound)"


def test_the_same_answers_pass(reference: np.ndarray) -> None:
    proofs = prove(reference.copy(), reference)
    assert not failed(proofs)
    assert (proofs["agreement"].figure, proofs["largest difference of logits"].figure) == (1, 0)


def test_lost_accuracy_is_judged_by_its_upper_bound_not_by_what_was_measured(reference: np.ndarray) -> None:
    worse = reference.copy()
    worse[500:515] = np.roll(worse[500:515], 1, axis=1)  # 15 right answers become wrong: 1.5 points
    gate = prove(worse, reference)[DROP]
    assert gate.figure > 2.0 > 1.5, "1.5 points measured on 1,000 samples may well be more than 2"
    assert gate.detail == "1.50 measured: 15 lost, 0 gained of 1,000"
    assert not gate.passed


def test_a_limit_that_the_samples_are_too_few_for_is_told_apart_from_a_loss() -> None:
    logits, labels = np.eye(10, dtype=np.float32)[np.arange(100) % 10], np.arange(100) % 10
    assert prove(logits, logits, labels)[DROP].detail.endswith("so few samples cannot show less than 2.63")
    assert "so few" not in prove(np.tile(logits, (10, 1)), np.tile(logits, (10, 1)))[DROP].detail


def test_answers_that_change_without_costing_accuracy_still_fail_agreement(reference: np.ndarray) -> None:
    other = reference.copy()
    other[:50] = np.roll(other[:50], 1, axis=1)  # wrong before, differently wrong now
    assert "agreement" in failed(prove(other, reference))


def test_a_shifted_logit_fails_although_every_answer_is_the_same(reference: np.ndarray) -> None:
    assert failed(prove(reference + np.float32(0.6), reference)) == {"largest difference of logits"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_overflow_fails(reference: np.ndarray, value: float) -> None:
    broken = reference.copy()
    broken[7, 3] = value
    assert "inf or nan" in failed(prove(broken, reference))


def test_a_difference_at_another_shape_counts_and_is_named(reference: np.ndarray) -> None:
    same = compare([{"logits": reference}], [{"logits": reference}], SPEC, [LABELS])
    off = dataclasses.replace(same, differences={"logits": Difference(3.0, 0.1, 0.1, 0.1)})
    [gate, *_] = gates.check(SPEC, "int8", judged(reference, LABELS), same, {"shapes at their max": off})
    assert (gate.figure, gate.passed, gate.detail) == (3.0, False, "in shapes at their max")


def test_outputs_of_another_shape_are_no_outputs_without_a_difference() -> None:
    """As where what a framework gave beside the samples has another number of steps than the graph gives."""
    logits = TensorSpec("logits", "float32", (BATCH, DynamicDim("steps", 1, 6, 9), 10))
    spec = ModelSpec("toy", "toy", SPEC.inputs, (logits,), SPEC.limits, task="ctc")
    outputs, expected = ({"logits": np.zeros((N, steps, 10), np.float32)} for steps in (6, 7))
    for found, passes in (([outputs], False), ([expected], True)):
        compared = compare(found, [expected], spec)
        reference = Judged(tasks.answers([expected], spec), None, None)
        refused = failed({gate.name: gate for gate in gates.check(spec, "int8", reference, compared)})
        assert refused == (set() if passes else {"outputs of the same shape"})


def test_without_labels_there_is_no_accuracy_to_lose(reference: np.ndarray) -> None:
    assert DROP not in prove(reference, reference, labels=None)


def test_ctc_answers_are_the_collapsed_sequences() -> None:
    steps = np.array([[0, 3, 3, 0, 3, 5], [0, 0, 0, 0, 0, 0]])
    outputs = {"logits": np.eye(10, dtype=np.float32)[steps]}
    logits = TensorSpec("logits", "float32", (BATCH, 6, 10))
    spec = ModelSpec("toy", "toy", SPEC.inputs, (logits,), SPEC.limits, task="ctc")
    found = tasks.answers([outputs], spec)
    assert found is not None
    assert found.tolist() == [[3, 3, 5, -1, -1, -1], [-1] * 6]
    assert same(found, np.array([[3, 3, 5], [-1, -1, -1]])).tolist() == [True, True]
    assert same(found, np.array([[3, 5, -1], [1, -1, -1]])).tolist() == [False, False]


def test_further_metrics_are_held_to_on_the_whole_split_and_on_each_segment() -> None:
    spec = ModelSpec(
        family="toy",
        model="toy",
        inputs=(TensorSpec("x", "float32", (BATCH, 4)),),
        outputs=(TensorSpec("probability", "float32", (BATCH, 1)),),
        task="binary",
        also=(metric.BRIER, metric.CALIBRATION_ERROR),
        limits={"fp32": Limits({"probability": 1.0}, agreement=0.0, drop=1.0, also={"brier": 0.01})},
    )
    chance = np.random.default_rng(0)
    probability = chance.random((2 * N, 1))
    late = (chance.random((2 * N, 1)) < probability).astype(np.int64)
    moved = probability.copy()
    moved[N:] = 1 - moved[N:]  # the second segment alone is worse
    segments = {"October": slice(0, N), "December": slice(N, 2 * N)}
    predicted = tasks.predicted([{"probability": probability}], spec)
    assert spec.metric is not None
    also = {further.name: further.scores(predicted, [late]) for further in spec.also}
    reference = Judged(predicted.answers, spec.metric.scores(predicted, [late]), [late], also, segments)
    found = compare([{"probability": moved}], [{"probability": probability}], spec, [late])
    proofs = {gate.id: gate for gate in gates.check(spec, "fp32", reference, found) if "metric_drop" in gate.id}
    assert {gate_id for gate_id, gate in proofs.items() if gate.passed} == {
        "metric_drop:auc:October",
        "metric_drop:brier:October",
    }
    assert {gate_id for gate_id, gate in proofs.items() if not gate.passed} == {
        *("metric_drop", "metric_drop:brier", "metric_drop:auc:December", "metric_drop:brier:December"),
    }
    assert proofs["metric_drop:brier:December"].name.startswith("December: brier drop")
