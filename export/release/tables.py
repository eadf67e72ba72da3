"""Releases as tables for people."""

from collections.abc import Sequence

from cli.tables import Table, Text, mark, table
from contracts.manifest import Gate, Manifest, Variant, find_gate


def variants_table(release: Manifest) -> Table:
    """Lay out the variants, a row each: what one answers, what it costs, and whether it may be served."""
    files = list(dict.fromkeys(file for variant in release.variants for file in variant.timings))
    known, metric = "", release.metric
    if release.reference_score is not None and metric:
        known = f" (the reference's {metric.name} is {metric.shown(release.reference_score)})"
    timed = [f"{file.partition('.')[2]} ms,\nbatch {batch}" for file in files for batch in _batches(release, file)]
    proven = (metric.name if metric else "metric", "drop at\nmost", "agree-\nment", "ONNX\nMB", "engine\nMB")
    # Not the kernels': TensorRT may compute a layer in a higher type than it is asked for.
    types = "types in the\nnetwork"
    text = ("variant", types, "verdict")
    shown = table("variant", *proven, types, *timed, "verdict", title=f"{release.model}{known}", left=text)
    for variant in release.variants:
        shown.add_row(*_row(variant, files, release))
    return shown


def differences_table(release: Manifest) -> Table | None:
    """Lay out how far the outputs moved from the reference's, a row each; None where that was not recorded."""
    rows = [(output, v.precision, d) for v in release.variants for output, d in v.differences.items()]
    if not rows:
        return None
    headings = ("output", "variant", "largest\ndifference", "99 %\nwithin", "mean", "RMS, of the\noutput's RMS")
    shown = table(*headings, title="how far the numbers moved", left=("output", "variant"), title_justify="left")
    for output, precision, d in sorted(rows, key=lambda row: row[0]):
        figures = (f"{d.largest:.3g}", f"{d.p99:.3g}", f"{d.mean:.3g}", f"{d.relative:.3%}")
        shown.add_row(output, precision, *figures)
    return shown


def reference_line(release: Manifest) -> str:
    """Say what the variants were compared with."""
    if release.source.compared_with:
        return f"The reference is what {release.source.compared_with} computes."
    return (
        "Not compared with its framework: the reference is the graph as it was brought. "
        "Samples with expected.OUTPUT arrays compare it."
    )


def latency_line(release: Manifest) -> str | None:
    """Say that no GPU was measured, where only a CPU's latencies are known."""
    files = {file for variant in release.variants for file in variant.timings}
    if not files or any(file.endswith(".plan") for file in files):
        return None
    return "GPU: not measured. The latencies are this machine's CPU's, where FP16 and INT8 say nothing of a GPU."


def runtime_line(release: Manifest) -> str | None:
    """Say of what TensorRT compiled nothing of why, and what serves it; None where it did."""
    if release.without_tensorrt is None:
        return None
    return f"For a CPU alone, and never for a GPU: {release.without_tensorrt}. ONNX Runtime serves it."


def gates_table(title: str, gates: Sequence[Gate]) -> Table:
    """Lay out the gates, a row each: figure, limit and verdict."""
    headings = ("gate", "figure", "limit", "", "detail")
    shown = table(*headings, title=title, left=("gate", "", "detail"), title_justify="left")
    for gate in gates:
        sign = "≤" if gate.bound == "at most" else "≥"
        shown.add_row(gate.name, f"{gate.figure:.5g}", f"{sign} {gate.limit:g}", mark(gate.passed), gate.detail)
    return shown


def _row(variant: Variant, files: list[str], release: Manifest) -> list[str | Text]:
    served = [choice.file for choice in release.choices if choice.precision == variant.precision]
    engine = variant.engine
    return [
        variant.precision,
        release.metric.shown(variant.score) if release.metric else "—",
        _figure(variant, "metric_drop", "{:.2f}" if release.metric and release.metric.share else "{:.3g}"),
        _figure(variant, "agreement", "{:.2%}"),
        f"{variant.size_bytes / 1e6:.2f}",
        f"{engine.size_bytes / 1e6:.2f}" if engine else "—",
        ", ".join(f"{part:.0%} {dtype}" for dtype, part in engine.dtype_share.items()) if engine else "—",
        *(
            f"{variant.timings[file].median_ms[batch]:.2f}" if file in variant.timings else "—"
            for file in files
            for batch in _batches(release, file)
        ),
        Text("REFUSED", "red") if not variant.passed else " ".join(served) or "passed",
    ]


def _figure(variant: Variant, gate_id: str, shape: str) -> str:
    found = find_gate(variant.gates, gate_id)
    return shape.format(found.figure) if found else "—"


def _batches(release: Manifest, file: str) -> list[str]:
    return next((list(v.timings[file].median_ms) for v in release.variants if file in v.timings), [])
