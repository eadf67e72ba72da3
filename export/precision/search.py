"""The search for an INT8 recipe that reaches the limits: method, number of samples, layers left in FP32.

Recipes are compared on the search split. Layers are left out worst first, by what each costs when it alone is
quantized. The search ends with the best recipe that passes, or with the best there is and the layers to blame.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx
from onnx import ModelProto

from contracts.manifest import Gate, Layer, Recipe, Trial
from contracts.samples import Batch, Split
from contracts.spec import ModelSpec, Precision
from export import graphs
from export.errors import GraphError
from export.precision import int8
from export.proof import gates
from export.proof.compare import compare
from export.proof.gates import Judged
from export.proof.runners import Runner, memory_runner, predict

Mode = Literal["auto", "always", "never"]

# Enough to rank layers by; their errors differ by factors, not percents.
_RANKING_SAMPLES = 32
# How much of the time budget may be spent when the methods, and when the layers, have been compared.
_METHODS_SHARE, _RANKING_SHARE = 0.4, 0.75
# Methods are also compared with this share of the samples: fewer outliers can be better, and say if more would help.
_FEWER = 0.25


@dataclass(frozen=True)
class SearchResult:
    """The recipe that a search ended with. The graph is where the caller said."""

    recipe: Recipe
    passed: bool
    trials: tuple[Trial, ...]
    sensitivity: tuple[Layer, ...]  # worst first
    summary: str  # how the search ended and why, for people
    complete: bool  # False: the time was spent before everything was tried


@dataclass(frozen=True)
class TrialContext:
    """What recipes are tried on: the spec and its limits, the search split, and the reference's outputs on it."""

    spec: ModelSpec
    split: Split
    reference: Sequence[Batch]  # its outputs on the split
    judged: Judged  # the split as the reference answers it
    samples: int  # that there are to calibrate with
    quantized: Callable[[Recipe], Path]  # a graph with every heavy layer quantized, made once
    precision: Precision = "int8"  # or "fp8"

    def judge(self, model: ModelProto, recipe: Recipe, started: float) -> Trial:
        """Hold `model`, made by `recipe`, to the limits on the whole split.

        Args:
            started: When its making began, by time.monotonic().
        """
        outputs = predict(self._runner(model), self.split, self.spec.max_batch)
        found = compare(outputs, self.reference, self.spec, self.split.targets)
        proofs = gates.check(self.spec, self.precision, self.judged, found)
        return Trial(recipe, proofs, round(found.error, 6), round(time.monotonic() - started, 2))

    def measure_error(self, model: ModelProto, samples: int) -> float:
        """Return the error of `model`, as a Trial has it, on the first `samples` of the split."""
        group, reference = self.split.groups[0].take(slice(samples)), self.reference[0]
        outputs = predict(self._runner(model), Split((group,)), self.spec.max_batch)
        if self.spec.batched:
            return compare(outputs, [{n: v[:samples] for n, v in reference.items()}], self.spec).error
        return compare(outputs, self.reference[: len(outputs)], self.spec).error

    def _runner(self, model: ModelProto) -> Runner:
        outputs = [tensor.name for tensor in self.spec.outputs]
        return memory_runner(model, outputs, fused=self.precision == "int8")


