"""The export in order: hold the configurations to the spec, make every precision, prove it, choose, publish.

The files a release can hold, and what serves them:
  model.onnx            the fastest proven variant on this machine's CPU; onnxruntime
  model.sm<CC>.plan     the fastest proven engine on a GPU of that compute capability; TensorRT
  manifest.json         everything that was measured, and the digests of the other files
  report.html, .md      the same for people
  model.sig             a signature of them all, if a key is configured
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from contracts import manifest, repository, signature
from contracts.manifest import Choice, Engine, Gate, Manifest, Recipe, Variant
from contracts.spec import PRECISIONS, Precision
from export import contract, engine, gates, graphs, half, int8, report, search, timing
from export.cache import Cache
from export.errors import CompileError, GraphError, RefusedError
from export.gates import Comparison
from export.progress import Progress
from export.runners import Batch, PlanRunner, Runner, length, memory_runner, onnx_runner, predict, take
from export.search import Mode
from export.subject import Subject
from export.tools import tools

_ENDS = ("min", "opt", "max")
_DTYPES: Mapping[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8"}
# Samples whose every intermediate tensor is looked at for FP16.
_HALF_SAMPLES = 64


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    command: str
    precisions: Sequence[Precision] = PRECISIONS
    engines: engine.Options = field(default_factory=engine.Options)
    server_tensorrt: str = engine.SERVER_TENSORRT
    search: Mode = "auto"
    search_budget_s: float = 180
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
        """What tells the data and the shapes of this export from another's."""
        subject = self.subject
        return [
            subject.source.data_fingerprint,
            length(subject.calibration),
            len(subject.held_out),
            subject.spec.inputs,
        ]

    @property
    def outputs(self) -> list[str]:
        return [tensor.name for tensor in self.subject.spec.outputs]


def run(subject: Subject, request: Request, *, model_directory: Path, cache: Cache, progress: Progress) -> Manifest:
    """Export `subject` and publish the next version of its model.

    Args:
        model_directory: The network's folder in the model repository.
        cache: Holds what earlier exports made.

    Raises:
        ConfigError: a configuration is missing or is none.
        GraphError: a variant could not be made.
        EngineError: TensorRT, its right version, or the GPU for it is missing.
        RefusedError: a configuration disagrees with the spec, or no variant passed its gates.
        PublishError, SignatureError: the version could not be written or signed; nothing was published.
    """
    engine.require(request.engines, request.server_tensorrt)
    contracts = contract.config_gates(model_directory, subject.spec)
    if not all(gate.passed for gate in contracts):
        raise RefusedError(
            f"the configuration of {subject.spec.model} is not what the spec says; nothing was published",
            note=gates.failures(contracts),
            hint=f"mend it in {model_directory}",
        )
    bench = Bench(subject, request, cache, progress, _reference(subject, cache, progress))
    fp32 = _fp32(bench)
    proven, found = [], None
    for precision in request.precisions:
        if precision == "int8":
            graph, found = _int8(bench, fp32)
            proven.append(_prove(bench, "int8", graph, recipe=found.recipe))
        elif precision == "fp16":
            graph, kept = _fp16(bench, fp32)
            proven.append(_prove(bench, "fp16", graph, kept_fp32=kept))
        else:
            proven.append(_prove(bench, "fp32", fp32))
    proven, choices = _choose(bench, proven)
    release = _describe(bench, proven, found, contracts, choices)
    with progress.step("publish") as done, repository.new_version(model_directory) as staged:
        for choice in choices:
            _write(choice, proven, staged.directory)
        release = replace(release, version=staged.version)
        release = _carry_plans(release, model_directory, staged.directory)
        report.write(release, subject.spec, _evidence(bench, proven), staged.directory)
        release = replace(release, files=manifest.files_of(staged.directory))
        manifest.write(release, staged.directory)
        if request.signer is not None:
            signature.sign(staged.directory, request.signer)
        done(f"{subject.spec.model} version {staged.version}" + (", signed" if request.signer else ""))
    cache.prune()
    return release


