"""A gate fails when, and only when, its figure is beyond its limit."""

import numpy as np
import pytest

from contracts.manifest import Gate
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from export.proof import gates
from export.proof.gates import Answers, Comparison

N = 1000
BATCH = DynamicDim("batch", 1, 8, 64)
SPEC = ModelSpec(
    family="toy",
    model="toy",
    inputs=(TensorSpec("x", "float32", (BATCH, 4)),),
    outputs=(TensorSpec("logits", "float32", (BATCH, 10)),),
    limits={"int8": Limits({"logits": 0.5}, agreement=0.98, accuracy_drop_points=2.0)},
)
LABELS = np.arange(N, dtype=np.int64) % 10


@pytest.fixture
def reference() -> np.ndarray:
    """Logits of a model that is right on 90 % of 1,000 inputs labelled by turns 0…9, with a margin of 5."""
    answers = np.arange(N) % 10
    answers[:100] = (answers[:100] + 1) % 10
    return np.eye(10, dtype=np.float32)[answers] * 5


def prove(logits: np.ndarray, reference: np.ndarray, labels: Answers | None = LABELS) -> dict[str, Gate]:
    found = gates.compare({"logits": logits}, {"logits": reference}, SPEC)
    answers = gates.answers({"logits": reference}, SPEC)
    return {gate.name: gate for gate in gates.check(found, {}, answers, labels, SPEC.limits["int8"])}


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


def test_the_upper_bound_is_tangos() -> None:
    """Without a change the score equation has the solution z² / (n + z²)."""
    same = np.ones(10_000, bool)
    assert gates.accuracy_drop(same, same, 1.0).figure == pytest.approx(
        100 * 1.6448536**2 / (10_000 + 1.6448536**2), abs=1e-4
    )


def test_a_limit_that_the_samples_are_too_few_for_is_told_apart_from_a_loss() -> None:
    same = np.ones(100, bool)
    assert gates.accuracy_drop(same, same, 1.0).detail.endswith("so few samples cannot show less than 2.63")
    assert "so few" not in gates.accuracy_drop(same, same, 3.0).detail


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.01), (0.03, 0.005), (0.002, 0.001)])
def test_the_upper_bound_covers_the_true_drop_in_95_of_100_draws(lost: float, gained: float) -> None:
    """A simulation of the interval's promise, with a true drop that is known."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(2000, [lost, gained, 1 - lost - gained], size=4000)
    bounds = []
    for b, c, _ in draws:
        before, after = np.ones(2000, bool), np.ones(2000, bool)
        after[:b] = False
        before[b : b + c] = False
        bounds.append(gates.accuracy_drop(before, after, 1.0).figure)
    assert np.mean(np.array(bounds) >= (lost - gained) * 100) >= 0.94


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
    same = gates.compare({"logits": reference}, {"logits": reference}, SPEC)
    off = Comparison(same.answers, {"logits": 3.0}, 0, 0.1)
    answers = gates.answers({"logits": reference}, SPEC)
    [gate, *_] = gates.check(same, {"shapes at their max": off}, answers, LABELS, SPEC.limits["int8"])
    assert (gate.figure, gate.passed, gate.detail) == (3.0, False, "in shapes at their max")


def test_without_labels_there_is_no_accuracy_to_lose(reference: np.ndarray) -> None:
    assert DROP not in prove(reference, reference, labels=None)


def test_ctc_answers_are_the_collapsed_sequences() -> None:
    steps = np.array([[0, 3, 3, 0, 3, 5], [0, 0, 0, 0, 0, 0]])
    outputs = {"logits": np.eye(10, dtype=np.float32)[steps]}
    logits = TensorSpec("logits", "float32", (BATCH, 6, 10))
    spec = ModelSpec("toy", "toy", SPEC.inputs, (logits,), SPEC.limits, task="ctc")
    found = gates.answers(outputs, spec)
    assert found is not None
    assert found.tolist() == [[3, 3, 5, -1, -1, -1], [-1] * 6]
    assert gates.correct(found, np.array([[3, 3, 5], [-1, -1, -1]])).tolist() == [True, True]
    assert gates.correct(found, np.array([[3, 5, -1], [1, -1, -1]])).tolist() == [False, False]
