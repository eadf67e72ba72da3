"""Shapley values: what they are of a model whose own are known, and what they add up to of any."""

import numpy as np
import pytest

from contracts.samples import Batch, Group, Split
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from export.report import tabular
from export.report.importance import explains, importance

BATCH = DynamicDim("batch", 1, 8, 32)
SPEC = ModelSpec(
    family="toy",
    model="toy",
    task="regression",
    inputs=(
        TensorSpec("kinds", "int32", (BATCH, 1), columns=("kind",)),
        TensorSpec("numbers", "float32", (BATCH, 3), columns=("heavy", "light", "idle")),
    ),
    outputs=(TensorSpec("y", "float32", (BATCH, 1)),),
    vocabularies={"kind": ("(unknown)", "cat", "dog")},
    limits={"fp32": Limits({"y": 1e-3})},
)
CHANCE = np.random.default_rng(0)
KINDS = CHANCE.integers(0, 3, (400, 1)).astype(np.int32)
NUMBERS = CHANCE.standard_normal((400, 3)).astype(np.float32)
SPLIT = Split.of({"kinds": KINDS, "numbers": NUMBERS})


def linear(batch: Batch) -> Batch:
    y = batch["kinds"][:, 0] + 3 * batch["numbers"][:, 0] + 0.5 * batch["numbers"][:, 1]
    return {"y": y[:, None].astype(np.float32)}


def tangled(batch: Batch) -> Batch:
    y = batch["kinds"][:, 0] * batch["numbers"][:, 0] + np.tanh(batch["numbers"][:, 0] * batch["numbers"][:, 1])
    return {"y": y[:, None].astype(np.float32)}


def test_of_a_linear_model_a_column_counts_for_its_distance_from_the_others() -> None:
    found = importance(linear, SPLIT, SPEC)
    assert list(found.overall) == ["heavy", "kind", "light", "idle"]
    assert found.overall["idle"] == 0
    assert found.overall["heavy"] == pytest.approx(6 * found.overall["light"], rel=0.25)
    highest = found.shown[0]
    moved = dict(zip(found.columns, highest.moved, strict=True))
    exact = 3 * (NUMBERS[highest.index, 0] - NUMBERS[:, 0].mean())
    assert moved["heavy"] == pytest.approx(exact, abs=4 * 3 / np.sqrt(8))  # of eight others: four standard errors


def test_the_values_of_a_prediction_add_up_to_what_it_is_above_what_it_was_compared_with() -> None:
    found = importance(tangled, SPLIT, SPEC)
    answers = tangled({"kinds": KINDS, "numbers": NUMBERS})["y"][:, 0]
    for one in found.shown:
        assert one.answer == pytest.approx(float(answers[one.index]), abs=1e-6)
    np.testing.assert_allclose(found.start + found.moved.sum(axis=1), answers[found.indices], rtol=0, atol=1e-6)
    highest, middle, lowest = (one.answer for one in found.shown)
    assert highest > middle > lowest


def test_values_are_said_in_the_words_of_their_vocabularies_and_what_is_missing_is_not_known() -> None:
    numbers = NUMBERS.copy()
    numbers[:, 2] = np.nan
    found = importance(linear, Split((Group({"kinds": KINDS, "numbers": numbers}),)), SPEC)
    one = found.shown[0]
    assert one.values[0] == ("(unknown)", "cat", "dog")[KINDS[one.index, 0]]
    assert one.values[1] == f"{NUMBERS[one.index, 0]:.4g}" and one.values[3] == "not known"


def test_the_same_samples_are_explained_the_same_way_and_drawn() -> None:
    one, other = importance(tangled, SPLIT, SPEC), importance(tangled, SPLIT, SPEC)
    np.testing.assert_array_equal(one.moved, other.moved)
    for picture in (tabular.overall(one), tabular.predictions(one)):
        assert picture.startswith("data:image/svg+xml;base64,")


def test_what_has_no_columns_is_not_explained() -> None:
    plain = ModelSpec(
        family="toy",
        model="toy",
        task="regression",
        inputs=(TensorSpec("x", "float32", (BATCH, 3)),),
        outputs=(TensorSpec("y", "float32", (BATCH, 1)),),
        limits={},
    )
    assert explains(SPEC) and not explains(plain)