def _reference(subject: Subject, cache: Cache, progress: Progress) -> Mapping[str, Batch]:
    """What the reference answers on every split and at both ends of every dynamic dimension."""
    batches: dict[str, Batch] = {"search": subject.search.inputs, "held-out": subject.held_out.inputs}
    batches |= {end: subject.at(end) for end in _ENDS}
    data = [subject.source.sha256, subject.source.data_fingerprint, subject.spec.inputs, subject.spec.outputs]
    with progress.step("reference", total=sum(length(b) for b in batches.values())) as done:

        def make(place: Path) -> None:
            run = subject.reference()
            for name, batch in batches.items():
                size = min(subject.spec.batch.max, 64)
                np.savez(place / f"{name}.npz", **predict(run, batch, size, done.advance))  # type: ignore[arg-type]

        place, cached = cache.step("reference", make, data=data, sizes=[length(b) for b in batches.values()])
        outputs = {name: dict(np.load(place / f"{name}.npz")) for name in batches}
        right = gates.accuracy(gates.answers(outputs["held-out"], subject.spec), subject.held_out.labels)
        figure = "" if right is None else f"accuracy {right:.4f} on "
        done(f"{figure}{len(subject.held_out):,} held-out samples", cached=cached)
    return outputs


def _fp32(bench: Bench) -> Path:
    with bench.progress.step("fp32 graph") as done:
        place, cached = bench.cache.step(
            "fp32",
            lambda place: bench.subject.write_graph(place / "fp32.onnx"),
            source=bench.subject.source.sha256,
            spec=[bench.subject.spec.inputs, bench.subject.spec.outputs],
        )
        model = graphs.load(place / "fp32.onnx")
        done(f"{len(model.graph.node)} nodes, {len(graphs.heavy_nodes(model))} of them heavy", cached=cached)
    return place / "fp32.onnx"


def _fp16(bench: Bench, fp32: Path) -> tuple[Path, tuple[str, ...]]:
    samples = take(bench.subject.calibration, slice(_HALF_SAMPLES))

    def make(place: Path) -> None:
        kept = half.convert(fp32, place / "fp16.onnx", samples)
        (place / "kept.json").write_text(json.dumps([str(k) for k in kept]))

    with bench.progress.step("fp16 graph") as done:
        place, cached = bench.cache.step("fp16", make, graph=manifest.sha256(fp32), data=bench.data)
        kept = tuple(json.loads((place / "kept.json").read_text()))
        done(f"kept in FP32: {'; '.join(kept)}" if kept else "", cached=cached)
    return place / "fp16.onnx", kept


def _int8(bench: Bench, fp32: Path) -> tuple[Path, search.Found]:
    subject, request, digest = bench.subject, bench.request, manifest.sha256(fp32)

    def quantized(recipe: Recipe) -> Path:
        def make(place: Path) -> None:
            int8.quantize(fp32, place / "int8.onnx", subject.calibration, recipe)

        place, _ = bench.cache.step("quantized", make, graph=digest, data=bench.data, recipe=recipe)
        return place / "int8.onnx"

    trials = search.Bench(
        subject.spec, subject.spec.limits["int8"], subject.search, bench.reference["search"],
        subject.calibration, quantized,
    )  # fmt: skip
    with bench.progress.step("int8 graph") as done:

        def make(place: Path) -> None:
            found = search.search(
                trials, fp32, place / "int8.onnx",
                mode=request.search, budget_s=request.search_budget_s, say=done.now,
            )  # fmt: skip
            (place / "found.json").write_text(json.dumps(asdict(found)))

        asked = [request.search, request.search_budget_s, subject.spec.limits["int8"]]
        place, cached = bench.cache.step("int8", make, graph=digest, data=bench.data, asked=asked)
        found: search.Found = manifest.decode(search.Found, json.loads((place / "found.json").read_text()))
        done(found.ended, cached=cached)
    return place / "int8.onnx", found


