"""The pictures of a result, one a question, each for one model: a newcomer reads them without the text."""

import io
from collections.abc import Callable, Sequence
from dataclasses import astuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator

from benchmarks.reporting.measurements import LIMIT, NOTHING, OURS, Measurement, Result
from benchmarks.rounds import Interval
from cli import plots
from cli.plots import AMBER, BLUE, GREEN, GREY, INK, VERMILION
from cli.terminal import plain

_OTHERS = (AMBER, GREEN, "#56b4e9", "#cc79a7", "#882255", "#f0e442")  # none is black, as intervals are
_PERCENTILES = (50, 90, 99, 99.9, 99.99)
_MARKERS = "osD^vPX*"
_DOWN = "←"  # on the axis, whose label is turned


def svg(draw: Callable[[Figure, Result, str], None], result: Result, task: str, height_in: float = 4.2) -> str:
    """Draw a picture of one model, as SVG."""
    stream = io.StringIO()
    with plots.figure(8.5, height_in, style={"svg.hashsalt": "same", "svg.fonttype": "none"}) as figure:
        draw(figure, result, task)
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def png(draw: Callable[[Figure, Result, str], None], result: Result, task: str, height_in: float = 4.2) -> bytes:
    """Draw a picture of one model, as PNG."""
    stream = io.BytesIO()
    with plots.figure(8.5, height_in, dpi=120) as figure:
        draw(figure, result, task)
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def throughput_and_tail(figure: Figure, result: Result, task: str) -> None:
    """Draw throughput against the 99th percentile: a line a system, a point a number of connections."""
    axes = figure.subplots()
    for system in _served(result, task):
        points = sorted((one for one in result.of(task) if one.system == system), key=lambda one: one.connections)
        x = [one.median("per_s").median for one in points]
        y = [one.median("p99_ms").median for one in points]
        own = system == OURS
        axes.plot(
            x,
            y,
            marker=_marker(result, task, system),
            color=colour(result, task, system),
            linewidth=2.5 if own else 1.2,
            label=plain(result.label(system)),
            zorder=3 if own else 2,
        )
        if own:
            for one, at in zip(points, zip(x, y, strict=True), strict=True):
                axes.annotate(
                    str(one.connections), at, (0, 7), textcoords="offset points", ha="center", color=INK, fontsize=8
                )
    axes.set(yscale="log", xlabel="answers a second  → better", ylabel=f"99th percentile, ms  {_DOWN} better")
    numbers = sorted({one.connections for one in result.of(task)})
    axes.set_title(f"How much, and how long the slowest 1 % wait ({', '.join(map(str, numbers))} connections)")
    _plain_numbers(axes.yaxis)
    axes.set_xlim(left=0)
    figure.legend(loc="outside right upper", frameon=False)


