"""A release's variants as a table for people."""

from collections.abc import Mapping

from rich.table import Table

from contracts.manifest import Manifest, Variant


def variants_table(release: Manifest) -> Table:
    """One row a variant: what it answers, what it costs, and whether it may be served."""
    timings = [(file, batch) for file, by_batch in _latencies(release).items() for batch in by_batch]
    table = Table(title=f"{release.model} (the checkpoint's accuracy is {release.checkpoint_accuracy:.4f})")
    table.add_column("variant")
    for heading in ("accuracy", "agree-\nment", "logit\ndiff", "ONNX\nMB", "engine\nMB"):
        table.add_column(heading, justify="right")
    table.add_column("engine\ncomputes in")
    for file, batch in timings:
        table.add_column(f"{file.partition('.')[2]} ms,\nbatch {batch}", justify="right")
    table.add_column("verdict")
    for variant in release.variants:
        table.add_row(*_row(variant, timings, release))
    return table


def _row(variant: Variant, timings: list[tuple[str, str]], release: Manifest) -> list[str]:
    figures = {gate.name: gate.figure for gate in variant.gates}
    served = [choice.file for choice in release.choices if choice.precision == variant.precision]
    engine = variant.engine
    return [
        variant.precision,
        f"{variant.accuracy:.4f}",
        f"{figures['top-1 agreement']:.2%}",
        f"{figures['largest logit difference']:.2g}",
        f"{variant.size_bytes / 1e6:.2f}",
        f"{engine.size_bytes / 1e6:.2f}" if engine else "—",
        ", ".join(f"{part:.0%} {dtype}" for dtype, part in engine.dtype_share.items()) if engine else "—",
        *(f"{variant.latency_ms[file][batch]:.2f}" if file in variant.latency_ms else "—" for file, batch in timings),
        "[red]REFUSED" if not variant.passed else " ".join(served) or "passed",
    ]


def _latencies(release: Manifest) -> Mapping[str, Mapping[str, float]]:
    """The one with the most files: a variant may have passed as a graph and not as a plan."""
    return max((variant.latency_ms for variant in release.variants), key=len)
