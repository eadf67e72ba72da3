"""The search ends with the best recipe that passes, or says honestly which layers cost the accuracy."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.manifest import Recipe
from contracts.spec import Limits, Precision
from export.context import ExportContext
from export.errors import GraphError
from export.precision import int8, search
from export.precision.search import Mode, SearchResult
from export.source.base import ExportSource


@pytest.fixture
def run(
    fashion: ExportSource,
    graphs_of_fashion: dict[Precision, Path],
    context_of: Callable[..., ExportContext],
    quantized: Callable[..., Path],
    tmp_path: Path,
) -> Callable[..., SearchResult]:
    def search_with(
        mode: Mode, budget_s: float = 120, dark: bool = False, broken: str | None = None, **limits: float
    ) -> SearchResult:
        """`dark`: calibrated on black images, so that every recipe starts out bad. `broken`: a quantizer's prefix."""
        asked = Limits({"logits": 1e9, "probabilities": 1.0}, **{"agreement": 0.9, "computed_share": 0.0, **limits})
        split = fashion.search.first(200)
        spec = dataclasses.replace(fashion.spec, limits={**fashion.spec.limits, "int8": asked})
        smaller = dataclasses.replace(fashion, spec=spec, search=split)
        export = context_of(smaller)

        def graph_of(recipe: Recipe) -> Path:
            if broken is not None and recipe.quantizer.startswith(broken):
                raise GraphError(f"{recipe.quantizer} does not know this graph")
            return quantized(recipe, dark=dark)

        context = search.TrialContext(
            spec, split, export.reference["search"], export.judged("search"), len(fashion.calibration), graph_of
        )
        return search.search(
            context,
            graphs_of_fashion["fp32"],
            tmp_path / "best.onnx",
            mode=mode,
            budget_s=budget_s,
            report=lambda _: None,
        )

    return search_with


def test_the_first_recipe_is_taken_if_it_passes(run: Callable[..., SearchResult]) -> None:
    found = run("auto")
    assert found.passed
    assert [trial.recipe for trial in found.trials] == [Recipe("modelopt", "entropy", 128)] == [found.recipe]
    assert len(found.sensitivity) == 9, "every layer that was quantized, and none that was not"
    errors = [layer.error for layer in found.sensitivity]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0


def test_never_searching_takes_the_first_recipe_as_it_is(run: Callable[..., SearchResult]) -> None:
    found = run("never", agreement=1.01)
    assert not found.passed and len(found.trials) == 1 and not found.sensitivity


def test_comparing_all_recipes_ends_with_the_one_of_the_smallest_error(run: Callable[..., SearchResult]) -> None:
    found = run("always")
    tried = {(trial.recipe.quantizer, trial.recipe.method, trial.recipe.samples) for trial in found.trials}
    assert tried == {(*method, samples) for method in int8.METHODS for samples in (128, 32)}
    passing = [trial for trial in found.trials if trial.passed]
    assert found.recipe == min(passing, key=lambda trial: trial.error).recipe


def test_layers_are_left_out_until_the_limit_is_reached_and_no_more(
    run: Callable[..., SearchResult], tmp_path: Path
) -> None:
    found = run("auto", dark=True, agreement=0.97)
    assert found.passed and found.recipe.left_out
    assert found.recipe.left_out == tuple(x.name for x in found.sensitivity[: len(found.recipe.left_out)]), (
        "worst first"
    )
    fewer = [t for t in found.trials if t.recipe.left_out and len(t.recipe.left_out) < len(found.recipe.left_out)]
    assert not any(trial.passed for trial in fewer)
    assert (tmp_path / "best.onnx").exists()


def test_a_search_that_fails_names_the_layers_that_cost_most(run: Callable[..., SearchResult]) -> None:
    found = run("auto", dark=True, agreement=0.97, computed_share=1.0)
    assert not found.passed
    assert found.summary.startswith("none of 4 recipes reaches the limits")
    assert f"the layers that cost most: {found.sensitivity[0].name}" in found.summary


def test_nothing_new_is_tried_when_the_budget_is_spent(run: Callable[..., SearchResult]) -> None:
    found = run("always", budget_s=0.0)
    assert len(found.trials) == 1, "there has to be one"
    assert found.summary.endswith("the time budget is spent")


def test_a_quantizer_that_fails_costs_its_recipe_and_not_the_search(run: Callable[..., SearchResult]) -> None:
    found = run("auto", broken="modelopt")
    assert found.passed and found.recipe.quantizer == "onnxruntime"
    first = found.trials[0]
    assert [gate.name for gate in first.gates if not gate.passed] == ["quantized"]
    with pytest.raises(GraphError, match="no quantizer could quantize"):
        run("auto", broken="")


def test_a_trial_is_judged_on_the_search_split(run: Callable[..., SearchResult]) -> None:
    [gate] = [g for g in run("never", drop=50.0).trials[0].gates if g.name.startswith("accuracy drop")]
    assert gate.detail.endswith("of 200")


def test_recipes_are_told_apart_by_what_they_left_out() -> None:
    recipe = Recipe("modelopt", "max", 64)
    assert str(recipe) == "modelopt max, 64 samples"
    assert str(dataclasses.replace(recipe, left_out=("a",))) == "modelopt max, 64 samples, 1 layer left in FP32"
