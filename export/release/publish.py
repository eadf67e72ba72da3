"""What becomes of proven variants: one is chosen per file, described in the manifest, and written."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from contracts import bundle, copying, golden, layout, manifest, repository
from contracts.entities import releases
from contracts.errors import PublishError
from contracts.judging.metric import joined
from contracts.manifest import Choice, Gate, Judge, Manifest
from contracts.spec import DISCRETE, ModelSpec
from export import graphs, measure, report
from export.context import ExportContext
from export.errors import GraphError
from export.precision.search import SearchResult
from export.proof import contract, engine, figures
from export.prove import ProvenVariant
from export.release import locks, serve_gate
from export.release.carried import carry_plans
from export.release.golden import golden_requests
from export.release.seal import seal
from export.report.importance import Importance, explains, importance
from export.tools import tool_versions
from training import tracking


def describe(
    context: ExportContext,
    proven: Sequence[ProvenVariant],
    search: SearchResult | None,
    config_gates: tuple[Gate, ...],
    choices: tuple[Choice, ...],
) -> Manifest:
    """Describe the release in a manifest, as yet without its version and files.

    Args:
        search: The search for the INT8 recipe, where there was one.
    """
    source = context.source
    judged, metric = context.judged("held-out"), source.spec.metric
    return Manifest(
        family=source.spec.family,
        model=source.spec.model,
        version=0,  # until there is one
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=context.request.command,
        source=source.origin,
        tools=tool_versions(),
        calibration_samples=len(source.calibration),
        test_samples=len(source.held_out),
        reference_score=judged.score(source.spec, judged.scores),
        gates=config_gates,
        variants=tuple(p.variant for p in proven),
        trials=search.trials if search else (),
        sensitivity=search.sensitivity if search else (),
        choices=choices,
        files=(),
        task=source.spec.task,
        metric=None if metric is None else Judge(metric.name, metric.better, metric.share),
        proven_range=proven_range(source.spec),
        warnings=tuple(context.warnings),
        without_tensorrt=source.spec.without_tensorrt,
        entities=source.spec.entities,
        figures=tuple(figures.of_reference(source.spec, judged)),
        card=source.spec.card,
        splits=source.splits,
        exported_by=tracking.account(),
    )


def proven_range(spec: ModelSpec) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return {input: its smallest and its largest shape that were proven}."""
    return {tensor.name: (tensor.shape_at("min"), tensor.shape_at("max")) for tensor in spec.inputs}


def publish(
    context: ExportContext, release: Manifest, proven: Sequence[ProvenVariant], model_directory: Path
) -> Manifest:
    """Write the next version of the model, whole or not at all; return `release` with its number and its files.

    Its configurations and steps are copied first, and looked at in that copy: what is changed in the repository
    meanwhile is either in the release and proven with it, or not in it.

    Raises:
        PublishError, SignatureError: it could not be written, locked or signed; nothing was published.
        ModelConfigError: the configuration of a model of the release is none.
        RefusedError: a configuration was changed since and disagrees with the spec, or no Triton serves it as proven.
        GraphError: a graph is not the one that was proven.
    """
    root, progress = model_directory.parent, context.progress
    with ExitStack() as published:
        staged = published.enter_context(repository.new_version(model_directory))
        directory = staged.directory
        with progress.step("bundle") as done:
            locks.make(root, bundle.members(root, release.model), done.say)
            release = _fill(context, replace(release, version=staged.version), proven, directory, model_directory)
            for name in bundle.outside(root, release.model):
                done.say(f"{name} is above another network, too: no release holds it, it is served as it lies")
            done(f"{', '.join(release.models)}: {sum(file.size_bytes for file in release.files) / 1e6:.1f} MB")
        if context.request.serve:
            release = serve_gate.passed(release, directory, progress)
        with progress.step("publish") as done:
            report.write(release, context.source.spec, _evidence(context, proven), directory)
            whole = seal(release, directory, context.request.signer)
            if not {*release.files} <= {*whole.files}:
                raise PublishError(f"{layout.shown(directory)} was changed while it was published")
            published.close()
            signed = ", signed" if context.request.signer else ""
            done(f"{release.model} version {release.version}{signed}")
    return whole


def _fill(
    context: ExportContext,
    release: Manifest,
    proven: Sequence[ProvenVariant],
    directory: Path,
    model_directory: Path,
) -> Manifest:
    """Write all that decides an answer, and a manifest of it that a server can read; return that."""
    models = bundle.write(model_directory.parent, release.model, directory)
    sealed = directory / bundle.FOLDER
    gates = contract.check_configs(sealed / release.model, context.source.spec)
    release = replace(release, models=models, gates=gates)
    for choice in release.choices:
        _write(choice, proven, directory)
    with _at_work(sealed) as copied:
        requests = golden_requests(context, proven, release.choices, copied / release.model)
    golden.write(requests, directory)
    releases.write(context.source.declared_tables(), directory)
    release = replace(release, golden=dict(Counter(request.model for request in requests)))
    choices = carry_plans(
        release, model_directory, directory, context.progress.say,
        profile=engine.profile_of(context.source.spec), server_tensorrt=context.request.server_tensorrt,
        signer=context.request.signer,
    )  # fmt: skip
    return seal(replace(release, choices=choices), directory, None)


@contextmanager
def _at_work(sealed: Path) -> Iterator[Path]:
    """Yield a copy of the bundle's models to run steps in: they may write beside themselves, Python itself does."""
    with TemporaryDirectory() as scratch:
        copying.copy(sealed, Path(scratch, bundle.FOLDER))
        yield Path(scratch, bundle.FOLDER)


def _write(choice: Choice, proven: Sequence[ProvenVariant], directory: Path) -> None:
    chosen = next(p for p in proven if p.variant.precision == choice.precision)
    if choice.engine is not None:
        assert chosen.plan is not None  # only plans were candidates
        shutil.copyfile(chosen.plan, directory / choice.file)
        return
    graphs.copy(chosen.graph, directory / choice.file)
    if manifest.sha256(directory / choice.file) != chosen.variant.sha256:
        raise GraphError(f"{chosen.graph} changed after it was proven", hint="run the same command with --force")


def _evidence(context: ExportContext, proven: Sequence[ProvenVariant]) -> report.Evidence:
    split, discrete = context.source.held_out, context.source.spec.task in DISCRETE
    return report.Evidence(
        samples=split,
        labels=joined(split.targets) if split.targets is not None and discrete else None,
        reference=context.judged("held-out").answers if discrete else None,
        answers={p.variant.precision: p.answers for p in proven if p.answers is not None and discrete},
        importance=_importance(context, proven),
    )


def _importance(context: ExportContext, proven: Sequence[ProvenVariant]) -> Importance | None:
    """Explain the predictions of the first variant that passed, where its inputs are columns of a table."""
    spec, passed = context.source.spec, next((p for p in proven if p.variant.passed), None)
    if passed is None or not explains(spec):
        return None
    with context.progress.step("importance") as done:
        run = measure.runner(context, passed.variant.precision, passed.graph)
        found = importance(run, context.source.held_out, spec)
        done(f"the most important: {', '.join(list(found.overall)[:3])}")
    return found
