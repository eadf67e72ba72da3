"""Releases as tables for people."""

from collections.abc import Sequence

from cli.tables import Table, escape, mark, table
from contracts.manifest import Gate, Manifest, Variant, find_gate


def variants_table(release: Manifest) -> Table:
    """Lay out the variants, a row each: what one answers, what it costs, and whether it may be served."""
    files = list(dict.fromkeys(file for variant in release.variants for file in variant.timings))
    reference = release.reference_accuracy
    known = "" if reference is None else f" (the reference's accuracy is {reference:.4f})"
    timed = [f"{file.partition('.')[2]} ms,\nbatch {batch}" for file in files for batch in _batches(release, file)]
    proven = ("accuracy", "drop at\nmost", "agree-\nment", "ONNX\nMB", "engine\nMB")
    text = ("variant", "computes in", "verdict")
    shown = table("variant", *proven, "computes in", *timed, "verdict", title=f"{release.model}{known}", left=text)
    for variant in release.variants:
        shown.add_row(*_row(variant, files, release))
    return shown


def gates_table(title: str, gates: Sequence[Gate]) -> Table:
    """Lay out the gates, a row each: figure, limit and verdict."""
    headings = ("gate", "figure", "limit", "", "detail")
    shown = table(*headings, title=escape(title), left=("gate", "", "detail"), title_justify="left")
    for gate in gates:
        sign = "≤" if gate.bound == "at most" else "≥"
        shown.add_row(gate.name, f"{gate.figure:.5g}", f"{sign} {gate.limit:g}", mark(gate.passed), escape(gate.detail))
    return shown


def _row(variant: Variant, files: list[str], release: Manifest) -> list[str]:
    served = [choice.file for choice in release.choices if choice.precision == variant.precision]
    engine = variant.engine
    return [
        variant.precision,
        "—" if variant.accuracy is None else f"{variant.accuracy:.4f}",
        _figure(variant, "accuracy_drop", "{:.2f}"),
        _figure(variant, "agreement", "{:.2%}"),
        f"{variant.size_bytes / 1e6:.2f}",
        f"{engine.size_bytes / 1e6:.2f}" if engine else "—",
        ", ".join(f"{part:.0%} {dtype}" for dtype, part in engine.dtype_share.items()) if engine else "—",
        *(
            f"{variant.timings[file].median_ms[batch]:.2f}" if file in variant.timings else "—"
            for file in files
            for batch in _batches(release, file)
        ),
        "[red]REFUSED" if not variant.passed else " ".join(served) or "passed",
    ]


def _figure(variant: Variant, gate_id: str, shape: str) -> str:
    found = find_gate(variant.gates, gate_id)
    return shape.format(found.figure) if found else "—"


def _batches(release: Manifest, file: str) -> list[str]:
    return next((list(v.timings[file].median_ms) for v in release.variants if file in v.timings), [])
