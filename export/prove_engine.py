"""An engine through its gates: the graph that TensorRT is given, what it compiles, and on a GPU what a plan answers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from contracts import manifest
from contracts.manifest import Engine, Gate
from contracts.spec import Precision
from export import graphs, measure, steps
from export.context import ExportContext
from export.errors import CompileError, GraphError
from export.precision import not_quantized
from export.proof import contract, engine, gates, plans
from export.proof.layers import inspected_share
from export.proof.plan_runner import PlanRunner

_DTYPES: Mapping[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "fp8": "FP8", "int8": "INT8"}

_NAMED = 5  # layers, where a limit is missed
_QUANTIZED: frozenset[Precision] = frozenset({"int8", "fp8"})


@dataclass(frozen=True)
class ProvenEngine:
    """What TensorRT made of a graph, and what was proven of it."""

    gates: tuple[Gate, ...]  # of the graph as TensorRT takes it; the plan's own are in the facts
    facts: Engine | None = None  # None: it was not compiled
    plan: Path | None = None  # None unless plans are built for a GPU here, and this one passed


def prove_engine(context: ExportContext, precision: Precision, graph: Path) -> ProvenEngine:
    """Have TensorRT compile the `graph` of a variant; on a GPU, prove the plan as well."""
    spec, options = context.source.spec, context.request.engines
    with context.progress.step(f"{precision} engine") as done:
        given = _given_to_tensorrt(context, precision, graph)
        try:
            place, facts, io_tensors, cached = _compiled(context, given)
        except CompileError as error:
            hint = "what TensorRT does not take, ONNX Runtime may serve, on a CPU: tensorrt = false in the spec"
            done(f"REFUSED: {error}")
            refused = Gate("compiled by TensorRT", 0, 1, "at least", f"{error}\nHint: {hint}", id="compiled")
            return ProvenEngine((refused,))
        if given != graph:
            facts = replace(facts, graph_sha256=manifest.sha256(given))
        limit, told = spec.limits[precision].computed_share, _shares(facts.dtype_share)
        if precision in _QUANTIZED and _part(facts.dtype_share, precision) < limit:
            told = "; ".join([told, *not_quantized.reasons(graphs.load(graph))[:_NAMED]])
        added = (
            contract.engine_gate(io_tensors, spec),
            Gate(f"computed in {_DTYPES[precision]}", _part(facts.dtype_share, precision), limit, "at least", told,
                 id="computed_share"),
        )  # fmt: skip
        verdict = gates.verdict(added) or f"the network's layers {told}"
        done(f"{facts.library}: {facts.size_bytes / 1e6:.2f} MB, {verdict}", cached=cached)
    if options.library == "tensorrt_rtx" or gates.failures(added):
        return ProvenEngine(added, facts)
    facts = _prove_plan(context, precision, facts, place / "model.plan", given)
    # A plan that fails its own proof is not served; the graph that passed still may be.
    return ProvenEngine(added, facts, place / "model.plan" if facts.passed else None)


def _given_to_tensorrt(context: ExportContext, precision: Precision, graph: Path) -> Path:
    """Return the graph that an engine is built from: what INT8 and FP8 leave in FP32 for the CPU is FP16 on a GPU.

    Where that is over the limits, or cannot be made, it is the graph itself, as it was proven; that is said.
    """
    if precision not in _QUANTIZED:
        return graph
    spec, say = context.source.spec, context.progress.say
    stays = f"  {precision} engine: what is not {precision.upper()} stays FP32"
    try:
        mixed = steps.mixed_graph(context, precision, graph)
        found = measure.of_rounded_graph(context, mixed)
    except GraphError as error:
        say(f"{stays}: {error}")
        return graph
    if failed := gates.failures(gates.check(spec, precision, context.judged("held-out"), found)):
        say(f"{stays}, as FP16 is over the limits: {failed}")
        return graph
    return mixed


def _compiled(
    context: ExportContext, graph: Path
) -> tuple[Path, Engine, list[dict[str, tuple[str, tuple[int, ...]]]], bool]:
    """Build an engine; return where it lies, its facts, its inputs and outputs, and whether it was built before.

    Raises:
        CompileError: TensorRT refused the graph.
    """
    spec, options = context.source.spec, context.request.engines

    def make(place: Path) -> None:
        built = engine.build(graph, spec, options)
        if options.library == "tensorrt":  # the others are the proof that they can be built, and gigabytes of it
            (place / "model.plan").write_bytes(built.plan)
        (place / "build.log").write_text(built.log, encoding="utf-8")
        kept = {"facts": asdict(built.facts), "io_tensors": built.io_tensors}
        (place / "engine.json").write_text(json.dumps(kept))

    place, cached = context.cache.step(
        "engine", make, graph=manifest.sha256(graph), spec=spec.inputs, options=asdict(options)
    )
    kept = json.loads((place / "engine.json").read_text())
    io_tensors = [{n: (dtype, tuple(dims)) for n, (dtype, dims) in side.items()} for side in kept["io_tensors"]]
    return place, manifest.decode(Engine, kept["facts"]), io_tensors, cached


def _prove_plan(context: ExportContext, precision: Precision, facts: Engine, plan: Path, graph: Path) -> Engine:
    """Prove a plan on the GPU: its own answers, and whether the server loads it. What its layers take in is told."""
    spec, content = context.source.spec, plan.read_bytes()
    proofs = [plans.server_gate(content, context.request.server_tensorrt)]
    with context.progress.step(f"{precision} plan proof", total=len(context.source.held_out)) as done:
        with PlanRunner(content, spec) as run:
            found = measure.of_plan(context, run, done.advance)
            share = inspected_share(run.inspect(), graphs.heavy_nodes(graphs.load(graph)))
        held_out = found.pop(measure.HELD_OUT)
        proofs += gates.check(spec, precision, context.judged("held-out"), held_out, found)
        told = f"the engine's layers {_shares(share)}" if share else "the inspector names too few layers"
        done(f"{gates.verdict(proofs)}; {told}")
    return replace(facts, gates=tuple(proofs), inspected_share=share)


def _part(share: Mapping[str, float], precision: Precision) -> float:
    """Return the share in the precision's own dtype; 1 where there is no convolution or matrix product."""
    return share.get(_DTYPES[precision], 0.0) if share else 1.0


def _shares(share: Mapping[str, float]) -> str:
    return ", ".join(f"{part:.0%} {dtype}" for dtype, part in share.items())
