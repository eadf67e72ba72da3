"""Too few samples stop an export before any work, with how many it takes; what they do not show is said."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contracts.judging import paired, tasks
from contracts.manifest import Gate, Variant
from contracts.samples import Split
from contracts.spec import DynamicDim, Limits, ModelSpec, Precision, Task, TensorSpec
from export.errors import RefusedError, SampleError
from export.proof import enough, gates
from export.proof.compare import compare
from export.proof.gates import Judged
from export.prove import ProvenVariant
from export.release import choose

BATCH = DynamicDim("batch", 1, 8, 64)
X = TensorSpec("x", "float32", (BATCH, 4))
PRECISIONS: Sequence[Precision] = ("fp32", "fp16", "int8")


def spec(task: Task, *shape: int, drop: float | None = None, agreement: float = 0.9) -> ModelSpec:
    limits: dict[Precision, Limits] = {p: Limits({"y": 1.0}, agreement=agreement, drop=drop) for p in PRECISIONS}
    return ModelSpec("toy", "toy", (X,), (TensorSpec("y", "float32", (BATCH, *shape)),), limits, task=task)


def split(labels: np.ndarray | None, count: int = 0) -> Split:
    return Split.of({"x": np.zeros((len(labels) if labels is not None else count, 4), np.float32)}, labels)


def judged(of: ModelSpec, outputs: np.ndarray, labels: np.ndarray | None) -> Judged:
    predicted = tasks.predicted([{"y": outputs}], of)
    scores = of.metric.scores(predicted, [labels]) if of.metric and labels is not None else None
    return Judged(predicted.answers, scores, None if labels is None else [labels])


@pytest.mark.parametrize("points", [0.1, 0.5, 1.0, 3.0])
def test_as_many_samples_as_are_asked_for_show_the_limit_and_some_fewer_do_not(points: float) -> None:
    needed = paired.samples_for(points / 100)
    assert needed is not None
    assert round(100 * paired.tango_bound(0, 0, needed), 4) <= points < 100 * paired.tango_bound(0, 0, needed - 1)
    enough_of_them = split(np.zeros(needed, np.int64))
    enough.require(spec("classification", 3, drop=points), PRECISIONS, enough_of_them, own_reference=True)
    with pytest.raises(SampleError, match=f"takes {needed:,} held-out samples"):
        fewer = split(np.zeros(needed - 3, np.int64))
        enough.require(spec("classification", 3, drop=points), PRECISIONS, fewer, own_reference=True)


def test_every_limit_that_is_too_tight_is_named_with_what_these_samples_can_show() -> None:
    of = spec("classification", 3, drop=0.5)
    of = replace(of, limits={**of.limits, "int8": Limits({"y": 1.0}, agreement=0.9, drop=3.0)})
    with pytest.raises(SampleError) as refused:
        enough.require(of, PRECISIONS, split(np.arange(150) % 3), own_reference=True)
    told = str(refused.value)
    assert "150 held-out samples cannot show what the spec limits: less than 1.8 points they never show" in told
    assert "limits.fp32: a drop of at most 0.5 points of accuracy takes 539 held-out samples; limits.fp16" in told
    assert "int8" not in told and "hold out 539" in told and "drop = 1.8 or more" in told
    enough.require(of, ["int8"], split(np.arange(150) % 3), own_reference=True)


def test_a_drop_of_nothing_is_shown_by_no_number_of_samples() -> None:
    with pytest.raises(SampleError, match="takes more samples than there can be"):
        enough.require(spec("classification", 3, drop=0), PRECISIONS, split(np.arange(900) % 3), own_reference=True)


def test_an_area_is_shown_on_the_samples_of_the_rarer_class() -> None:
    labels = (np.arange(1000) < 40).astype(np.int64)
    of = spec("binary", drop=1.0)
    with pytest.raises(SampleError, match="40 held-out samples of the rarer class cannot show"):
        enough.require(of, PRECISIONS, split(labels), own_reference=True)
    enough.require(of, ["fp32"], split(labels), own_reference=True)  # the very same scores lose nothing
    with pytest.raises(SampleError, match="rarer class"):
        enough.require(of, ["fp32"], split(labels), own_reference=False)


def test_what_is_not_labelled_or_limited_needs_no_number() -> None:
    enough.require(spec("classification", 3, drop=0.1), PRECISIONS, split(None, 20), own_reference=True)
    enough.require(spec("classification", 3), PRECISIONS, split(np.zeros(20, np.int64)), own_reference=True)
    squared = replace(spec("classification", 3, drop=0.1), task="regression", metric=None, agree_within=0.1)
    enough.require(squared, PRECISIONS, split(np.zeros(20)), own_reference=True)


def told(of: ModelSpec, outputs: np.ndarray, labels: np.ndarray | None) -> list[str]:
    held_out = split(labels, len(outputs))
    return [*enough.warnings(of, PRECISIONS, judged(of, outputs, labels), held_out)]


EYE = np.eye(3, dtype=np.float32)
CYCLE = np.arange(60) % 3


def test_where_everything_is_shown_nothing_is_said() -> None:
    assert not told(spec("classification", 3), EYE[CYCLE], CYCLE)
    assert not told(spec("classification", 3), EYE[CYCLE], None)
    assert not told(spec("binary"), (CYCLE > 0).astype(np.float32), (CYCLE > 0).astype(np.int64))


@pytest.mark.parametrize(
    ("outputs", "labels", "said"),
    [
        (EYE[CYCLE * 0 + 1], None, "gives all 60 held-out samples the same answer, 1: agreement shows nothing"),
        (EYE[CYCLE], CYCLE * 0, "every label of the held-out samples is 0: of other classes nothing is shown"),
        (EYE[CYCLE], (CYCLE + 1) % 3, "accuracy is 0.00, and always 0 would be 0.33: do the labels count the classes"),
        (EYE[np.minimum(CYCLE, 1)], np.minimum(CYCLE, 1) + 1, "They seem to be counted from 1"),
    ],
)
def test_labels_and_answers_that_prove_nothing_are_named(
    outputs: np.ndarray, labels: np.ndarray | None, said: str
) -> None:
    assert said in "\n".join(told(spec("classification", 3), outputs, labels))


def test_yes_and_no_the_other_way_round_is_suspected() -> None:
    yes = np.linspace(0, 1, 60, dtype=np.float32)
    assert "auc is 0.00, below chance" in "\n".join(told(spec("binary"), yes, (yes < 0.5).astype(np.int64)))


def test_an_agreement_that_lets_no_answer_differ_is_named_with_the_number_that_would() -> None:
    said = told(spec("classification", 3, agreement=0.999), EYE[CYCLE], None)
    assert said[0] == (
        "limits.fp32: an agreement of 0.999 lets none of 60 held-out samples differ; with 1,000 or more one may"
    )
    assert not told(spec("classification", 3, agreement=1.0), EYE[CYCLE], None), "that is what was asked for"


def proven(precision: Precision, *failed: Gate) -> ProvenVariant:
    held = Gate("inf or nan", 0, 0, "at most", id="finite")
    return ProvenVariant(Variant(precision, None, (held, *failed), 1, ""), SimpleNamespace(), None)  # type: ignore[arg-type]


UNDECIDED = Gate("accuracy drop", 0.17, 0.1, "at most", id="metric_drop", needed=9000)
WORSE = Gate("accuracy drop", 2.0, 0.1, "at most", id="metric_drop")


def context() -> Any:
    source = SimpleNamespace(spec=spec("classification", 3), held_out=split(None, 3000))
    return SimpleNamespace(source=source, request=SimpleNamespace(engines=SimpleNamespace(library="tensorrt_rtx")))


def test_a_lower_precision_does_not_stand_in_for_one_that_lacked_samples() -> None:
    with pytest.raises(RefusedError) as refused:
        choose._passing(context(), [proven("fp32", UNDECIDED), proven("fp16", WORSE), proven("int8")])
    told = str(refused.value)
    assert "3,000 held-out samples are too few to tell whether fp32 of toy is good enough" in told
    assert "about 9,000" in told and "--precision int8" in told and "fp16:" not in told


@pytest.mark.parametrize(
    "variants",
    [
        [proven("fp32", WORSE), proven("int8")],  # refused for what it is
        [proven("fp32"), proven("fp16", UNDECIDED), proven("int8")],  # a higher one is there
        [proven("int8")],
    ],
)
def test_it_stands_for_itself_where_the_higher_one_is_refused_or_is_there(variants: list[ProvenVariant]) -> None:
    assert choose._passing(context(), variants)[-1].variant.precision == "int8"


@pytest.mark.parametrize(
    ("lost", "limit", "needed"),
    [(0, 2.0, None), (15, 2.0, 2400), (60, 2.0, None)],  # holds; too few to tell; worse
)
def test_a_loss_within_the_limit_with_an_interval_beyond_it_is_undecided(
    lost: int, limit: float, needed: int | None
) -> None:
    labels = np.arange(1000) % 3
    worse = labels.copy()
    worse[:lost] = (worse[:lost] + 1) % 3
    of = spec("classification", 3, drop=limit)
    found = compare([{"y": EYE[worse]}], [{"y": EYE[labels]}], of, [labels])
    checked = gates.check(of, "int8", judged(of, EYE[labels], labels), found)
    [gate] = [gate for gate in checked if gate.id == "metric_drop"]
    if needed is None:
        assert gate.needed is None
    else:
        assert gate.needed == pytest.approx(needed, rel=0.3) and "too few samples to tell" in str(gate)


def test_one_answer_of_few_that_differs_is_no_verdict() -> None:
    of = spec("classification", 3, agreement=0.999)
    for differ, needed in ((1, 1000), (5, None)):
        other = CYCLE.copy()
        other[:differ] = (other[:differ] + 1) % 3
        found = compare([{"y": EYE[other]}], [{"y": EYE[CYCLE]}], of)
        checked = gates.check(of, "fp16", judged(of, EYE[CYCLE], None), found)
        [gate] = [gate for gate in checked if gate.id == "agreement"]
        assert not gate.passed and gate.needed == needed


@pytest.mark.parametrize(
    ("gate", "hint"),
    [
        (Gate("compiled by TensorRT", 0, 1, "at least", "no such operator", id="compiled"), "tensorrt = false"),
        (Gate("contract: the graph", 1, 0, "at most", id="contract:the graph"), "mend the spec, or export the graph"),
        (Gate("inf or nan", 3, 0, "at most", id="finite"), "too large for it"),
        (Gate("largest difference of y", 3, 0.1, "at most", id="largest_difference:y"), "compare the figures with"),
        (WORSE, "raise drop in the spec, or train longer"),
        (UNDECIDED, "hold out about 9,000 samples"),
    ],
)
def test_the_hint_fits_the_failure(gate: Gate, hint: str) -> None:
    with pytest.raises(RefusedError) as refused:
        choose._passing(context(), [proven("fp32", gate), proven("int8", WORSE)])
    assert hint in str(refused.value)
    assert ("train longer" in str(refused.value)) == (gate == WORSE)
