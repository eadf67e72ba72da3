"""What a version was proven to be: show it, verify that it still is that, register it.

python -m export show MODEL [VERSION]
python -m export verify [MODEL [VERSION]] [--verify-key FILE]
python -m export register MODEL [VERSION]
"""

import argparse
import json
from dataclasses import asdict

from contracts import bundle, layout, manifest, signing
from contracts.errors import ProjectError
from contracts.manifest import FIRST_SCHEMA, Manifest
from contracts.trust import identity
from export.errors import ExportError
from export.published import releases
from export.published.releases import Release


def show(options: argparse.Namespace) -> int:
    """Show what a version was proven to be, gate by gate."""
    found = releases.one(options.repository, options.model, options.version)
    directory = found.directory
    release = manifest.read(directory)
    if options.json:
        print(json.dumps(asdict(release), indent=2))
        return 0
    from cli.tables import console
    from export.release.tables import differences_table, gates_table, reference_line, runtime_line, variants_table

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
            out.print(f"  kept in FP32: {kept}", soft_wrap=True)
    for choice in release.choices:
        out.print(f"{choice.file} is {choice.reason}", soft_wrap=True)
    if release.schema_version > FIRST_SCHEMA:  # which did not record it
        out.print(reference_line(release), soft_wrap=True)
    if (line := runtime_line(release)) is not None:
        out.print(line, soft_wrap=True)
    out.print(_sealed_line(release), soft_wrap=True)
    out.print(f"Made from {release.source.file} ({release.source.sha256}) with: {release.command}", soft_wrap=True)
    out.print(f"Report: {layout.shown(directory / 'report.html')}", soft_wrap=True)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Compare versions with what was published and, where a key is known, with what was signed.

    Returns:
        The exit code: 1 if one differs.
    """
    chain = tuple(options.verify_chain or ())
    trust = signing.trust(options.verify_key, chain, options.verify_identity, options.accept_expired_after)
    if options.version is not None:
        found = [releases.one(options.repository, options.model, options.version)]
    else:
        found = releases.every(options.repository, options.model)
    if not found:
        raise ExportError(f"nothing to verify in {layout.shown(options.repository / (options.model or ''))}")
    verdicts = {release.directory: _fault(release, trust) for release in found}
    if options.json:
        print(json.dumps({str(d): fault or "as published" for d, fault in verdicts.items()}, indent=2))
    else:
        checked = "digests and signature" if trust else "digests"
        for directory, fault in verdicts.items():
            print(f"✗ {fault}" if fault else f"✓ {layout.shown(directory)}: as published ({checked})")
    return 1 if any(verdicts.values()) else 0


def register(options: argparse.Namespace) -> int:
    """Register a version in MLflow, where that failed when it was published."""
    from export.registry import versions

    directory = releases.one(options.repository, options.model, options.version).directory
    print(f"Registered as {versions.register(manifest.verify(directory), directory)}, alias {versions.CHALLENGER}")
    return 0


def _sealed_line(release: Manifest) -> str:
    if not release.models:
        return "Not sealed: the ensembles and steps around it are those that lie in the repository today."
    taken = f" around the graph of version {release.adopted_from}" if release.adopted_from else ""
    served = f"Triton {release.served} served it" if release.served else "it was not yet served"
    return f"Sealed with {', '.join(release.models)}{taken}; {served}."


def _fault(release: Release, trust: signing.Trust | None) -> str | None:
    directory = release.directory
    try:
        identity.verify(directory, release.network, release.version, trust)
        bundle.of(directory.parent.parent, release.network, release.version)
    except ProjectError as error:
        return str(error)
    return None
