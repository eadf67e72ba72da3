"""List what is published: python -m export list [--json]."""

import argparse
import json
from dataclasses import asdict

from cli.tables import Table, console, table
from contracts import layout, manifest
from contracts.errors import ManifestError
from contracts.manifest import Manifest
from export.published import releases
from export.published.releases import Release


def list_versions(options: argparse.Namespace) -> int:
    """List every published version, parked ones too, a row each.

    Returns:
        The exit code: 1 if a manifest cannot be read, which hides no other version.
    """
    found, faults = [], []
    for release in releases.every(options.repository):
        try:
            found.append((release, manifest.read(release.directory)))
        except ManifestError as error:
            faults.append((release, str(error)))
    if options.json:
        described = [asdict(told) | {"state": release.state, "refusal": release.refusal} for release, told in found]
        described += [{"model": r.network, "version": r.version, "state": r.state, "fault": f} for r, f in faults]
        print(json.dumps(described, indent=2))
        return 1 if faults else 0
    shown = _table(found) if found else f"Nothing is published in {layout.shown(options.repository)}"
    console(width=150).print(shown)
    for release, fault in faults:
        print(f"✗ {release.network} version {release.version} ({release.state}): {fault}")
    for release in [release for release, _ in found if release.refusal is not None]:
        print(f"{release.network} version {release.version} was refused: {release.refusal}")
    for network in [told.model for release, told in found if release.state == "serving" and not told.models]:
        print(f"{network} serves what is not sealed, and changes with the repository: python -m export adopt {network}")
    if not found and not faults:
        print("Next: python -m export FAMILY")
    return 1 if faults else 0


def served_by(told: Manifest) -> str:
    """Say which Triton served a version before it was published."""
    return told.served or ("not yet served" if told.models else "not sealed")


def _table(found: list[tuple[Release, Manifest]]) -> Table:
    headings = ("model", "version", "state", "Triton", "published (UTC)", "from", "files", "metric", "signed")
    shown = table(*headings, left={*headings} - {"version", "metric"})
    for release, told in found:
        score = told.variant_for(told.choices[0].file).score if told.choices else None
        metric = told.metric
        shown.add_row(
            told.model, str(told.version), release.state, served_by(told),
            told.created_at[:16].replace("T", " "),
            f"{told.source.file} {told.source.sha256[:12]}",
            ", ".join(f"{choice.precision} {choice.file}" for choice in told.choices),
            f"{metric.name} {metric.shown(score)}" if metric and score is not None else "—",
            "yes" if (release.directory / manifest.SIGNATURE).exists() else "no",
        )  # fmt: skip
    return shown
