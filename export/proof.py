"""One variant after another through the gates: contract, parity, agreement, accuracy, engine."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from onnx import ModelProto

from contracts import manifest, signature
from contracts.manifest import Engine, Gate, Recipe, Variant
from contracts.spec import PRECISIONS, Limits, Precision
from export import contract, engine, gates, graphs, half, int8
from export.cache import Cache
from export.errors import CompileError, GraphError
from export.gates import Comparison
from export.progress import Progress
from export.runners import Batch, PlanRunner, Runner, length, memory_runner, onnx_runner, predict
from export.search import Mode
from export.subject import Subject

ENDS = ("min", "opt", "max")
_DTYPES: Mapping[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8"}


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    command: str
    precisions: Sequence[Precision] = PRECISIONS
    engines: engine.Options = field(default_factory=engine.Options)
    server_tensorrt: str = engine.SERVER_TENSORRT
    search: Mode = "auto"
    search_budget_s: float = 300
    signer: signature.Signer | None = None


@dataclass(frozen=True)
class Proven:
    """A variant with everything needed to publish it."""

    variant: Variant
    graph: Path
    answers: gates.Answers | None
    plan: Path | None = None  # None unless plans are built for a GPU here


@dataclass(frozen=True)
class Bench:
    """What every variant of one export is held against."""

    subject: Subject
    request: Request
    cache: Cache
    progress: Progress
    reference: Mapping[str, Batch]  # {"search", "held-out", "min", "opt", "max": outputs}

    @property
    def data(self) -> list[object]:
        """What tells the data, the shapes and the task of this export from another's."""
        subject, spec = self.subject, self.subject.spec
        sizes = [length(subject.calibration), len(subject.search), len(subject.held_out)]
        source = [subject.source.sha256, subject.source.data_fingerprint]
        return [source, sizes, spec.inputs, spec.outputs, spec.task, spec.answer_output]

    @property
    def outputs(self) -> list[str]:
        return [tensor.name for tensor in self.subject.spec.outputs]


def prove(
    bench: Bench, precision: Precision, graph: Path, recipe: Recipe | None = None, kept_fp32: tuple[str, ...] = ()
) -> Proven:
    """Hold a graph to the contract and the limits; if it passes, have TensorRT build it; on a GPU, prove that too."""
    subject, progress = bench.subject, bench.progress
    spec, limits, model = subject.spec, subject.spec.limits[precision], graphs.load(graph)
    proofs = [contract.graph_gate(model, spec)]
    if precision == "int8":
        wrong = int8.faults(model)
        proofs.append(Gate("Q/DQ not signed and symmetric", len(wrong), 0, "at most", "; ".join(wrong[:5])))
    answers = None
    if not gates.failures(proofs):
        with progress.step(f"{precision} proof", total=len(subject.held_out)) as done:
            measured, cached = _measured(bench, precision, graph, done.advance)
            held_out = measured.pop("held-out split")
            answers = held_out.answers
            proofs += _held_against(bench, held_out, measured, limits)
            done(_verdict(proofs), cached=cached)
    variant = Variant(
        precision=precision,
        accuracy=gates.accuracy(answers, subject.held_out.labels),
        gates=tuple(proofs),
        size_bytes=graph.stat().st_size,
        sha256=manifest.sha256(graph),
        recipe=recipe,
        kept_fp32=kept_fp32,
    )
    if not variant.passed:
        if answers is None:
            progress.say(f"  ✗ {precision} REFUSED: {gates.failures(proofs)}")
        return Proven(variant, graph, answers)
    return _compile(bench, Proven(variant, graph, answers), model)


def not_made(precision: Precision, error: GraphError) -> Proven:
    """The record of a precision that no graph could be made in."""
    failed = Gate("made", 0, 1, "at least", str(error))
    return Proven(Variant(precision, None, (failed,), size_bytes=0, sha256=""), Path(), answers=None)


def _held_against(
    bench: Bench, held_out: Comparison, others: Mapping[str, Comparison], limits: Limits
) -> tuple[Gate, ...]:
    reference = gates.answers(bench.reference["held-out"], bench.subject.spec)
    return gates.prove(held_out, others, reference, bench.subject.held_out.labels, limits)


def _measured(
    bench: Bench, precision: Precision, graph: Path, advance: Callable[[int], None]
) -> tuple[dict[str, Comparison], bool]:
    """The graph compared with the reference, {where: …}, on the held-out split and at the ends of the dimensions.

    FP16 is run as it will be rounded on a GPU; as onnxruntime runs it on a CPU, it is compared at the ends.
    """
    subject = bench.subject

    def make(place: Path) -> None:
        served = onnx_runner(graph, bench.outputs)
        run = memory_runner(half.rounded(graphs.load(graph)), bench.outputs) if precision == "fp16" else served
        found = {"held-out split": _compared(bench, run, "held-out", subject.held_out.inputs, advance)}
        for end in ENDS:
            found[f"shapes at their {end}"] = _compared(bench, served, end, subject.at(end))
        _save(found, place)

    place, cached = bench.cache.step("proof", make, graph=manifest.sha256(graph), data=bench.data, precision=precision)
    return _load(place), cached


