"""The report's pictures, as SVG data URLs. Text stays text in them, so the reader's own fonts draw every script."""

import base64
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from cli import plots
from cli.plots import AMBER, BLUE, GREEN, GREY, INK, PALE, VERMILION
from cli.terminal import plain
from contracts.manifest import Figure as Measured
from contracts.manifest import Gate, Layer
from contracts.spec import Precision
from export.report.evidence import Recall

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Nothing is said by colour alone.
COLOURS: Mapping[Precision, str] = {"fp32": BLUE, "fp16": AMBER, "bf16": GREY, "fp8": INK, "int8": GREEN}
_MARKERS: Mapping[Precision, str] = {"fp32": "o", "fp16": "s", "bf16": "^", "fp8": "v", "int8": "D"}
_LIGHT = "#b3bac2"  # of what is shown and says little
_WIDTH = 9.6  # inches of 72 points
# Text stays text, and the same figures give the same bytes.
_SVG = {"svg.fonttype": "none", "svg.hashsalt": "report"}
# Where a label may stand from its point, by preference.
_DIRECTIONS = ((-1, 1), (1, 1), (0, 1), (-1, 0), (1, 0), (1, -1), (-1, -1))


@dataclass(frozen=True)
class Point:
    """One variant in the Pareto picture."""

    precision: Precision
    latency_ms: float
    share: float  # accuracy, or agreement with the reference
    low: float  # what the share may be at worst; `share` where no bound is known
    served: bool
    interval_ms: tuple[float, float]  # of the latency; the latency itself where none was measured
    grey: bool = False  # a CPU's figure of a precision that is for GPUs

    @property
    def high(self) -> float:
        """What the share may be at best: as far above it as it may be below."""
        return min(1.0, 2 * self.share - self.low)


@dataclass(frozen=True)
class Attempt:
    """One INT8 recipe in the picture of the search."""

    name: str
    error: float
    gate: Gate | None
    passed: bool
    chosen: bool