def _prove(
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
            progress.say(f"  [red]✗[/] {precision} REFUSED: {gates.failures(proofs)}")
        return Proven(variant, graph, answers)
    return _compile(bench, Proven(variant, graph, answers), model)


def _held_against(
    bench: Bench, held_out: Comparison, others: Mapping[str, Comparison], limits: Any
) -> tuple[Gate, ...]:
    reference = gates.answers(bench.reference["held-out"], bench.subject.spec)
    return gates.prove(held_out, others, reference, bench.subject.held_out.labels, limits)


def _measured(bench: Bench, precision: Precision, graph: Path, advance: Any) -> tuple[dict[str, Comparison], bool]:
    """The graph compared with the reference, {where: …}, on the held-out split and at the ends of the dimensions.

    FP16 is run as it will be rounded on a GPU; as onnxruntime runs it on a CPU, it is compared at the ends.
    """
    subject = bench.subject

    def make(place: Path) -> None:
        served = onnx_runner(graph, bench.outputs)
        run = memory_runner(half.rounded(graphs.load(graph)), bench.outputs) if precision == "fp16" else served
        found = {"held-out split": _compared(bench, run, "held-out", subject.held_out.inputs, advance)}
        for end in _ENDS:
            found[f"shapes at their {end}"] = _compared(bench, served, end, subject.at(end))
        _save(found, place)

    place, cached = bench.cache.step("proof", make, graph=manifest.sha256(graph), data=bench.data, precision=precision)
    return _load(place), cached


def _compared(bench: Bench, run: Runner, name: str, batch: Batch, advance: Any = lambda n: None) -> Comparison:
    size = bench.subject.spec.batch.max if name == "held-out" else length(batch)
    return gates.compare(predict(run, batch, size, advance), bench.reference[name], bench.subject.spec)


def _compile(bench: Bench, proven: Proven, model: Any) -> Proven:
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
            Gate(f"computed in {_DTYPES[precision]}", facts.dtype_share.get(_DTYPES[precision], 0.0), share, "at least",
                 _shares(facts.dtype_share)),
        ]  # fmt: skip
        done(f"{facts.library}: {facts.size_bytes / 1e6:.2f} MB, {_verdict(added) or _shares(facts.dtype_share)}",
             cached=cached)  # fmt: skip
    variant = replace(proven.variant, engine=facts, gates=(*proven.variant.gates, *added))
    if options.library == "tensorrt_rtx" or not variant.passed:
        return replace(proven, variant=variant)
    return _prove_plan(bench, replace(proven, variant=variant), place / "model.plan", model)


def _prove_plan(bench: Bench, proven: Proven, plan: Path, model: Any) -> Proven:
    """On a GPU: the plan's own answers, what the inspector says it computes in, and whether the server can load it."""
    spec, facts, precision = bench.subject.spec, proven.variant.engine, proven.variant.precision
    assert facts is not None  # it was just built
    built_by = engine.plan_version(plan.read_bytes()) or "no TensorRT"
    server = bench.request.server_tensorrt
    proofs = [Gate("loads in the server's TensorRT", float(engine.same_version(built_by, server)), 1, "at least",
                   f"built by {built_by}, the server has {server}")]  # fmt: skip
    with bench.progress.step(f"{precision} plan proof", total=len(bench.subject.held_out)) as done:
        with PlanRunner(plan.read_bytes(), spec) as run:
            held_out = _compared(bench, run, "held-out", bench.subject.held_out.inputs, done.advance)
            others = {f"shapes at their {end}": _compared(bench, run, end, bench.subject.at(end)) for end in _ENDS}
            proofs += _held_against(bench, held_out, others, spec.limits[precision])
            share = engine.inspected_share(run.inspected(), graphs.heavy_nodes(model))
        if share:
            limit = spec.limits[precision].computed_share
            computed = share.get(_DTYPES[precision], 0.0)
            proofs.append(
                Gate(f"inspected: computed in {_DTYPES[precision]}", computed, limit, "at least", _shares(share))
            )
        done(_verdict(proofs))
    facts = replace(facts, gates=tuple(proofs), dtype_share=share or facts.dtype_share)
    # A plan that fails its own proof is not served; the graph that passed still may be.
    return replace(proven, variant=replace(proven.variant, engine=facts), plan=plan if facts.passed else None)


