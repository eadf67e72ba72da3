"""What becomes of proven variants: one is chosen per file, described in the manifest, and written."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from contracts import manifest, repository, signature
from contracts.errors import ManifestError
from contracts.manifest import Choice, Gate, Manifest
from contracts.spec import Precision
from export import engine, gates, report, timing
from export.errors import GraphError, RefusedError
from export.proof import Bench, Proven
from export.runners import PlanRunner, Runner, length, onnx_runner
from export.search import Found
from export.tools import tools


def choose(bench: Bench, proven: Sequence[Proven]) -> tuple[list[Proven], tuple[Choice, ...]]:
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
        if bench.request.engines.library == "tensorrt" and not any(p.plan for p in passing):
            engines = [p.variant.engine.gates for p in passing if p.variant.engine]
            raise RefusedError(
                f"no plan of {spec.model} passed its gates; nothing was published",
                note="; ".join(gates.failures(proofs) for proofs in engines),
                hint="without --target tensorrt the graphs that passed are published for a CPU",
            )
        for p in passing:
            if p.plan is not None and p.variant.engine is not None:
                run = plans.enter_context(PlanRunner(p.plan.read_bytes(), spec))
                runners.setdefault(engine.files_of(p.variant.engine)[0], {})[p.variant.precision] = run
        for file, candidates in runners.items():
            with bench.progress.step(f"{file} latency") as done:
                samples = timing.measure(candidates, bench.subject.held_out.inputs, timing.batches(spec))
                choice, timed = timing.choose(file, [variants[p] for p in candidates], samples, spec.batch.opt)
                choices += _of_all_files(choice, proven)
                variants |= {variant.precision: variant for variant in timed}
                done(choice.reason)
    return [replace(p, variant=variants[p.variant.precision]) for p in proven], tuple(choices)


def _of_all_files(choice: Choice, proven: Sequence[Proven]) -> list[Choice]:
    """The choice as it is, or with a plan one for each file that the plan is published as."""
    chosen = next(p.variant for p in proven if p.variant.precision == choice.precision)
    if choice.file == "model.onnx" or chosen.engine is None:
        return [choice]
    files = engine.files_of(chosen.engine)
    return [replace(choice, file=file, engine=chosen.engine, graph_sha256=chosen.sha256) for file in files]


def describe(
    bench: Bench,
    proven: Sequence[Proven],
    found: Found | None,
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


def publish(bench: Bench, release: Manifest, proven: Sequence[Proven], model_directory: Path) -> Manifest:
    """Write the next version of the model; `release` with its number and its files."""
    signer = bench.request.signer
    with bench.progress.step("publish") as done, repository.new_version(model_directory) as staged:
        release = replace(release, version=staged.version)
        for choice in release.choices:
            _write(choice, proven, staged.directory)
        carried = _carry_plans(bench, release, model_directory, staged.directory)
        release = replace(release, choices=(*release.choices, *carried))
        report.write(release, bench.subject.spec, _evidence(bench, proven), staged.directory)
        release = replace(release, files=manifest.files_of(staged.directory))
        manifest.write(release, staged.directory)
        if signer is not None:
            signature.sign(staged.directory, signer)
        done(f"{release.model} version {release.version}" + (", signed" if signer else ""))
    return release


def _write(choice: Choice, proven: Sequence[Proven], directory: Path) -> None:
    chosen = next(p for p in proven if p.variant.precision == choice.precision)
    if choice.engine is not None:
        assert chosen.plan is not None  # only plans were candidates
        shutil.copyfile(chosen.plan, directory / choice.file)
        return
    shutil.copyfile(chosen.graph, directory / choice.file)
    if manifest.sha256(directory / choice.file) != chosen.variant.sha256:
        raise GraphError(f"{chosen.graph} changed after it was proven", hint="run the same command with --force")


def _carry_plans(bench: Bench, release: Manifest, model_directory: Path, directory: Path) -> tuple[Choice, ...]:
    """Copy the plans for other GPUs from the newest version before, as far as they are plans of this release.

    Each GPU machine adds its own plan that way, and a version serves all of them. A plan is of this release if it
    was built from a graph that has just passed again, for the same shapes, by the server's TensorRT.
    """
    earlier = [version for version in repository.versions(model_directory) if version < release.version]
    if not earlier:
        return ()
    before = model_directory / str(earlier[-1])
    try:
        choices = manifest.verify(before).choices
    except ManifestError as error:
        bench.progress.say(f"No plan is taken along from version {earlier[-1]}: {error}")
        return ()
    passed = {variant.sha256 for variant in release.variants if variant.passed}
    profile = engine.profile_of(bench.subject.spec)
    carried = [
        choice
        for choice in choices
        if choice.engine is not None
        and choice.file not in {own.file for own in release.choices}
        and choice.graph_sha256 in passed
        and choice.engine.profile == profile
        and engine.server_gate((before / choice.file).read_bytes(), bench.request.server_tensorrt).passed
    ]
    for choice in carried:
        shutil.copyfile(before / choice.file, directory / choice.file)
    return tuple(carried)


def _evidence(bench: Bench, proven: Sequence[Proven]) -> report.Evidence:
    split = bench.subject.held_out
    return report.Evidence(
        inputs=split.inputs,
        labels=split.labels,
        reference=gates.answers(bench.reference["held-out"], bench.subject.spec),
        answers={p.variant.precision: p.answers for p in proven if p.answers is not None},
    )
