"""How far a graph or an engine is from the reference: on the held-out split, and at the ends of the dimensions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from contracts import manifest
from contracts.manifest import Difference
from contracts.samples import Split
from contracts.spec import Precision
from export import graphs
from export.context import ENDS, ExportContext
from export.precision import fp16
from export.proof.compare import Comparison, compare
from export.proof.runners import Runner, memory_runner, onnx_runner, predict

HELD_OUT = "held-out split"


def runner(context: ExportContext, precision: Precision, graph: Path) -> Runner:
    """Open the graph of a variant in onnxruntime: BF16, which it does not run, as it will be rounded on a GPU."""
    if precision == "bf16":
        return _rounded(context, graph, fused=True)
    return onnx_runner(graph, context.outputs, fused=precision != "fp8")


def of_graph(
    context: ExportContext, precision: Precision, graph: Path, advance: Callable[[int], None]
) -> tuple[dict[str, Comparison], bool]:
    """Compare a graph with the reference: {where: …}, and whether it was known before.

    FP16 is run as it will be rounded on a GPU; as onnxruntime runs it on a CPU, it is compared at the ends. BF16 it
    does not run at all.
    """
    source = context.source

    def make(place: Path) -> None:
        served = runner(context, precision, graph)
        run = _rounded(context, graph, fused=True) if precision == "fp16" else served
        found = {HELD_OUT: of_runner(context, run, "held-out", source.held_out, advance)}
        for end in ENDS:
            found[_at(end)] = of_runner(context, served, end, source.inputs_at(end))
        _save(found, place)

    place, cached = context.cache.step(
        "proof", make, graph=manifest.sha256(graph), data=context.data, precision=precision,
        metric=source.spec.metrics,
    )  # fmt: skip
    return _load(place), cached


def of_rounded_graph(context: ExportContext, graph: Path) -> Comparison:
    """Compare a graph with FP16 in it, run as it will be rounded on a GPU, with the reference on the held-out split."""
    source = context.source

    def make(place: Path) -> None:
        run = _rounded(context, graph, fused=False)
        _save({HELD_OUT: of_runner(context, run, "held-out", source.held_out)}, place)

    place, _ = context.cache.step(
        "rounded", make, graph=manifest.sha256(graph), data=context.data, metric=source.spec.metrics
    )
    return _load(place)[HELD_OUT]


def of_plan(context: ExportContext, run: Runner, advance: Callable[[int], None]) -> dict[str, Comparison]:
    """Compare a plan that runs here with the reference: {where: …}."""
    source = context.source
    found = {HELD_OUT: of_runner(context, run, "held-out", source.held_out, advance)}
    return found | {_at(end): of_runner(context, run, end, source.inputs_at(end)) for end in ENDS}


def of_runner(
    context: ExportContext, run: Runner, name: str, split: Split, advance: Callable[[int], None] = lambda n: None
) -> Comparison:
    """Compare what anything answers on a split with the reference's answers to it.

    Args:
        name: The split's, as the context has the reference's outputs.
        advance: Is told of every batch done.
    """
    spec = context.source.spec
    outputs = predict(run, split, spec.max_batch, advance)
    return compare(outputs, context.reference[name], spec, split.targets)


def _rounded(context: ExportContext, graph: Path, *, fused: bool) -> Runner:
    return memory_runner(fp16.simulate_fp16(graphs.load(graph)), context.outputs, fused=fused)


def _at(end: str) -> str:
    return f"shapes at their {end}"


def _save(found: Mapping[str, Comparison], place: Path) -> None:
    arrays = {f"answers/{where}": c.answers for where, c in found.items() if c.answers is not None}
    arrays |= {f"scores/{where}": c.scores for where, c in found.items() if c.scores is not None}
    arrays |= {f"also {name}/{where}": scores for where, c in found.items() for name, scores in c.also.items()}
    np.savez_compressed(place / "answers.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub: allow_pickle
    figures = {where: asdict(replace(c, answers=None, scores=None, also={})) for where, c in found.items()}
    (place / "comparison.json").write_text(json.dumps(figures))


def _load(place: Path) -> dict[str, Comparison]:
    arrays = dict(np.load(place / "answers.npz"))
    figures = json.loads((place / "comparison.json").read_text())
    return {
        where: Comparison(
            **{
                **raw,
                "answers": arrays.get(f"answers/{where}"),
                "scores": arrays.get(f"scores/{where}"),
                "also": {
                    kind.removeprefix("also "): scores
                    for key, scores in arrays.items()
                    for kind, _, place in [key.partition("/")]
                    if kind.startswith("also ") and place == where
                },
                "differences": {output: Difference(**d) for output, d in raw["differences"].items()},
            }
        )
        for where, raw in figures.items()
    }
