"""The release report shows everything that is known, and is there when some of it is not."""

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from cli.terminal import plain
from contracts.manifest import Choice, Engine, Gate, Judge, Layer, Manifest, Recipe, Source, Timing, Trial, Variant
from contracts.samples import Split
from contracts.spec import ModelSpec
from export import report
from export.report import Evidence, plots
from tests.hostile_names import NAMES, steering
from training import families

FASHION = families.spec("fashion")
RECIPE = Recipe("modelopt", "entropy", 512, ("network.stem.conv", "network.stage1.block1.conv"))
DROP = "accuracy drop, points (upper 95 % bound)"


def timing(median_ms: float, worth_it: Gate | None = None) -> Timing:
    sizes = {1: 0.3, 16: 1.0, 64: 3.4}
    return Timing(
        {str(n): median_ms * share for n, share in sizes.items()},
        {str(n): median_ms * share * 1.6 for n, share in sizes.items()},
        {str(n): n / (median_ms * share) * 1000 for n, share in sizes.items()},
        worth_it,
    )


def gates(drop: float, agreement: float) -> tuple[Gate, ...]:
    return (
        Gate(DROP, drop, 0.5, "at most"),
        Gate("agreement", agreement, 0.97, "at least"),
        Gate("largest difference of logits", 1.625, 4, "at most"),
        Gate("inf or nan", 0, 0, "at most", "logits, probabilities"),
    )


def trial(recipe: Recipe, drop: float, error: float) -> Trial:
    return Trial(recipe, gates(drop, 0.99 - error / 10)[:2], error, 12.5)


ENGINE = Engine("tensorrt_rtx 1.7.1.116", 1_200_000, 2.1, {"HALF": 1.0})
ON_GPU = Engine(
    "tensorrt 11.1.0.106", 700_000, 31.5, {"INT8": 0.9, "HALF": 0.1}, "13.0", "580.65", "9.0", True, gates(0.21, 0.991)
)
RELEASE = Manifest(
    family="fashion",
    model="fashion_classifier",
    version=3,
    created_at="2026-01-02T03:04:05+00:00",
    command="python -m export fashion --checkpoint best.ckpt",
    source=Source("best.ckpt", "5e" * 32, "d1" * 16, "0123abcd", "c0ffee" * 6, True),
    tools={"torch": "2.13.0", "onnxruntime": "1.24.4"},
    calibration_samples=512,
    test_samples=2000,
    reference_score=0.9265,
    gates=(Gate("tensors unlike the configuration's", 0, 0, "at most"),),
    variants=(
        Variant("fp32", 0.9265, gates(0.02, 1.0), 4_900_000, "aa", ENGINE, {"model.onnx": timing(4.1)}),
        Variant("fp16", 0.9260, gates(0.11, 0.9985), 2_450_000, "bb", ENGINE, {"model.onnx": timing(3.9)}),
        Variant("int8", 0.9235, gates(0.48, 0.984), 1_300_000, "cc", ON_GPU, {"model.onnx": timing(1.7)}, RECIPE),
    ),
    trials=(
        trial(Recipe("onnxruntime", "entropy", 512), 0.9, 0.11),
        trial(Recipe("modelopt", "max", 512), 0.7, 0.092),
        trial(RECIPE, 0.4, 0.05),
    ),
    sensitivity=(
        Layer("network.stem.conv", 0.11),
        *(Layer(f"network.stage{n // 4}.block{n % 4}.conv", 0.08 / n) for n in range(1, 40)),
    ),
    choices=(Choice("model.onnx", "int8", "59 % faster than fp16, and within its limits"),),
    files=(),
    metric=Judge("accuracy"),
)


@cache
def held_out() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    [test] = families.load("fashion").data().split("test").groups
    assert test.targets is not None
    return test.inputs["pixels"][:2000], test.targets[:2000]


def changed(answers: NDArray[np.int64], every: int) -> NDArray[np.int64]:
    """The same answers but for one in `every`."""
    other = answers.copy()
    other[::every] = (other[::every] + 1) % 10
    return other


@pytest.fixture
def evidence() -> Evidence:
    """Real images; a reference wrong on one in 14, and variants that differ from it now and then."""
    images, labels = held_out()
    reference = changed(labels, 14)
    answers = {"fp32": reference, "fp16": changed(reference, 667), "int8": changed(reference, 60)}
    return Evidence(Split.of({"pixels": images}), labels, reference, answers)


