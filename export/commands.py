"""What `python -m export` does with what it was asked: find the source, run the pipeline, say what was published."""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from cli.progress import Progress
from cli.tables import console
from contracts import layout, signing
from contracts.engines.plans import SERVER_TENSORRT
from contracts.errors import SpecError
from contracts.files import spec_file
from contracts.manifest import Manifest
from contracts.running import record
from contracts.spec import PRECISIONS, ModelSpec, Precision
from export import pipeline
from export.cache import Cache
from export.company import alone_if_it_must
from export.context import ExportRequest
from export.errors import ExportError, RegistryError
from export.proof.engine import BuildOptions
from export.registry import checkpoint as registered
from export.registry import versions
from export.release import configs
from export.release.tables import differences_table, latency_line, reference_line, runtime_line, variants_table
from export.scaffold import folders, step_file
from export.source.base import ExportSource
from export.source.graph_file import from_graph
from export.tools import code_digest, gpu, package_versions


def export(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Export what `options` name, publish it and register it; return the exit code.

    Args:
        given: The arguments as they were typed, for the manifest.
    """
    progress = Progress()
    own_steps = step_file.read_all(preprocess=options.preprocess, postprocess=options.postprocess)
    work = layout.artifacts() / "export"
    source = find_source(options, progress, work)
    cache = cache_of(source.spec, work, force=options.force)
    source = alone_if_it_must(source, cache, progress.say)
    model_directory = options.repository / source.spec.model
    with (
        configs.written(model_directory, source.spec, source.calibration) as written,
        folders.around(model_directory, own_steps) as put_around,
    ):
        release = pipeline.run(
            source,
            _request(options, given, source.spec, work),
            model_directory=model_directory,
            cache=cache,
            progress=progress,
        )
    for path in (*written, *put_around):
        progress.say(f"Wrote {layout.shown(path)}, yours to change")
    for line in folders.advice(model_directory, own_steps):
        progress.say(line)
    directory = model_directory / str(release.version)
    if options.json:
        print(json.dumps(asdict(release), indent=2))
    else:
        _tell(release, directory)
    if options.register:
        _register(release, directory, progress)
    progress.say(f"Next: {_next(release.model, options.repository)}")
    return 0


def _next(model: str, repository: Path) -> str:
    """Name the command that serves what was published: by the server that is up over that repository, or a new one."""
    up = record.running()
    if up is not None and Path(up.repository) == repository.resolve():
        return f"python -m deploy reload {model}"
    elsewhere = repository.resolve() != layout.model_repository()
    return f"python -m deploy up{f' --repository {shlex.quote(layout.shown(repository))}' if elsewhere else ''}"


def _request(options: argparse.Namespace, given: Sequence[str], facts: ModelSpec, work: Path) -> ExportRequest:
    request = ExportRequest(
        command=shlex.join(["python", "-m", "export", *given]),
        precisions=_precisions(options.precision, facts),
        server_tensorrt=options.server_tensorrt or SERVER_TENSORRT,
        search=options.search,
        search_budget_s=options.search_budget,
        signer=signing.signer_from_environment(),
        serve=options.serve,
    )
    if options.target == "tensorrt":
        if facts.without_tensorrt is not None:
            raise SpecError(
                f"there are no plans of {facts.model}: {facts.without_tensorrt}",
                hint="leave --target away: ONNX Runtime serves it on a CPU",
            )
        request = replace(request, engines=BuildOptions("tensorrt", options.hardware_compatible, work / "timing"))
    return request


def cache_of(facts: ModelSpec, work: Path, *, force: bool = False) -> Cache:
    """Return the cache of a model's exports: of these packages, this GPU and this code.

    Args:
        force: Do not look into it.
    """
    return Cache(work / facts.family, package_versions() | gpu() | {"code": code_digest()}, force=force)


def find_source(options: argparse.Namespace, progress: Progress, work: Path) -> ExportSource:
    """Find what the arguments of an export name.

    Args:
        work: What is downloaded goes in there.

    Raises:
        ProjectError: there is no such checkpoint, graph, module or data, or it is not what it should be.
    """
    if options.onnx:
        facts = spec_file.read(options.spec)
        progress.say(f"Exporting {layout.shown(options.onnx)}")
        return from_graph(options.onnx, facts, options.inputs, options.calibration_samples)
    if options.torch:
        from export.source.torch_module import from_torch

        known = spec_file.read(options.spec) if options.spec else None
        progress.say(f"Exporting {options.torch}")
        return from_torch(
            options.torch,
            options.weights,
            options.inputs,
            known,
            options.calibration_samples,
            progress.say,
            ema=options.ema,
        )

    # With torch and Lightning, seconds to import, which a brought graph does not need.
    from export.source.checkpoint import from_checkpoint
    from training import checkpoints, families

    family = families.load(options.family)
    if not any(options.repository.glob("*/config.pbtxt")):
        raise ExportError(
            f"{options.repository} has no {family.spec.model}/config.pbtxt",
            hint="--repository names a Triton model repository",
        )
    reference = options.reference or options.run_id
    if reference:
        path = registered.download(reference, work / family.name / "downloaded")
    else:
        path = options.checkpoint or checkpoints.newest(family.name)
    checkpoint = checkpoints.read(path, family, progress.say, ema=options.ema)
    progress.say(f"Exporting {layout.shown(checkpoint.path)}")
    return from_checkpoint(family, checkpoint, options.calibration_samples)


def _precisions(asked: list[Precision] | None, facts: ModelSpec) -> list[Precision]:
    if missing := [precision for precision in asked or () if precision not in facts.limits]:
        tables = ", ".join(f"[limits.{precision}]" for precision in missing)
        raise SpecError(
            f"the spec of {facts.model} has no limits for {', '.join(missing)}",
            hint=f"give it {tables}: how far answers may be from the reference's, as for {min(facts.limits)}",
        )
    return [precision for precision in PRECISIONS if precision in (asked or facts.limits)]


def _tell(release: Manifest, directory: Path) -> None:
    out = console()
    out.print(variants_table(release))
    if release.metric is None and (moved := differences_table(release)) is not None:
        out.print(moved)
    for line in (reference_line(release), latency_line(release), runtime_line(release)):
        if line is not None:
            out.print(line, soft_wrap=True)
    for choice in release.choices:
        out.print(f"{choice.file} is {choice.reason}", soft_wrap=True)
    out.print(f"\nPublished {release.model} version {release.version}: {layout.shown(directory)}", soft_wrap=True)
    out.print(f"Report: {layout.shown(directory / 'report.html')}", soft_wrap=True)
    if release.served is None:
        out.print("Not yet served: no Triton has loaded it and answered its golden requests.", soft_wrap=True)


def _register(release: Manifest, directory: Path, progress: Progress) -> None:
    try:
        name = versions.register(release, directory)
    except RegistryError as error:
        again = ["python", "-m", "export", "register", release.model, str(release.version)]
        if (repository := directory.parent.parent).resolve() != layout.model_repository():
            again += ["--repository", layout.shown(repository)]
        raise RegistryError(
            f"{release.model} version {release.version} is published, but not registered: {error}",
            hint=f"when MLflow answers again: {shlex.join(again)}",
        ) from error
    progress.say(f"Registered as {name}, alias {versions.CHALLENGER}")