def _choose(bench: Bench, proven: Sequence[Proven]) -> tuple[list[Proven], tuple[Choice, ...]]:
    """Time every passing variant per file it could be served as, and choose for each."""
    spec = bench.subject.spec
    passing = [p for p in proven if p.variant.passed]
    if not passing:
        raise RefusedError(
            f"no variant of {spec.model} passed its gates; nothing was published",
            note="\n  ".join(f"{p.variant.precision}: {gates.failures(p.variant.gates)}" for p in proven),
            hint="train longer, or look at the limits in the spec",
        )
    variants, choices = {p.variant.precision: p.variant for p in proven}, []
    with ExitStack() as plans:
        runners: dict[str, dict[Precision, Runner]] = {
            "model.onnx": {p.variant.precision: onnx_runner(p.graph, bench.outputs) for p in passing}
        }
        for p in passing:
            if p.plan is not None and p.variant.engine is not None:
                run = plans.enter_context(PlanRunner(p.plan.read_bytes(), spec))
                runners.setdefault(engine.files_of(p.variant.engine)[0], {})[p.variant.precision] = run
        for file, candidates in runners.items():
            with bench.progress.step(f"{file} latency") as done:
                samples = timing.measure(candidates, bench.subject.held_out.inputs, timing.batches(spec))
                choice, timed = timing.choose(file, [variants[p] for p in candidates], samples, spec.batch.opt)
                choices.append(choice)
                variants |= {variant.precision: variant for variant in timed}
                done(choice.reason)
    return [replace(p, variant=variants[p.variant.precision]) for p in proven], tuple(choices)


def _describe(
    bench: Bench,
    proven: Sequence[Proven],
    found: search.Found | None,
    contracts: tuple[Gate, ...],
    choices: tuple[Choice, ...],
) -> Manifest:
    subject = bench.subject
    reference = gates.answers(bench.reference["held-out"], subject.spec)
    return Manifest(
        family=subject.spec.family,
        model=subject.spec.model,
        version=0,  # until there is one
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=bench.request.command,
        source=subject.source,
        tools=tools(),
        calibration_samples=length(subject.calibration),
        test_samples=len(subject.held_out),
        reference_accuracy=gates.accuracy(reference, subject.held_out.labels),
        gates=contracts,
        variants=tuple(p.variant for p in proven),
        trials=found.trials if found else (),
        sensitivity=found.sensitivity if found else (),
        choices=choices,
        files=(),
    )


def _write(choice: Choice, proven: Sequence[Proven], directory: Path) -> None:
    chosen = next(p for p in proven if p.variant.precision == choice.precision)
    if choice.file == "model.onnx":
        shutil.copyfile(chosen.graph, directory / choice.file)
        if manifest.sha256(directory / choice.file) != chosen.variant.sha256:
            raise GraphError(f"{chosen.graph} changed after it was proven", hint="run the same command with --force")
        return
    assert chosen.plan is not None and chosen.variant.engine is not None  # only plans were candidates
    for file in engine.files_of(chosen.variant.engine):
        shutil.copyfile(chosen.plan, directory / file)


def _carry_plans(release: Manifest, model_directory: Path, directory: Path) -> Manifest:
    """Take the plans for other GPUs along from the version before, if they are of the same source and TensorRT.

    Each GPU machine adds its own plan that way, and a version serves all of them.
    """
    earlier = [version for version in repository.versions(model_directory) if version < release.version]
    if not earlier or not any(choice.file.endswith(".plan") for choice in release.choices):
        return release
    before = manifest.verify(model_directory / str(earlier[-1]))
    libraries = {v.engine.library for v in release.variants if v.engine}
    carried = [
        replace(choice, reason=f"from version {before.version}: {choice.reason}")
        for choice in before.choices
        if choice.file.endswith(".plan")
        and before.source.sha256 == release.source.sha256
        and (old := before.served(choice.file).engine) is not None
        and old.library in libraries
        and not (directory / choice.file).exists()
    ]
    for choice in carried:
        shutil.copyfile(model_directory / str(before.version) / choice.file, directory / choice.file)
    return replace(release, choices=(*release.choices, *carried))


def _evidence(bench: Bench, proven: Sequence[Proven]) -> report.Evidence:
    split = bench.subject.held_out
    return report.Evidence(
        inputs=split.inputs,
        labels=split.labels,
        reference=gates.answers(bench.reference["held-out"], bench.subject.spec),
        answers={p.variant.precision: p.answers for p in proven if p.answers is not None},
    )


def _verdict(proofs: Sequence[Gate]) -> str:
    if failed := gates.failures(proofs):
        return f"[red]REFUSED[/]: {failed}"
    shown = [gate for gate in proofs if gate.name == "agreement" or gate.name.startswith("accuracy drop")]
    return ", ".join(f"{gate.name} {gate.figure:.5g}" for gate in shown)


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