def written(release: Manifest, spec: ModelSpec, evidence: Evidence, directory: Path) -> tuple[str, str]:
    report.write(release, spec, evidence, directory)
    return (directory / "report.html").read_text(), (directory / "report.md").read_text()


def test_the_page_needs_nothing_but_itself(evidence: Evidence, tmp_path: Path) -> None:
    html, _ = written(RELEASE, FASHION, evidence, tmp_path)
    assert all(url.startswith("data:image/") for url in re.findall(r'src="([^"]*)"', html))
    assert not re.search(r"<script|<link|@import|https?://", html)
    assert len(html) < 3_000_000


def test_the_page_shows_everything_that_is_known(evidence: Evidence, tmp_path: Path) -> None:
    html, markdown = written(RELEASE, FASHION, evidence, tmp_path)
    for variant in RELEASE.variants:
        assert all(gate.name in html for gate in variant.gates)
    facts = (
        "-m export fashion",
        "5e5e",
        "d1d1",
        "0123abcd",
        "c0ffee",
        "not committed",
        "580.65",
        "90 % INT8",
        "512 samples",
    )
    assert all(fact in html for fact in facts)
    assert "Ankle boot" in html
    assert "59 % faster" in html and "59 % faster" in markdown
    assert html.count('class="plot"') == 4


def test_the_same_release_gives_the_same_bytes(evidence: Evidence, tmp_path: Path) -> None:
    assert written(RELEASE, FASHION, evidence, tmp_path) == written(RELEASE, FASHION, evidence, tmp_path)


def test_a_refused_variant_is_named_with_the_gate_that_failed(evidence: Evidence, tmp_path: Path) -> None:
    refused = replace(RELEASE.variants[2], gates=gates(1.3, 0.984), engine=None, timings={})
    release = replace(RELEASE, variants=(*RELEASE.variants[:2], refused), choices=())
    html, markdown = written(release, FASHION, evidence, tmp_path)
    assert "✗ int8 was refused" in html
    assert f"✗ **int8 failed:** {DROP} 1.3 (limit: at most 0.5)" in markdown
    assert "nothing is served" in markdown


def test_nothing_says_that_every_gate_was_passed_above_one_that_was_not(evidence: Evidence, tmp_path: Path) -> None:
    refused = replace(RELEASE.variants[1], gates=gates(1.3, 0.984), timings={})
    html, _ = written(replace(RELEASE, variants=(*RELEASE.variants[::2], refused)), FASHION, evidence, tmp_path)
    assert "2 of 3 variants hold the limits" in html and "banner good" not in html and "every gate." not in html
    html, _ = written(RELEASE, FASHION, evidence, tmp_path)
    assert "✓ Every variant holds the limits of the spec" in html and "banner bad" not in html


def test_what_is_not_worth_it_is_no_failure(evidence: Evidence, tmp_path: Path) -> None:
    """A lower precision that is not faster is not served, and nothing is wrong with it."""
    slow = Gate("model.onnx: share of fp32's time", 0.97, 0.9, "at most", id="worth_it")
    variant = replace(RELEASE.variants[1], timings={"model.onnx": timing(3.9, slow)})
    html, _ = written(replace(RELEASE, variants=(RELEASE.variants[0], variant)), FASHION, evidence, tmp_path)
    assert "not faster by enough to be served" in html and "did not hold" not in html


def test_a_cpus_latencies_of_what_is_for_gpus_are_grey(evidence: Evidence, tmp_path: Path) -> None:
    html, markdown = written(RELEASE, FASHION, evidence, tmp_path)
    assert "<strong>GPU: not measured.</strong>" in html and "**GPU: not measured:**" in markdown
    greys = re.findall(r'class="number( grey)?">[\d.]+ ms<small>p99', html)
    assert greys == ["", " grey", " grey"], "FP32 is what a CPU serves anyway"
    timings = {**RELEASE.variants[2].timings, "model.sm90.plan": timing(0.2)}
    on_gpu = replace(RELEASE, variants=(*RELEASE.variants[:2], replace(RELEASE.variants[2], timings=timings)))
    html, markdown = written(on_gpu, FASHION, evidence, tmp_path)
    assert "not measured" not in html and "not measured" not in markdown


def test_a_percentile_far_from_its_median_is_explained(evidence: Evidence, tmp_path: Path) -> None:
    told = "batch 1: 3 of 100 calls took over 10 × the median, in 2 of 20 turns: other work on the machine"
    noisy = replace(RELEASE.variants[0], timings={"model.onnx": replace(timing(4.1), disturbed=told)})
    for text in written(replace(RELEASE, variants=(noisy,)), FASHION, evidence, tmp_path):
        assert f"fp32, model.onnx, {told}; measured again, with the same result" in text


