"""The release report: what was tried, what was proven and what is served, for people to read and to keep."""

from pathlib import Path

from contracts.manifest import Manifest
from contracts.spec import ModelSpec
from export.report.evidence import Evidence

__all__ = ["Evidence", "write"]


def write(release: Manifest, spec: ModelSpec, evidence: Evidence, directory: Path) -> None:
    """Write `report.html` (self-contained: no network, no other files), `report.md` and `MODEL_CARD.md`."""
    from export.report import page  # jinja2 and Pillow, which `--help` shall not wait for

    for name, text in page.render(release, spec, evidence).items():
        (directory / name).write_text(text, encoding="utf-8")
