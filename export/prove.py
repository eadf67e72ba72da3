"""One variant after another through the gates: contract, parity, agreement, metric, engine."""

from dataclasses import dataclass, replace
from pathlib import Path

from contracts import manifest
from contracts.judging.tasks import Answers
from contracts.manifest import Gate, Recipe, Variant
from contracts.spec import Precision
from export import graphs, measure
from export.context import ExportContext
from export.errors import GraphError
from export.precision import int8
from export.proof import contract, gates
from export.prove_engine import prove_engine


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
    if precision in ("int8", "fp8"):
        wrong = int8.qdq_faults(model, precision)
        proofs.append(
            Gate("Q/DQ not signed and symmetric", len(wrong), 0, "at most", "; ".join(wrong[:5]), id="qdq_symmetric")
        )
    held_out = None
    if not gates.failures(proofs):
        with progress.step(f"{precision} proof", total=len(source.held_out)) as done:
            measured, cached = measure.of_graph(context, precision, graph, done.advance)
            held_out = measured.pop(measure.HELD_OUT)
            proofs += gates.check(spec, precision, context.judged("held-out"), held_out, measured)
            done(gates.verdict(proofs), cached=cached)
    variant = Variant(
        precision=precision,
        score=context.judged("held-out").score(spec, held_out.scores) if held_out else None,
        gates=tuple(proofs),
        size_bytes=graphs.size_bytes(graph),
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
    if spec.without_tensorrt is not None:
        return ProvenVariant(variant, graph, answers)
    proven = prove_engine(context, precision, graph)
    variant = replace(variant, engine=proven.facts, gates=(*variant.gates, *proven.gates))
    return ProvenVariant(variant, graph, answers, proven.plan)


def not_made(precision: Precision, error: GraphError) -> ProvenVariant:
    """Record a precision that no graph could be made in, as a variant whose only gate failed."""
    failed = Gate("made", 0, 1, "at least", str(error), id="made")
    return ProvenVariant(Variant(precision, None, (failed,), size_bytes=0, sha256=""), Path(), answers=None)