def test_what_the_samples_do_not_show_is_on_top(evidence: Evidence, tmp_path: Path) -> None:
    for text in written(replace(RELEASE, warnings=("every label is 'Bag'",)), FASHION, evidence, tmp_path):
        assert "every label is" in text


@pytest.mark.parametrize(
    ("latencies", "shares", "ties"),
    [
        (((1.0, 0.9, 1.1), (1.05, 1.0, 1.2)), ((0.92, 0.91), (0.915, 0.905)), 1),
        (((1.0, 0.9, 1.1), (1.5, 1.4, 1.6)), ((0.92, 0.91), (0.915, 0.905)), 0),  # slower
        (((1.0, 0.9, 1.1), (1.05, 1.0, 1.2)), ((0.92, 0.919), (0.8, 0.79)), 0),  # worse
        (((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)), ((0.92, 0.92), (0.92, 0.92)), 1),  # the very same
    ],
)
def test_variants_whose_intervals_overlap_both_ways_are_a_tie(
    latencies: tuple[tuple[float, float, float], ...], shares: tuple[tuple[float, float], ...], ties: int
) -> None:
    points = [
        plots.Point(precision, ms, share, low, False, (first, last))  # type: ignore[arg-type]  # a precision
        for precision, (ms, first, last), (share, low) in zip(("fp32", "fp16"), latencies, shares, strict=True)
    ]
    url = plots.pareto({"model.onnx": points}, "accuracy", "16", None)
    svg = base64.b64decode(url.partition(",")[2]).decode()
    assert svg.count("a tie with") == 2 * ties


def test_an_engine_that_was_refused_is_not_taken_for_its_graph(evidence: Evidence, tmp_path: Path) -> None:
    variant = replace(RELEASE.variants[2], engine=replace(ON_GPU, gates=gates(0.9, 0.991)))
    html, markdown = written(replace(RELEASE, variants=(variant,)), FASHION, evidence, tmp_path)
    assert "✗ int8: its engine was refused" in html and "engine refused</small>" in html
    assert f"✗ **int8 failed:** {DROP} 0.9" in markdown


def test_figures_that_are_no_numbers_are_shown(evidence: Evidence, tmp_path: Path) -> None:
    """A recipe may overflow, and the report must still say so."""
    broken = (replace(RELEASE.trials[0], error=float("inf")), replace(RELEASE.trials[1], error=float("nan")))
    release = replace(RELEASE, trials=broken, sensitivity=(Layer("stem", float("inf")), Layer("head", 0.1)))
    html, _ = written(release, FASHION, evidence, tmp_path)
    assert '<td class="number">inf<' in html and '<td class="number">nan<' in html


def test_what_was_lost_comes_before_what_was_gained(tmp_path: Path) -> None:
    images, labels = held_out()
    reference, answers = labels[:6].copy(), labels[:6].copy()
    reference[[0, 2]] = (labels[[0, 2]] + 1) % 10  # sample 0: wrong, then right
    answers[2] = (labels[2] + 2) % 10  # sample 2: wrong twice, differently
    answers[4] = (labels[4] + 1) % 10  # sample 4: right, then wrong
    html, _ = written(
        RELEASE, FASHION, Evidence(Split.of({"pixels": images[:6]}), labels[:6], reference, {"int8": answers}), tmp_path
    )
    assert re.findall(r'alt="sample (\d)"', html) == ["4", "0", "2"]
    assert "right → wrong: 1, wrong → right: 1, wrong → wrong: 1" in html


def test_sequences_are_shown_as_the_text_they_spell(tmp_path: Path) -> None:
    logits, others = FASHION.outputs[0], FASHION.outputs[1:]
    steps = replace(logits, shape=(logits.shape[0], 3, 4))
    spec = replace(FASHION, task="ctc", labels=("", *"abc"), outputs=(steps, *others))
    reference, answers = np.array([[1, 2, -1], [3, -1, -1]]), np.array([[1, 2, 3], [3, -1, -1]])
    lines = Split.of({"pixels": np.random.default_rng(0).normal(size=(2, 3, 32, 128)).astype(np.float32)})
    html, _ = written(RELEASE, spec, Evidence(lines, reference, reference, {"fp16": answers}), tmp_path)
    assert re.findall(r">(.)</dt><dd>(\w+)</dd>", html) == [("✓", "ab"), ("✗", "abc")]
    assert "Change per class" not in html


