"""The model card: what a family says of its model, beside what its export measured and what its manifest knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.entities.declaration import NAN, TEXT, Declaration
from contracts.manifest import Figure, Judge, Manifest, find_gate
from export.report import plots

WHOLE = "all held-out samples"
_MOST_ROWS = 60  # of the picture


@dataclass(frozen=True)
class Row:
    """A segment of the held-out split, and its figures: {metric: text}."""

    segment: str
    samples: int
    figures: Mapping[str, str]


@dataclass(frozen=True)
class Served:
    """A file that is served, and what its variant is worth."""

    file: str
    precision: str
    score: str
    at_most: str  # that it lost of the metric; "" where that was not limited


def content(release: Manifest) -> dict[str, Any]:
    """Return what the templates show of it."""
    segments = {figure.segment: None for figure in release.figures}
    return {
        "card": release.card,
        "splits": release.splits or {"calibration": release.calibration_samples, "held out": release.test_samples},
        "card_metrics": list(dict.fromkeys(figure.metric.name for figure in release.figures)),
        "card_rows": [_row(release, segment) for segment in segments],
        "card_served": [*_served(release)],
        "card_plot": plots.segments(release.figures) if 2 < len(segments) <= _MOST_ROWS else None,
        "knows": _knows(release.entities),
    }


def _row(release: Manifest, segment: str) -> Row:
    own = [figure for figure in release.figures if figure.segment == segment]
    return Row(segment or WHOLE, own[0].samples, {figure.metric.name: shown(figure) for figure in own})


def shown(figure: Figure) -> str:
    """Return a figure with its interval: "92.65 % (92.12 to 93.14)"."""
    if figure.value is None:
        return "—"
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f" ({_number(figure.low, figure.metric)} to {_number(figure.high, figure.metric)})"
    return f"{_number(figure.value, figure.metric)}{' %' * figure.metric.share}{interval}"


def _number(value: float, metric: Judge) -> str:
    return f"{value * 100:.2f}" if metric.share else f"{value:.4g}"


def _served(release: Manifest) -> list[Served]:
    found = []
    for choice in release.choices:
        variant = next((v for v in release.variants if v.precision == choice.precision), None)
        if variant is None or release.metric is None or variant.score is None:
            continue
        drop = find_gate(variant.gates, "metric_drop")
        lost = f"{drop.figure:.3g}{' points' if release.metric.share else ''}" if drop else ""
        score = f"{_number(variant.score, release.metric)}{' %' * release.metric.share}"
        found.append(Served(choice.file, choice.precision, score, lost))
    return found


def _knows(declared: Declaration | None) -> list[tuple[str, str, str]]:
    """List what a caller gives, and what is looked up: (name, what it is, where it is from)."""
    if declared is None:
        return []
    rows = [(entity.name, entity.about or entity.kind, "its caller") for entity in declared.entities]
    for lookup in declared.lookups:
        age = " as of then" if lookup.as_of else ""
        places = [*([lookup.table] if lookup.kept else []), *([f"the feature view {lookup.view}"] * bool(lookup.view))]
        for fill in lookup.fills:
            sent = "NaN" if fill.default == NAN else fill.default
            default = "" if fill.default is None else f"; {sent} where it is not known"
            what = "text" if fill.dtype == TEXT else fill.dtype
            rows.append((fill.name, what, f"{' or '.join(places)}, by {', '.join(lookup.key.values())}{age}{default}"))
    return rows
