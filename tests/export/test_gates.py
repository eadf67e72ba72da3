"""A gate fails when, and only when, its figure is beyond its limit."""

import numpy as np
import pytest

from contracts.manifest import Gate
from contracts.spec import Limits
from export import gates

LIMITS = Limits(accuracy_drop_points=1.0, agreement=0.98, logit_difference=0.5)
N = 1000


@pytest.fixture
def reference() -> np.ndarray:
    """Logits of a model that is right on 90 % of 1,000 inputs labelled by turns 0…9, with a margin of 5."""
    answers = np.arange(N) % 10
    answers[:100] = (answers[:100] + 1) % 10
    return np.eye(10, dtype=np.float32)[answers] * 5


LABELS = np.arange(N, dtype=np.int64) % 10


def failed(proofs: tuple[Gate, ...]) -> set[str]:
    return {gate.name for gate in proofs if not gate.passed}


def test_the_same_answers_pass(reference: np.ndarray) -> None:
    proofs = gates.prove(reference.copy(), reference, LABELS, LIMITS)
    assert not failed(proofs)
    assert [gate.figure for gate in proofs] == [0, 1, 0, 0]


def test_a_lost_point_of_accuracy_is_measured_in_points(reference: np.ndarray) -> None:
    worse = reference.copy()
    worse[500:511] = np.roll(worse[500:511], 1, axis=1)  # 11 right answers become wrong: 1.1 points
    proofs = gates.prove(worse, reference, LABELS, LIMITS)
    assert proofs[0].figure == pytest.approx(1.1)
    assert failed(proofs) == {"accuracy drop, points", "largest logit difference"}


def test_answers_that_change_without_costing_accuracy_still_fail_agreement(reference: np.ndarray) -> None:
    other = reference.copy()
    other[:50] = np.roll(other[:50], 1, axis=1)  # wrong before, differently wrong now
    assert "top-1 agreement" in failed(gates.prove(other, reference, LABELS, LIMITS))


def test_a_shifted_logit_fails_although_every_answer_is_the_same(reference: np.ndarray) -> None:
    assert failed(gates.prove(reference + np.float32(0.6), reference, LABELS, LIMITS)) == {"largest logit difference"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_overflow_fails(reference: np.ndarray, value: float) -> None:
    broken = reference.copy()
    broken[7, 3] = value
    assert "inf or nan logits" in failed(gates.prove(broken, reference, LABELS, LIMITS))