def test_names_are_text_and_never_markup(evidence: Evidence, tmp_path: Path) -> None:
    spec = replace(FASHION, labels=tuple(f"<b>{n}" for n in range(10)))
    html, _ = written(replace(RELEASE, model="<script>"), spec, evidence, tmp_path)
    assert "<script>" not in html and "<b>" not in html


class Parts(HTMLParser):
    """The tags of a page with their attributes' names, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text = set[str](), ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags |= {tag, *(f"{tag} {name}" for name, _ in attrs)}

    def handle_data(self, data: str) -> None:
        self.text += data


def named(names: Sequence[str]) -> tuple[Manifest, ModelSpec]:
    """The release and its spec, in which all that comes from a file is called so."""
    gates = tuple(Gate(name, 3.0, 2.0, "at most", name) for name in names)
    release = replace(
        RELEASE,
        command=" ".join(names),
        source=replace(RELEASE.source, file=" ".join(names)),
        gates=gates,
        variants=tuple(replace(v, gates=(*v.gates, *gates)) for v in RELEASE.variants),
        sensitivity=tuple(Layer(name, 0.1 / n) for n, name in enumerate(names, start=1)),
        choices=(Choice("model.onnx", "int8", " ".join(names)),),
    )
    half = len(names) // 2  # ten classes have as many names
    labels = tuple(f"{names[n]} {names[n + half]} {n}" for n in range(10))
    return release, replace(FASHION, labels=labels)


def test_a_report_survives_any_name(evidence: Evidence, tmp_path: Path) -> None:
    html, markdown = written(*named([*NAMES.values()]), evidence, tmp_path)
    plainly, _ = written(*named([f"name {n}" for n in range(len(NAMES))]), evidence, tmp_path)
    assert not steering(html) and not steering(markdown)
    assert Parts(html).tags == Parts(plainly).tags
    told = " ".join(Parts(html).text.split())
    assert [name for name, text in NAMES.items() if " ".join(plain(text).split()) not in told] == []
    pictures = re.findall(r"data:image/svg\+xml;base64,([^\"]*)", html)
    assert len(pictures) == 4
    for picture in pictures:
        ElementTree.fromstring(base64.b64decode(picture))
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(RELEASE.variants)
    assert not re.search(r"<\w|(?<!\\)\[|^# heading", markdown, re.MULTILINE)


def test_a_network_without_answers_labels_or_timings_has_a_report(tmp_path: Path) -> None:
    bare = Variant("fp32", None, (Gate("largest difference of embedding", 1e-4, 1e-3, "at most"),), 7, "aa")
    release = replace(
        RELEASE,
        source=Source("model.onnx", "00", "11", None, None, None),
        reference_score=None,
        gates=(),
        variants=(bare,),
        trials=(),
        sensitivity=(),
        choices=(Choice("model.onnx", "fp32", "the only one"),),
    )
    spec = replace(FASHION, task="values", labels=())
    html, markdown = written(release, spec, Evidence(Split.of({"tokens": np.zeros((3, 8))}), None, None, {}), tmp_path)
    assert "No engine was built" in html and "not labelled" in markdown
    assert "<figure" not in html
    release, spec = replace(release, metric=None, task="values"), replace(spec, metric=None)
    html, markdown = written(release, spec, Evidence(Split.of({"tokens": np.zeros((3, 8))}), None, None, {}), tmp_path)
    assert "only numbers are compared" in html and "only numbers are compared" in markdown
    assert "Agreement" not in html and "agreement" not in markdown and "— |" not in markdown
    assert [*re.findall('<h2 id="(.*?)"', html)] == ["card", "gates", "source"], "no section is empty"


def test_unlabelled_answers_that_flip_are_shown_by_number(tmp_path: Path) -> None:
    release = replace(RELEASE, reference_score=None, variants=tuple(replace(v, score=None) for v in RELEASE.variants))
    spec = replace(FASHION, labels=())
    answers = np.arange(50) % 10
    evidence = Evidence(Split.of({"rows": np.zeros((50, 4))}), None, answers, {"int8": changed(answers, 10)})
    html, _ = written(release, spec, evidence, tmp_path)
    assert "answers 5 of" in html and "right → wrong" not in html
    assert html.count('class="plot"') == 3  # agreement against latency, the search, the layers
