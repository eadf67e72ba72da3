"""One variant after another through the gates: contract, parity, agreement, metric, engine."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from onnx import ModelProto

from contracts import manifest
from contracts.judging.tasks import Answers
from contracts.manifest import Difference, Engine, Gate, Recipe, Variant
from contracts.samples import Split
from contracts.spec import Precision
from export import graphs
from export.context import ENDS, ExportContext
from export.errors import CompileError, GraphError
from export.precision import fp16, int8
from export.proof import contract, engine, gates
from export.proof.compare import Comparison, compare
from export.proof.runners import PlanRunner, Runner, memory_runner, onnx_runner, predict

_DTYPES: Mapping[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8"}


@dataclass(frozen=True)
class ProvenVariant:
    """A variant that went through its gates, and everything needed to publish it if it passed."""

    variant: Variant
    graph: Path
    answers: Answers | None
    plan: Path | None = None  # None unless plans are built for a GPU here


def prove(
    context: ExportContext,
    precision: Precision,
    graph: Path,
    recipe: Recipe | None = None,
    kept_fp32: tuple[str, ...] = (),
) -> ProvenVariant:
    """Hold a graph to the contract and the limits; if it passes, have TensorRT build it; on a GPU, prove that too."""
    source, progress = context.source, context.progress
    spec, model = source.spec, graphs.load(graph)
    proofs = [contract.graph_gate(model, spec)]
    if precision == "int8":
        wrong = int8.qdq_faults(model)
        proofs.append(
            Gate("Q/DQ not signed and symmetric", len(wrong), 0, "at most", "; ".join(wrong[:5]), id="qdq_symmetric")
        )
    held_out = None
    if not gates.failures(proofs):
        with progress.step(f"{precision} proof", total=len(source.held_out)) as done:
            measured, cached = _measured(context, precision, graph, done.advance)
            held_out = measured.pop("held-out split")
            proofs += gates.check(spec, precision, context.judged("held-out"), held_out, measured)
            done(_verdict(proofs), cached=cached)
    variant = Variant(
        precision=precision,
        score=context.judged("held-out").score(spec, held_out.scores) if held_out else None,
        gates=tuple(proofs),
        size_bytes=graph.stat().st_size,
        sha256=manifest.sha256(graph),
        recipe=recipe,
        kept_fp32=kept_fp32,
        differences=held_out.differences if held_out else {},
    )
    answers = held_out.answers if held_out else None
    if not variant.passed:
        if held_out is None:
            progress.say(f"  ✗ {precision} REFUSED: {gates.failures(proofs)}")
        return ProvenVariant(variant, graph, answers)
    proven = ProvenVariant(variant, graph, answers)
    return _compile(context, proven, model) if spec.tensorrt else proven


def not_made(precision: Precision, error: GraphError) -> ProvenVariant:
    """Record a precision that no graph could be made in, as a variant whose only gate failed."""
    failed = Gate("made", 0, 1, "at least", str(error), id="made")
    return ProvenVariant(Variant(precision, None, (failed,), size_bytes=0, sha256=""), Path(), answers=None)


def _measured(
    context: ExportContext, precision: Precision, graph: Path, advance: Callable[[int], None]
) -> tuple[dict[str, Comparison], bool]:
    """Compare the graph with the reference on the held-out split and at the ends of the dimensions: {where: …}.

    FP16 is run as it will be rounded on a GPU; as onnxruntime runs it on a CPU, it is compared at the ends.
    """
    source = context.source

    def make(place: Path) -> None:
        served = onnx_runner(graph, context.outputs)
        run = memory_runner(fp16.simulate_fp16(graphs.load(graph)), context.outputs) if precision == "fp16" else served
        found = {"held-out split": _compared(context, run, "held-out", source.held_out, advance)}
        for end in ENDS:
            found[f"shapes at their {end}"] = _compared(context, served, end, source.inputs_at(end))
        _save(found, place)

    place, cached = context.cache.step(
        "proof", make, graph=manifest.sha256(graph), data=context.data, precision=precision, metric=source.spec.metric
    )
    return _load(place), cached


def _compared(
    context: ExportContext, run: Runner, name: str, split: Split, advance: Callable[[int], None] = lambda n: None
) -> Comparison:
    spec = context.source.spec
    outputs = predict(run, split, spec.max_batch, advance)
    return compare(outputs, context.reference[name], spec, split.targets)


def _compile(context: ExportContext, proven: ProvenVariant, model: ModelProto) -> ProvenVariant:
    """Add the engine, its gates and, where it can run, its own proofs."""
    spec, options, precision = context.source.spec, context.request.engines, proven.variant.precision
    with context.progress.step(f"{precision} engine") as done:

        def make(place: Path) -> None:
            built = engine.build(proven.graph, spec, options)
            (place / "model.plan").write_bytes(built.plan)
            (place / "build.log").write_text(built.log)
            kept = {"facts": asdict(built.facts), "io_tensors": built.io_tensors}
            (place / "engine.json").write_text(json.dumps(kept))

        try:
            place, cached = context.cache.step(
                "engine", make, graph=proven.variant.sha256, spec=spec.inputs, options=asdict(options)
            )
        except CompileError as error:
            hint = "what TensorRT does not take, ONNX Runtime may serve: tensorrt = false in the spec"
            refused = Gate("compiled by TensorRT", 0, 1, "at least", f"{error}\nHint: {hint}", id="compiled")
            done(f"REFUSED: {error}")
            return replace(proven, variant=replace(proven.variant, gates=(*proven.variant.gates, refused)))
        kept = json.loads((place / "engine.json").read_text())
        facts: Engine = manifest.decode(Engine, kept["facts"])
        io_tensors = [{n: (dtype, tuple(dims)) for n, (dtype, dims) in side.items()} for side in kept["io_tensors"]]
        share = spec.limits[precision].computed_share
        added = [
            contract.engine_gate(io_tensors, spec),
            Gate(f"computed in {_DTYPES[precision]}", _part(facts.dtype_share, precision), share, "at least",
                 _shares(facts.dtype_share), id="computed_share"),
        ]  # fmt: skip
        done(f"{facts.library}: {facts.size_bytes / 1e6:.2f} MB, {_verdict(added) or _shares(facts.dtype_share)}",
             cached=cached)  # fmt: skip
    variant = replace(proven.variant, engine=facts, gates=(*proven.variant.gates, *added))
    if options.library == "tensorrt_rtx" or not variant.passed:
        return replace(proven, variant=variant)
    return _prove_plan(context, replace(proven, variant=variant), place / "model.plan", model)


def _prove_plan(context: ExportContext, proven: ProvenVariant, plan: Path, model: ModelProto) -> ProvenVariant:
    """Prove a plan on the GPU: its own answers, what the inspector says it computes in, whether the server loads it."""
    spec, facts, precision = context.source.spec, proven.variant.engine, proven.variant.precision
    assert facts is not None  # it was just built
    proofs = [engine.server_gate(plan.read_bytes(), context.request.server_tensorrt)]
    with context.progress.step(f"{precision} plan proof", total=len(context.source.held_out)) as done:
        with PlanRunner(plan.read_bytes(), spec) as run:
            held_out = _compared(context, run, "held-out", context.source.held_out, done.advance)
            others = {
                f"shapes at their {end}": _compared(context, run, end, context.source.inputs_at(end)) for end in ENDS
            }
            proofs += gates.check(spec, precision, context.judged("held-out"), held_out, others)
            share = engine.inspected_share(run.inspect(), graphs.heavy_nodes(model))
        computed, limit = _part(share or facts.dtype_share, precision), spec.limits[precision].computed_share
        told = _shares(share) or f"the inspector names too few layers; the network: {_shares(facts.dtype_share)}"
        proofs.append(
            Gate(
                f"inspected: computed in {_DTYPES[precision]}", computed, limit, "at least", told, id="inspected_share"
            )
        )
        done(_verdict(proofs))
    facts = replace(facts, gates=tuple(proofs), dtype_share=share or facts.dtype_share)
    # A plan that fails its own proof is not served; the graph that passed still may be.
    return replace(proven, variant=replace(proven.variant, engine=facts), plan=plan if facts.passed else None)


def _verdict(proofs: Sequence[Gate]) -> str:
    if failed := gates.failures(proofs):
        return f"REFUSED: {failed}"
    shown = [gate for gate in proofs if gate.id in ("agreement", "metric_drop")] or [
        gate for gate in proofs if "_difference:" in gate.id
    ]
    return ", ".join(f"{gate.name} {gate.figure:.5g}" for gate in shown)


def _part(share: Mapping[str, float], precision: Precision) -> float:
    """Return the share in the precision's own dtype; 1 where there is no convolution or matrix product."""
    return share.get(_DTYPES[precision], 0.0) if share else 1.0


def _shares(share: Mapping[str, float]) -> str:
    return ", ".join(f"{part:.0%} {dtype}" for dtype, part in share.items())


def _save(found: Mapping[str, Comparison], place: Path) -> None:
    arrays = {f"answers/{where}": c.answers for where, c in found.items() if c.answers is not None}
    arrays |= {f"scores/{where}": c.scores for where, c in found.items() if c.scores is not None}
    np.savez_compressed(place / "answers.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub: allow_pickle
    figures = {where: asdict(replace(c, answers=None, scores=None)) for where, c in found.items()}
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
                "differences": {output: Difference(**d) for output, d in raw["differences"].items()},
            }
        )
        for where, raw in figures.items()
    }