def pareto(panels: Mapping[str, Sequence[Point]], share: str, batch: str, reference: float | None) -> str:
    """Draw `share` ("accuracy") against latency, a panel per file; a line joins the best trade-offs."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    points = [point for panel in panels.values() for point in panel]
    top, bottom = max(reference or 0, *(p.high for p in points)), min(p.low for p in points)
    margin = max(top - bottom, 0.002) * 0.2
    with page_figure(3.4 * rows) as figure:
        for number, (file, panel) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(rows, columns, number)
            axes.set(title=file, xlabel=f"median latency of a batch of {batch}, ms")
            axes.set(ylabel=f"{share}, %" if number % columns == 1 % columns else "")
            axes.set(xlim=(0, max(p.latency_ms for p in panel) * (1 + 0.3 * columns)))
            axes.set(ylim=((bottom - margin) * 100, (top + 1.5 * margin) * 100))
            axes.set_yticks([tick for tick in axes.get_yticks()[1:] if tick < 100.001])
            if reference is not None:
                axes.axhline(reference * 100, color=GREY, linestyle=(0, (4, 4)), linewidth=1)
                at_right: dict[str, Any] = {
                    "transform": axes.get_yaxis_transform(),
                    "ha": "right",
                    "va": "bottom",
                    "fontsize": 8.5,
                }
                axes.text(0.99, reference * 100, "reference", **at_right)
            _trade_offs(axes, panel)
        figure.draw_without_rendering()  # the axes must have their final size before labels can be placed
        for axes, panel in zip(figure.axes, panels.values(), strict=True):
            _place_labels(axes, panel)
        return data_url(figure)


def search(attempts: Sequence[Attempt], answer: str) -> str:
    """Draw the error of every INT8 recipe, and the gate figure that decides, in the order they were tried."""
    gates = {row: attempt.gate for row, attempt in enumerate(attempts) if attempt.gate}
    panels = {f"relative error of {answer}": {row: attempt.error for row, attempt in enumerate(attempts)}}
    if gates:
        panels[next(iter(gates.values())).name] = {row: gate.figure for row, gate in gates.items()}
    with page_figure(0.9 + 0.27 * len(attempts)) as figure:
        for number, (title, figures) in enumerate(panels.items(), start=1):
            axes = _rows(figure, [attempt.name for attempt in attempts], (1, len(panels), number))
            axes.set_title(plain(title), loc="left", fontsize=9.5, fontweight="normal")
            axes.grid(axis="y")
            axes.margins(x=0.1)
            for row, value in figures.items():
                if not math.isfinite(value):  # the table says so
                    continue
                passed, chosen = attempts[row].passed, attempts[row].chosen
                colour, marker = (COLOURS["int8"], "o") if passed else (VERMILION, "X")
                axes.plot(value, row, marker, color=colour, markersize=11 if chosen else 7)
                axes.get_yticklabels()[row].set_fontweight("bold" if chosen else "normal")
        for limit in sorted({gate.limit for gate in gates.values()}):
            axes.axvline(limit, color=VERMILION, linestyle=(0, (4, 3)), linewidth=1.2)
        if gates:
            axes.tick_params(labelleft=False)
        return data_url(figure)


def sensitivity(layers: Sequence[Layer], left_out: Sequence[str], answer: str) -> str:
    """Draw what each layer alone costs in 8 bits; those that were left in FP32 stand out."""
    from matplotlib.patches import Patch

    with page_figure(1 + 0.21 * len(layers)) as figure:
        axes = _rows(figure, [layer.name for layer in layers])
        colours = [VERMILION if layer.name in left_out else COLOURS["int8"] for layer in layers]
        lengths = [layer.error if math.isfinite(layer.error) else 0 for layer in layers]
        bars = axes.barh(range(len(layers)), lengths, color=colours, height=0.7)
        axes.bar_label(bars, [f"{layer.error:.2g}" for layer in layers], padding=4, fontsize=8.5)
        axes.set(xlabel=f"relative error of {answer} with this layer alone in INT8")
        axes.margins(x=0.08)
        if left_out:
            keys = {"computed in INT8": COLOURS["int8"], "left in FP32": VERMILION}
            handles = [Patch(color=colour, label=text) for text, colour in keys.items()]
            figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
        return data_url(figure)


def per_class(rows: Sequence[Recall]) -> str:
    """Draw by how many points each variant finds more, or less, of each class than the reference does."""
    variants = list(rows[0].variants)
    with page_figure(1.05 + (0.09 + 0.12 * len(variants)) * len(rows)) as figure:
        axes = _rows(figure, [f"{row.name}  ({row.reference * 100:.1f} %)" for row in rows])
        axes.grid(axis="y", visible=False)
        for row in range(1, len(rows), 2):  # stripes: the eye must find its way from a dot to a name
            axes.axhspan(row - 0.5, row + 0.5, color=PALE, zorder=0)
        axes.axvline(0, color=GREY, linewidth=1)
        for place, precision in enumerate(variants):
            ys = [row + (place - (len(variants) - 1) / 2) * 0.26 for row in range(len(rows))]
            xs = [(row.variants[precision] - row.reference) * 100 for row in rows]
            axes.hlines(ys, 0, xs, color=COLOURS[precision], linewidth=2)
            axes.plot(xs, ys, _MARKERS[precision], color=COLOURS[precision], markersize=6, label=precision)
        lowest, highest = axes.get_xlim()
        axes.set(xlim=(min(lowest, -0.1), max(highest, 0.1)))
        axes.set(xlabel="change of recall, percentage points (in brackets: the reference's)")
        figure.legend(loc="outside upper right", ncols=len(variants), frameon=False)
        return data_url(figure)


def segments(figures: Sequence[Measured]) -> str:
    """Draw each metric of every segment with its interval, a panel each; a line: that of the whole split."""
    metrics = {figure.metric.name: figure.metric for figure in figures}
    names = [name for name in dict.fromkeys(figure.segment for figure in figures) if name]
    with page_figure(1 + 0.27 * len(names)) as figure:
        for number, metric in enumerate(metrics.values(), start=1):
            axes = _rows(figure, names, (1, len(metrics), number))
            scale = 100 if metric.share else 1
            axes.set_title(f"{plain(metric.name)}{', %' * metric.share}", loc="left", fontsize=9.5, fontweight="normal")
            axes.grid(axis="y")
            for known in (each for each in figures if each.metric.name == metric.name):
                if known.value is None:
                    continue
                if not known.segment:
                    axes.axvline(known.value * scale, color=GREY, linestyle=(0, (4, 4)), linewidth=1)
                    continue
                row = names.index(known.segment)
                if known.low is not None and known.high is not None:
                    axes.hlines(row, known.low * scale, known.high * scale, color=BLUE, linewidth=2)
                axes.plot(known.value * scale, row, "o", color=BLUE, markersize=6)
            axes.margins(x=0.1)
            axes.tick_params(labelleft=number == 1)
        return data_url(figure)


@contextmanager
def page_figure(height_in: float) -> "Iterator[Figure]":
    """Open a figure of the page's width, for `data_url`."""
    with plots.figure(_WIDTH, height_in, dpi=72, style=_SVG) as figure, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # from the font that measures; the reader's has it
        yield figure


def data_url(figure: "Figure") -> str:
    """Return the picture as an SVG data URL."""
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    text = plain(svg.getvalue()).replace("'DejaVu Sans'", "system-ui, 'Segoe UI', 'DejaVu Sans'")
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"


