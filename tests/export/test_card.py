"""Every release has a model card: the words of who made it, and the figures of its export with intervals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts import manifest
from contracts.errors import SpecError
from contracts.files import spec_file
from contracts.judging import metric
from contracts.judging.card import Card
from contracts.manifest import Choice, Figure, Gate, Judge, Manifest, Variant
from contracts.samples import Group, Split
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from export import measure, report
from export.proof import figures
from export.proof.compare import Comparison
from export.proof.gates import Judged
from export.report import Evidence, card
from tests.ferries import ENTITIES
from tests.hostile_names import NAMES, steering
from tests.small_releases import release_of
from training import families
from training.families import FAMILIES

WORDS = Card("It tells boats apart.", "A hundred boats.", "By year.", ("Boats at night.",), ("Steering them.",))
BATCH = DynamicDim("batch", 1, 2, 4)
SPEC = ModelSpec(
    "boats",
    "boats_net",
    (TensorSpec("x", "float32", (BATCH, 2)),),
    (TensorSpec("y", "float32", (BATCH, 3)),),
    {"fp32": Limits({"y": 0.1}, agreement=0.9)},
    labels=("ferry", "tug", "raft"),
)
TRUE = np.array([0, 0, 0, 0, 1, 1, 1, 2])
HITS = np.array([1, 1, 1, 0, 1, 0, 1, 1], np.float64)
ACCURACY, BRIER = Judge("accuracy"), Judge("brier", "lower", share=False)


def judged(**more: object) -> Judged:
    return replace(Judged(None, HITS, [TRUE]), **more)  # type: ignore[arg-type]


def released(**more: object) -> Manifest:
    variant = Variant("fp32", 0.74, (Gate("accuracy drop", 1.25, 2, "at most", id="metric_drop"),), 3, "00")
    found = [
        Figure(ACCURACY, "", 8, 0.75, 0.41, 0.93),
        Figure(ACCURACY, "May", 5, 0.8, 0.38, 0.96),
        Figure(ACCURACY, "June", 3, 2 / 3, 0.21, 0.94),
        *(Figure(BRIER, segment, n, 0.1, 0.05, 0.2) for segment, n in (("", 8), ("May", 5), ("June", 3))),
    ]
    release = release_of(
        (), card=WORDS, figures=tuple(found), metric=ACCURACY, variants=(variant,),
        choices=(Choice("model.onnx", "fp32", "the only one"),), splits={"training": 1000, "test": 8},
    )  # fmt: skip
    return replace(release, **more)  # type: ignore[arg-type]


def pages(release: Manifest, folder: Path) -> dict[str, str]:
    evidence = Evidence(Split.of({"x": np.zeros((8, 2), np.float32)}), None, None, {})
    report.write(release, SPEC, evidence, folder)
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_what_its_model_is_for_and_what_not(family: str) -> None:
    words = families.spec(family).card
    assert words is not None and words.limits and words.not_for


def test_a_classification_is_shown_by_class() -> None:
    found = {figure.segment: figure for figure in figures.of_reference(SPEC, judged())}
    assert {name: (f.samples, round(f.value or 0.0, 3)) for name, f in found.items()} == {
        "": (8, 0.75),
        "ferry": (4, 0.75),
        "tug": (3, 0.667),
        "raft": (1, 1.0),
    }
    ends = {name: (f.low or 0.0, f.high or 0.0) for name, f in found.items()}
    assert all(low < (found[name].value or 0.0) <= high for name, (low, high) in ends.items())
    assert ends["raft"][1] - ends["raft"][0] > ends[""][1] - ends[""][0]


def test_segments_that_are_named_take_the_place_of_classes() -> None:
    split = Split((Group({"x": TRUE[:5]}, TRUE[:5], name="May"), Group({"x": TRUE[5:]}, TRUE[5:], name="June")))
    found = [*figures.of_reference(SPEC, judged(segments=split.segments))]
    assert [(f.segment, f.samples, round(f.value or 0.0, 3)) for f in found] == [
        ("", 8, 0.75),
        ("May", 5, 0.8),
        ("June", 3, 0.667),
    ]


def test_what_is_not_labelled_has_no_figures() -> None:
    assert [*figures.of_reference(SPEC, judged(scores=None, targets=None))] == []


def test_more_classes_than_anybody_reads_are_no_segments() -> None:
    many = np.arange(100)
    spec = replace(SPEC, outputs=(TensorSpec("y", "float32", (BATCH, 100)),), labels=())
    assert [f.segment for f in figures.of_reference(spec, Judged(None, np.ones(100), [many]))] == [""]


def test_the_card_has_words_data_figures_and_what_is_served(tmp_path: Path) -> None:
    found = pages(released(), tmp_path)
    for page in (found["MODEL_CARD.md"], found["report.html"]):
        for said in (WORDS.purpose, WORDS.data, WORDS.splits, *WORDS.limits, *WORDS.not_for):
            assert said in page
        assert "75.00 % (41.00 to 93.00)" in page and "80.00 % (38.00 to 96.00)" in page
        assert "0.1 (0.05 to 0.2)" in page
        assert "74.00 %" in page and "lost at most 1.25 points" in page
        assert "1,000" in page
    rows = [line for line in found["MODEL_CARD.md"].splitlines() if line.startswith("| ")]
    assert "| May | 80.00 % (38.00 to 96.00) | 0.1 (0.05 to 0.2) | 5 |" in rows
    assert "MODEL_CARD.md" in found["report.md"]
    assert found["report.html"].count('class="plot"') == 1  # the segments: nothing else was measured


def test_a_card_that_nobody_wrote_says_so(tmp_path: Path) -> None:
    found = pages(released(card=None, figures=()), tmp_path)
    assert "Nobody has said what it is for" in found["MODEL_CARD.md"] and "no labels" in found["MODEL_CARD.md"]
    assert "Nobody has said what it is for" in found["report.html"]
    assert 'class="plot"' not in found["report.html"]


def test_what_callers_know_is_in_the_card(tmp_path: Path) -> None:
    found = pages(released(entities=ENTITIES), tmp_path)
    assert "| line | the letter on its bow | its caller |" in found["MODEL_CARD.md"]
    assert "| built | int32 | boats, by boat; 1990 where it is not known |" in found["MODEL_CARD.md"]
    assert "tides, by pier as of then" in found["report.html"]


def test_a_card_survives_any_words(tmp_path: Path) -> None:
    words = " ".join(NAMES.values())
    strange = released(
        card=Card(words, words, words, (words,), (words,)),
        figures=tuple(replace(f, segment=words) for f in released().figures),
    )
    found = pages(strange, tmp_path)
    assert not steering(found["MODEL_CARD.md"]) and "<script" not in found["report.html"]
    assert "<script" not in found["MODEL_CARD.md"]


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure(ACCURACY, "", 1, 0.5, None, None), "50.00 %"),
        (Figure(BRIER, "", 1, None, 0, 1), "—"),
        (Figure(BRIER, "", 9, 0.08123, 0.08, 0.0825), "0.08123 (0.08 to 0.0825)"),
    ],
)
def test_figures_are_shown_with_the_interval_that_they_have(figure: Figure, text: str) -> None:
    assert card.shown(figure) == text


def test_a_card_says_something_of_everything() -> None:
    for wrong in ({"purpose": " "}, {"limits": ()}, {"not_for": ("",)}, {"data": 3}, {"limits": "text"}):
        with pytest.raises(SpecError, match=f"says nothing of {next(iter(wrong))}"):
            replace(WORDS, **wrong)


def test_a_spec_in_a_file_has_a_card_too(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    text = (
        'model = "net"\ntask = "values"\n[[inputs]]\nname = "x"\ndtype = "float32"\n'
        'shape = [{ name = "batch", min = 1, opt = 2, max = 4 }]\n[[outputs]]\nname = "y"\ndtype = "float32"\n'
        'shape = [{ name = "batch", min = 1, opt = 2, max = 4 }]\n[limits.fp32]\ntolerance = { y = 1.0 }\n'
    )
    spec.write_text(
        f'{text}[card]\npurpose = "It tells boats apart."\ndata = "A hundred boats."\nsplits = "By year."\n'
        'limits = ["Boats at night."]\nnot_for = ["Steering them."]\n'
    )
    assert spec_file.read(spec).card == WORDS
    spec.write_text(f'{text}[card]\npurpose = "It tells boats apart."\nnot_fit = []\n')
    with pytest.raises(SpecError, match=r"\[card\] has no data"):
        spec_file.read(spec)


def test_metrics_beside_the_first_have_their_own_scores() -> None:
    spec = replace(SPEC, also=(metric.SQUARED_ERROR,))
    found = [*figures.of_reference(spec, judged(also={"squared_error": HITS / 2}))]
    assert [(f.metric.name, f.value) for f in found if not f.segment] == [("accuracy", 0.75), ("squared_error", 0.375)]


def test_what_is_no_number_is_no_nan_in_the_manifest() -> None:
    """The area under a curve of one class, and the interval of one sample."""
    yes = ModelSpec(
        "boats", "boats_net", SPEC.inputs, (TensorSpec("y", "float32", (BATCH, 1)),),
        {"fp32": Limits({"y": 0.1}, agreement=0.9)}, task="binary", also=(metric.BRIER,),
    )  # fmt: skip
    scores, true = np.array([0.2, 0.9, 0.4]), np.array([0, 1, 1])
    segments = {"May": slice(0, 2), "June": slice(2, 3)}
    found = [*figures.of_reference(yes, Judged(None, scores, [true], {"brier": (scores - true) ** 2}, segments))]
    assert [(f.metric.name, f.segment, f.value is None) for f in found if f.segment == "June"] == [
        ("auc", "June", True),
        ("brier", "June", False),
    ]
    assert [f.low for f in found if f.segment == "June"] == [None, None]
    text = manifest.text(released(figures=tuple(found)))
    assert json.loads(text, parse_constant=pytest.fail)["figures"][0]["value"] == 1.0


def test_what_was_measured_of_further_metrics_is_kept(tmp_path: Path) -> None:
    kept = Comparison(None, HITS, {}, 0, 8, 0, 0.0, {"brier": HITS / 2})
    measure._save({measure.HELD_OUT: kept}, tmp_path)
    assert np.array_equal(measure._load(tmp_path)[measure.HELD_OUT].also["brier"], HITS / 2)
