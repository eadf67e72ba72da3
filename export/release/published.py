"""What is published already: list it, show what it was proven to be, verify that it still is that, register it.

python -m export list
python -m export show MODEL [VERSION]
python -m export verify [MODEL [VERSION]] [--verify-key FILE]
python -m export register MODEL [VERSION]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from contracts import layout, manifest, repository, signing
from contracts.errors import ManifestError, ProjectError
from contracts.manifest import FIRST_SCHEMA, Manifest
from contracts.names import RULE, is_model_name
from export.errors import ExportError


def list_versions(options: argparse.Namespace) -> int:
    """List every published version, a row each."""
    releases = [manifest.read(directory) for directory in _published(options.repository)]
    if options.json:
        print(json.dumps([asdict(release) for release in releases], indent=2))
        return 0
    from cli.tables import console, table

    headings = ("model", "version", "published (UTC)", "from", "served", "metric", "signed")
    shown = table(*headings, left={*headings} - {"version", "metric"})
    for release in releases:
        served = ", ".join(f"{choice.precision} {choice.file}" for choice in release.choices)
        score, metric = release.variant_for(release.choices[0].file).score, release.metric
        signed = (_directory(options.repository, release) / manifest.SIGNATURE).exists()
        shown.add_row(
            release.model, str(release.version), release.created_at[:16].replace("T", " "),
            f"{release.source.file} {release.source.sha256[:12]}", served,
            f"{metric.name} {metric.shown(score)}" if metric and score is not None else "—", "yes" if signed else "no",
        )  # fmt: skip
    console().print(shown if releases else f"Nothing is published in {layout.shown(options.repository)}")
    if not releases:
        print("Next: python -m export FAMILY")
    return 0


def show(options: argparse.Namespace) -> int:
    """Show what a version was proven to be, gate by gate."""
    directory = _one(options)
    release = manifest.read(directory)
    if options.json:
        print(json.dumps(asdict(release), indent=2))
        return 0
    from cli.tables import console
    from export.release.tables import differences_table, gates_table, reference_line, variants_table

    out = console()
    out.print(variants_table(release))
    if (moved := differences_table(release)) is not None:
        out.print(moved)
    out.print(gates_table("the release", release.gates))
    for variant in release.variants:
        told = f"{variant.precision}: {variant.recipe}" if variant.recipe else variant.precision
        worth = [timing.worth_it for timing in variant.timings.values() if timing.worth_it]
        engine = variant.engine.gates if variant.engine else ()
        out.print(gates_table(told, [*variant.gates, *engine, *worth]))
        for kept in variant.kept_fp32:
            out.print(f"  kept in FP32: {kept}", soft_wrap=True, markup=False)
    for choice in release.choices:
        out.print(f"{choice.file} is {choice.reason}", soft_wrap=True, markup=False)
    if release.schema_version > FIRST_SCHEMA:  # which did not record it
        out.print(reference_line(release), soft_wrap=True, markup=False)
    out.print(
        f"Made from {release.source.file} ({release.source.sha256}) with: {release.command}",
        soft_wrap=True,
        markup=False,
    )
    out.print(f"Report: {layout.shown(directory / 'report.html')}", soft_wrap=True, markup=False)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Compare versions with what was published and, where a key is known, with what was signed.

    Returns:
        The exit code: 1 if one differs.
    """
    trust = signing.trust_from_environment()
    if options.verify_key or options.verify_chain:
        trust = signing.Trust(options.verify_key, tuple(options.verify_chain or ()))
    if options.version is not None:
        directories = [_one(options)]
    else:
        directories = [d for d in _published(options.repository) if options.model in (None, d.parent.name)]
    if not directories:
        raise ExportError(f"nothing to verify in {layout.shown(options.repository / (options.model or ''))}")
    verdicts = {directory: _fault(directory, trust) for directory in directories}
    if options.json:
        print(json.dumps({str(d): fault or "as published" for d, fault in verdicts.items()}, indent=2))
    else:
        checked = "digests and signature" if trust else "digests"
        for directory, fault in verdicts.items():
            print(f"✗ {fault}" if fault else f"✓ {layout.shown(directory)}: as published ({checked})")
    return 1 if any(verdicts.values()) else 0


def register(options: argparse.Namespace) -> int:
    """Register a version in MLflow, where that failed when it was published."""
    from export.release import registry

    directory = _one(options)
    print(f"Registered as {registry.register(manifest.verify(directory), directory)}, alias {registry.ALIAS}")
    return 0


def _fault(directory: Path, trust: signing.Trust | None) -> str | None:
    try:
        release = manifest.verify(directory)
        if (release.model, str(release.version)) != (directory.parent.name, directory.name):
            raise ManifestError(
                f"{directory} holds another version", note=f"its manifest is of {release.model} {release.version}"
            )
        if trust is not None:
            signing.verify(directory, trust)
    except ProjectError as error:
        return str(error)
    return None


def _published(root: Path) -> Iterator[Path]:
    for model in sorted(path for path in root.glob("*") if path.is_dir()):
        for version in repository.versions(model):
            directory = model / str(version)
            # What holds weights was published, and has to have its manifest; the Python models are git's.
            if _holds_release(directory):
                yield directory


def _holds_release(directory: Path) -> bool:
    return any(path.suffix in (".onnx", ".plan") or path.name == manifest.FILE_NAME for path in directory.iterdir())


def _one(options: argparse.Namespace) -> Path:
    if not is_model_name(options.model):
        raise ExportError(f"a model cannot be called {options.model!r}", note=f"a name has {RULE}")
    model = options.repository / options.model
    versions = repository.versions(model)
    version = options.version if options.version is not None else max(versions, default=0)
    if version not in versions:
        known = ", ".join(map(str, versions)) or "none"
        raise ExportError(
            f"{options.model} has no version {version or 'at all'} in {layout.shown(options.repository)}",
            note=f"versions: {known}",
            hint="python -m export list",
        )
    return Path(model / str(version))


def _directory(root: Path, release: Manifest) -> Path:
    return root / release.model / str(release.version)
