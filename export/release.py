"""What becomes of proven variants: one is chosen per file, described in the manifest, and written."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from contracts import manifest, repository, signature
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
        for choice in release.choices:
            _write(choice, proven, staged.directory)
        release = replace(release, version=staged.version)
        release = _carry_plans(release, model_directory, staged.directory)
        report.write(release, bench.subject.spec, _evidence(bench, proven), staged.directory)
        release = replace(release, files=manifest.files_of(staged.directory))
        manifest.write(release, staged.directory)
        if signer is not None:
            signature.sign(staged.directory, signer)
        done(f"{release.model} version {release.version}" + (", signed" if signer else ""))
    return release


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