def _compared(
    bench: Bench, run: Runner, name: str, batch: Batch, advance: Callable[[int], None] = lambda n: None
) -> Comparison:
    size = bench.subject.spec.batch.max if name == "held-out" else length(batch)
    return gates.compare(predict(run, batch, size, advance), bench.reference[name], bench.subject.spec)


def _compile(bench: Bench, proven: Proven, model: ModelProto) -> Proven:
    """Add the engine, its gates and, where it can run, its own proofs."""
    spec, options, precision = bench.subject.spec, bench.request.engines, proven.variant.precision
    with bench.progress.step(f"{precision} engine") as done:

        def make(place: Path) -> None:
            built = engine.build(proven.graph, spec, options)
            (place / "model.plan").write_bytes(built.plan)
            (place / "build.log").write_text(built.log)
            kept = {"facts": asdict(built.facts), "signature": built.signature}
            (place / "engine.json").write_text(json.dumps(kept))

        try:
            place, cached = bench.cache.step(
                "engine", make, graph=proven.variant.sha256, spec=spec.inputs, options=asdict(options)
            )
        except CompileError as error:
            refused = Gate("compiled by TensorRT", 0, 1, "at least", str(error))
            done(f"REFUSED: {error}")
            return replace(proven, variant=replace(proven.variant, gates=(*proven.variant.gates, refused)))
        kept = json.loads((place / "engine.json").read_text())
        facts: Engine = manifest.decode(Engine, kept["facts"])
        signatures = [{n: (dtype, tuple(dims)) for n, (dtype, dims) in side.items()} for side in kept["signature"]]
        share = spec.limits[precision].computed_share
        added = [
            contract.engine_gate(signatures, spec),
            Gate(f"computed in {_DTYPES[precision]}", _part(facts.dtype_share, precision), share, "at least",
                 _shares(facts.dtype_share)),
        ]  # fmt: skip
        done(f"{facts.library}: {facts.size_bytes / 1e6:.2f} MB, {_verdict(added) or _shares(facts.dtype_share)}",
             cached=cached)  # fmt: skip
    variant = replace(proven.variant, engine=facts, gates=(*proven.variant.gates, *added))
    if options.library == "tensorrt_rtx" or not variant.passed:
        return replace(proven, variant=variant)
    return _prove_plan(bench, replace(proven, variant=variant), place / "model.plan", model)


def _prove_plan(bench: Bench, proven: Proven, plan: Path, model: ModelProto) -> Proven:
    """On a GPU: the plan's own answers, what the inspector says it computes in, and whether the server can load it."""
    spec, facts, precision = bench.subject.spec, proven.variant.engine, proven.variant.precision
    assert facts is not None  # it was just built
    proofs = [engine.server_gate(plan.read_bytes(), bench.request.server_tensorrt)]
    with bench.progress.step(f"{precision} plan proof", total=len(bench.subject.held_out)) as done:
        with PlanRunner(plan.read_bytes(), spec) as run:
            held_out = _compared(bench, run, "held-out", bench.subject.held_out.inputs, done.advance)
            others = {f"shapes at their {end}": _compared(bench, run, end, bench.subject.at(end)) for end in ENDS}
            proofs += _held_against(bench, held_out, others, spec.limits[precision])
            share = engine.inspected_share(run.inspected(), graphs.heavy_nodes(model))
        computed, limit = _part(share or facts.dtype_share, precision), spec.limits[precision].computed_share
        told = _shares(share) or f"the inspector names too few layers; the network: {_shares(facts.dtype_share)}"
        proofs.append(Gate(f"inspected: computed in {_DTYPES[precision]}", computed, limit, "at least", told))
        done(_verdict(proofs))
    facts = replace(facts, gates=tuple(proofs), dtype_share=share or facts.dtype_share)
    # A plan that fails its own proof is not served; the graph that passed still may be.
    return replace(proven, variant=replace(proven.variant, engine=facts), plan=plan if facts.passed else None)


def _verdict(proofs: Sequence[Gate]) -> str:
    if failed := gates.failures(proofs):
        return f"REFUSED: {failed}"
    shown = [gate for gate in proofs if gate.name == "agreement" or gate.name.startswith("accuracy drop")]
    return ", ".join(f"{gate.name} {gate.figure:.5g}" for gate in shown)


def _part(share: Mapping[str, float], precision: Precision) -> float:
    """The share in the precision's own dtype; all of nothing, where there is no convolution or matrix product."""
    return share.get(_DTYPES[precision], 0.0) if share else 1.0


def _shares(share: Mapping[str, float]) -> str:
    return ", ".join(f"{part:.0%} {dtype}" for dtype, part in share.items())


def _save(found: Mapping[str, Comparison], place: Path) -> None:
    answers = {where: c.answers for where, c in found.items() if c.answers is not None}
    np.savez_compressed(place / "answers.npz", **answers)  # type: ignore[arg-type]  # numpy's stub: allow_pickle
    figures = {where: asdict(replace(c, answers=None)) for where, c in found.items()}
    (place / "comparison.json").write_text(json.dumps(figures))


def _load(place: Path) -> dict[str, Comparison]:
    answers = dict(np.load(place / "answers.npz"))
    figures = json.loads((place / "comparison.json").read_text())
    return {where: Comparison(**{**raw, "answers": answers.get(where)}) for where, raw in figures.items()}