def search(
    context: TrialContext, fp32: Path, int8_path: Path, *, mode: Mode, budget_s: float, report: Callable[[str], None]
) -> SearchResult:
    """Write the best INT8 or FP8 graph of `fp32` to `int8_path`.

    Args:
        mode: "never" takes the first recipe as it is; "auto" searches if that fails; "always" compares all.
        budget_s: No new recipe is tried after that long.
        report: Is told what is being tried.

    Raises:
        GraphError: no quantizer could quantize it.
    """
    started = time.monotonic()
    model = graphs.load(fp32)
    models: dict[Recipe, ModelProto] = {}
    trials: list[Trial] = []

    def left(share: float) -> bool:
        """Tell whether less than that share of the budget is spent."""
        return time.monotonic() - started < share * budget_s

    def attempt(recipe: Recipe, make: Callable[[], ModelProto]) -> Trial:
        report(str(recipe))
        begun = time.monotonic()
        try:
            made = make()
            trials.append(context.judge(made, recipe, begun))
            models[recipe] = made
        except (
            GraphError
        ) as error:  # one quantizer does not know the graph, or makes one that does not run; another may
            failed = Gate("quantized", 0, 1, "at least", str(error), id="quantized")
            trials.append(Trial(recipe, (failed,), 1.0, round(time.monotonic() - begun, 2)))
        return trials[-1]

    for recipe in _recipes(context, mode):
        if trials and (mode == "never" or (mode == "auto" and trials[-1].passed) or not left(_METHODS_SHARE)):
            break
        attempt(recipe, lambda recipe=recipe: onnx.load(context.quantized(recipe)))  # type: ignore[misc]
    best = min(trials, key=_rank)
    if best.recipe not in models:
        raise GraphError(f"no quantizer could quantize {fp32.name}", note=gates.failures(best.gates))
    sensitivity: tuple[Layer, ...] = ()
    if mode != "never":
        sensitivity = _sensitivity(context, models[best.recipe], model, lambda: left(_RANKING_SHARE), report)
    if not best.passed and mode != "never":
        _leave_out(context, best, models[best.recipe], model, sensitivity, attempt, lambda: left(1))
        best = min(trials, key=_rank)
    onnx.save(models[best.recipe], int8_path)
    in_time = left(1)
    ending = _ending(best, trials, sensitivity, in_time)
    return SearchResult(best.recipe, best.passed, tuple(trials), sensitivity, ending, in_time)


def worst_layers(sensitivity: Sequence[Layer], count: int = 5) -> str:
    """Name the layers that cost most, for people: "conv1 (3.2%), …"."""
    return ", ".join(f"{layer.name} ({layer.error:.1%})" for layer in sensitivity[:count])


def _rank(trial: Trial) -> tuple[bool, int, float]:
    return not trial.passed, len(trial.recipe.left_out) if trial.passed else 0, trial.error


def _recipes(context: TrialContext, mode: Mode) -> Iterator[Recipe]:
    """Yield every method with all samples; where all are compared, with fewer too."""
    for share in (1.0, _FEWER) if mode == "always" else (1.0,):
        for quantizer, method in int8.METHODS if context.precision == "int8" else int8.FP8_METHODS:
            samples = max(1, int(context.samples * share))
            yield Recipe(quantizer, method, samples, precision=context.precision)


def _sensitivity(
    context: TrialContext,
    quantized: ModelProto,
    model: ModelProto,
    left: Callable[[], bool],
    report: Callable[[str], None],
) -> tuple[Layer, ...]:
    """Measure what each layer costs when it alone is quantized, worst first."""
    names = int8.quantized_layers(quantized)
    layers = []
    for index, name in enumerate(names):
        if not left():
            break
        report(f"sensitivity of layer {index + 1} of {len(names)}")
        alone = int8.leave_out(quantized, model, set(names) - {name})
        layers.append(Layer(name, round(context.measure_error(alone, _RANKING_SAMPLES), 6)))
    return tuple(sorted(layers, key=lambda layer: -layer.error))


def _leave_out(
    context: TrialContext,
    best: Trial,
    quantized: ModelProto,
    model: ModelProto,
    sensitivity: Sequence[Layer],
    attempt: Callable[[Recipe, Callable[[], ModelProto]], Trial],
    left: Callable[[], bool],
) -> None:
    """Leave out as many of the worst layers as the spec admits; if that passes, halve the way to as few as do."""
    share = context.spec.limits[context.precision].computed_share
    needed = math.ceil(len(graphs.heavy_nodes(model)) * share - 1e-9)
    most = min(len(int8.quantized_layers(quantized)) - needed, len(sensitivity))
    failed, count = 0, most
    while count > failed and left():
        names = tuple(layer.name for layer in sensitivity[:count])
        recipe = replace(best.recipe, left_out=names)
        passed = attempt(recipe, lambda names=names: int8.leave_out(quantized, model, names)).passed  # type: ignore[misc]
        if passed:
            enough = count
        elif count == most:
            return
        else:
            failed = count
        count = (failed + enough) // 2


def _ending(best: Trial, trials: Sequence[Trial], sensitivity: Sequence[Layer], in_time: bool) -> str:
    late = "" if in_time else ", the time budget is spent"
    if best.passed:
        return f"{best.recipe}; {len(trials)} tried{late}"
    blamed = f"; the layers that cost most: {worst_layers(sensitivity)}" if sensitivity else ""
    return f"none of {len(trials)} recipes reaches the limits{late}; the best is {best.recipe}{blamed}"