def _rows(figure: "Figure", names: Sequence[str], place: tuple[int, int, int] = (1, 1, 1)) -> "Axes":
    """Add axes with one named row each, the first on top."""
    axes = figure.add_subplot(*place)
    told = [plain(name) for name in names]
    axes.set_yticks(range(len(told)), [name if len(name) <= 48 else f"{name[:22]}…{name[-25:]}" for name in told])
    axes.tick_params(left=False)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return axes


def _trade_offs(axes: "Axes", points: Sequence[Point]) -> None:
    """Draw the points with their intervals, and the front: nothing is beyond doubt both faster and better than it."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, -p.share)):
        if not front or (point.share > front[-1].share and not _is_tie(point, front[-1])):
            front.append(point)
    xs = [front[0].latency_ms, *(p.latency_ms for p in front), axes.get_xlim()[1]]
    ys = [axes.get_ylim()[0], *(p.share * 100 for p in front), front[-1].share * 100]
    axes.plot(xs, ys, drawstyle="steps-post", color=GREY, linewidth=1.2)
    axes.fill_between(xs, ys, axes.get_ylim()[0], step="post", color=PALE, zorder=0)
    for p in points:
        x, y, ends, colour = p.latency_ms, p.share * 100, (p.low * 100, p.high * 100), COLOURS[p.precision]
        colour = _LIGHT if p.grey else colour
        whisker: dict[str, Any] = {"color": colour, "markersize": 9, "markeredgewidth": 1.6, "linestyle": "none"}
        axes.vlines(x, *ends, color=colour, linewidth=1.6)
        axes.plot((x, x), ends, "_", **whisker)
        axes.hlines(y, *p.interval_ms, color=colour, linewidth=1.6)
        axes.plot(p.interval_ms, (y, y), "|", **whisker)
        axes.plot(x, y, _MARKERS[p.precision], color=colour, markersize=9, markeredgecolor="white", zorder=4)
        if p.served:
            axes.plot(x, y, "o", markersize=17, markerfacecolor="none", markeredgecolor=INK, zorder=4)


def _is_tie(one: Point, other: Point) -> bool:
    """Tell whether the intervals of two variants overlap on both axes."""
    faster = one.interval_ms[1] < other.interval_ms[0] or other.interval_ms[1] < one.interval_ms[0]
    better = one.high < other.low or other.high < one.low
    return not faster and not better


def _place_labels(axes: "Axes", points: Sequence[Point]) -> None:
    """Place each label inside the axes and where it hides the least: no marker, whisker or label, and then no line."""
    from matplotlib.transforms import Bbox

    lines = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    taken = [text.get_window_extent() for text in axes.texts]
    places = axes.transData.transform([(p.latency_ms, p.share * 100) for p in points])
    for p, (x, y) in zip(points, places, strict=True):
        low = axes.transData.transform((p.latency_ms, p.low * 100))[1]
        left, right = axes.transData.transform([(end, p.share * 100) for end in p.interval_ms])[:, 0]
        taken.append(Bbox([[min(left, x - 10), min(low - 4, y - 10)], [max(right, x + 10), y + 10]]))
    for p, (x, y) in sorted(zip(points, places, strict=True), key=lambda found: -found[0].share):
        tied = [other.precision for other in points if other is not p and _is_tie(p, other)]
        tie = f", a tie with {' and '.join(tied)}" if tied else ""
        text = f"{p.precision}{', served' if p.served else ''}{tie}\n{p.latency_ms:.3g} ms, {p.share * 100:.2f} %"
        font: dict[str, Any] = {"fontsize": 9, "fontweight": "bold" if p.served else "normal", "va": "center"}
        font["color"] = GREY if p.grey else INK
        probe = axes.text(0, 0, text, **font)
        width, height = probe.get_window_extent().padded(3).size
        probe.remove()
        tried = []
        for distance, (right, up) in product((14, 40, 70), _DIRECTIONS):
            offset = (right * distance, up * (distance + 8))
            box = Bbox.from_bounds(x + offset[0] - width * (1 - right) / 2, y + offset[1] - height / 2, width, height)
            outside = any(not axes.bbox.contains(*corner) for corner in box.corners())
            crossed = sum(line.intersects_bbox(box, filled=False) for line in lines)
            tried.append((100 * outside + 10 * box.count_overlaps(taken) + crossed, offset, box, right))
        _, offset, box, right = min(tried, key=lambda found: found[0])
        taken.append(box)
        axes.annotate(
            text,
            xy=(p.latency_ms, p.share * 100),
            xytext=offset,
            textcoords="offset points",
            ha=("right", "center", "left")[right + 1],
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "shrinkB": 9},
            bbox={"color": "white", "alpha": 0.8, "pad": 1},
            zorder=5,
            **font,
        ).set_in_layout(False)
