"""A release's variants as a table for people."""

from rich.table import Table

from contracts.manifest import Manifest, Variant


def variants_table(release: Manifest) -> Table:
    """One row a variant: what it answers, what it costs, and whether it may be served."""
    table = Table(title=f"{release.model}: checkpoint accuracy {release.checkpoint_accuracy:.4f}")
    for heading in ("variant", "accuracy", "agreement", "logit diff", "ONNX", "engine", "latency", "verdict"):
        table.add_column(heading, justify="left" if heading in ("variant", "verdict") else "right", no_wrap=True)
    served = {choice.precision for choice in release.choices}
    for variant in release.variants:
        figures = {gate.name: gate.figure for gate in variant.gates}
        table.add_row(
            variant.precision,
            f"{variant.accuracy:.4f}",
            f"{figures['top-1 agreement']:.2%}",
            f"{figures['largest logit difference']:.2g}",
            f"{variant.size_bytes / 1e6:.2f} MB",
            _engine(variant),
            _latency(variant),
            "published" if variant.precision in served else "passed" if variant.passed else "[red]REFUSED",
        )
    return table


def _engine(variant: Variant) -> str:
    if variant.engine is None:
        return "—"
    share = ", ".join(f"{part:.0%} {dtype}" for dtype, part in variant.engine.dtype_share.items())
    return f"{variant.engine.size_bytes / 1e6:.2f} MB, {share}"


def _latency(variant: Variant) -> str:
    return (
        ", ".join(f"{ms:.2f} ms @ {batch}" for figures in variant.latency_ms.values() for batch, ms in figures.items())
        or "—"
    )