def latencies(figure: Figure, result: Result, task: str) -> None:
    """Draw what share of the answers took how long, at the most connections; both axes show the tail."""
    axes = figure.subplots()
    for one in result.of(task, result.most_connections(task)):
        if not one.latency_us:
            continue
        values, counts = np.array([*one.latency_us]), np.array([*one.latency_us.values()])
        order = np.argsort(values)
        below = counts[order].cumsum() / counts.sum()
        at = np.append(below[:-1], 1 - 0.5 / counts.sum())  # the slowest is no 100th percentile
        own = one.system == OURS
        axes.plot(
            -np.log10(1 - np.clip(at, 0, 1 - 1e-9)), values[order] / 1e3, color=colour(result, task, one.system),
            linewidth=2.5 if own else 1.2, label=plain(result.label(one.system)), zorder=3 if own else 2,
        )  # fmt: skip
    axes.set(yscale="log", ylabel=f"latency, ms  {_DOWN} better", xlabel="percentile of the answers")
    axes.set_title(f"How long answers take, {result.most_connections(task)} connections")
    axes.xaxis.set_major_locator(FixedLocator([float(-np.log10(1 - each / 100)) for each in _PERCENTILES]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{each:g} %" for each in _PERCENTILES]))
    _plain_numbers(axes.yaxis)
    figure.legend(loc="outside right upper", frameon=False)


def shares(figure: Figure, result: Result, task: str) -> None:
    """Draw what each system answers of the limit in process, with its interval."""
    found = [(one, share) for one in result.of(task, result.most_connections(task)) if (share := result.share(one))]
    found = sorted(((one, share) for one, share in found if one.system != LIMIT), key=lambda pair: pair[1].median)
    axes = _bars(figure, result, [one for one, _ in found])
    for row, (one, share) in enumerate(found):
        told = f"{share.median:.0%} ({one.median('per_s').median:,.0f}/s)"
        _bar(axes, row, Interval(*(100 * each for each in astuple(share))), told, colour(result, task, one.system))
    axes.axvline(100, color=INK, linestyle="--", linewidth=1)
    axes.set_xlim(0, max(105, 1.2 * max((100 * share.high for _, share in found), default=0)))
    axes.set(xlabel="% of what this machine answers without any server (dashed)  → better")
    axes.set_title(f"Share of the limit, {result.most_connections(task)} connections")


def cpu(figure: Figure, result: Result, task: str) -> None:
    """Draw the CPU that a sample costs on the server's side, at the most connections."""
    found = sorted(result.of(task, result.most_connections(task)), key=lambda one: -one.median("cpu_us").median)
    axes = _bars(figure, result, found)
    for row, one in enumerate(found):
        taken = one.median("cpu_us")
        _bar(axes, row, taken, f"{taken.median:,.0f} µs", colour(result, task, one.system))
    axes.set_xlim(0, 1.2 * max(one.median("cpu_us").high for one in found))
    axes.set(xlabel="µs of CPU, all processes of the server  ← better")
    axes.set_title(f"What an answer costs, {result.most_connections(task)} connections")


PICTURES: dict[str, Callable[[Figure, Result, str], None]] = {
    "throughput-and-tail": throughput_and_tail,
    "share-of-the-limit": shares,
    "latencies": latencies,
    "cpu": cpu,
}


def colour(result: Result, task: str, system: str) -> str:
    """Return the colour of a system, the same one in every picture of a model."""
    if system in (OURS, LIMIT, NOTHING):
        return {OURS: BLUE, LIMIT: GREY, NOTHING: GREY}[system]
    others = [one for one in _systems(result.of(task)) if one not in (OURS, LIMIT, NOTHING)]
    return (VERMILION, *_OTHERS)[others.index(system) % (1 + len(_OTHERS))]


def _bars(figure: Figure, result: Result, systems: Sequence[Measurement]) -> Axes:
    """Return axes with a row a system, from below."""
    axes = figure.subplots()
    axes.set_yticks(range(len(systems)), [plain(result.label(one.system)) for one in systems])
    axes.grid(visible=False, axis="y")
    return axes


def _bar(axes: Axes, row: int, value: Interval, told: str, colour: str) -> None:
    """Draw a value with its interval, and what it is behind both."""
    axes.barh(row, value.median, color=colour, height=0.6)
    axes.plot([value.low, value.high], [row, row], color=INK, linewidth=1.5)
    at = (max(value.median, value.high), row)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.annotate(told, at, (5, 0), textcoords="offset points", va="center", fontsize=8.5, bbox=box)


def _marker(result: Result, task: str, system: str) -> str:
    return _MARKERS[_systems(result.of(task)).index(system) % len(_MARKERS)]


def _served(result: Result, task: str) -> list[str]:
    return [system for system in _systems(result.of(task)) if system not in (LIMIT, NOTHING)]


def _systems(found: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(one.system for one in found))


def _plain_numbers(axis: "object") -> None:
    from matplotlib.ticker import LogLocator

    axis.set_major_formatter("{x:g}")  # type: ignore[attr-defined]  # 10, 20, 50, not powers
    axis.set_minor_locator(LogLocator(subs=(2, 5)))  # type: ignore[attr-defined]
    axis.set_minor_formatter("{x:g}")  # type: ignore[attr-defined]
