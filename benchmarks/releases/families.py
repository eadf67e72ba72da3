"""Several families in one server, see `families_run.py`: a table, a picture, and all figures for machines."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import results, target
from benchmarks.releases import families_run
from benchmarks.releases.families_run import Latency, Measured
from benchmarks.rounds import Interval, median_interval, ratios
from cli import plots, tables
from cli.plots import BLUE, GREY, VERMILION
from cli.tables import Table, console
from cli.terminal import plain
from contracts import layout


def main(options: argparse.Namespace) -> int:
    """Measure the families of the server that is up; return 0 if every request was answered."""
    up = target.running()
    families = families_run.find(up, options.models)
    measured = families_run.run(up, families, options.rounds, options.seconds)
    shared_mb = families_run.server_mb(up)
    console(150).print(table(measured))
    print(f"tritonserver itself, which all share: {shared_mb:.0f} MB")
    picture = results.directory() / "families.png"
    plot(measured, picture)
    print(f"Picture: {layout.shown(picture)}")
    failed = sum(latency.failed for found in measured for latency in (*found.alone, *found.beside))
    if failed:
        print(f"✗ {failed:,} requests were not answered")
    results.keep("families", {"server_mb": shared_mb, "families": [as_json(found) for found in measured]})
    return 1 if failed else 0


def table(measured: Sequence[Measured]) -> Table:
    """Lay out the families, a row each; of the rounds the medians."""
    headings = (
        *("model", "version", "processes", "memory,\nMB", "peak,\na second"),
        *("alone:\np50 ms", "p99 ms", "beside:\np50 ms", "p99 ms", "p99, times\nalone"),
    )
    title = f"{len(measured)} in one server: alone, and with the others at half load"
    shown = tables.table(*headings, title=title)
    for found in measured:
        memory = found.memory
        shown.add_row(
            found.family.model,
            str(found.family.version),
            str(memory.processes) if memory else "–",
            f"{memory.proportional_mb:.0f}" if memory else "–",
            f"{found.peak_per_s:,.0f}",
            *_percentiles(found.alone),
            *_percentiles(found.beside),
            f"{ratio.median:.2f} ({ratio.low:.2f} … {ratio.high:.2f})" if (ratio := _ratio(found)) else "–",
        )
    return shown


def plot(measured: Sequence[Measured], path: Path) -> None:
    """Draw the memory of each family, and its 99th percentiles, a dot a round, with their medians."""
    from matplotlib.ticker import LogLocator

    names = [plain(found.family.model) for found in measured]
    with plots.figure(11, 1.6 + 0.6 * len(measured), dpi=120) as figure:
        memory, latency = figure.subplots(1, 2, sharey=True)
        memory.barh(names, [f.memory.proportional_mb if f.memory else 0 for f in measured], color=GREY, height=0.5)
        memory.set(title="memory of its processes", xlabel="MB")
        for row, found in enumerate(measured):
            for offset, colour, rounds in ((-0.13, BLUE, found.alone), (0.13, VERMILION, found.beside)):
                if rounds:
                    p99_ms = [each.p99_ms for each in rounds]
                    latency.plot(p99_ms, [row + offset] * len(p99_ms), ".", color=colour, markersize=4)
                    latency.plot(median(p99_ms), row + offset, "|", color=colour, markersize=14, markeredgewidth=2)
        for colour, label in ((BLUE, "alone"), (VERMILION, "the others at half load")):
            latency.plot([], [], "o", color=colour, label=label)
        latency.set(title="99th percentile", xlabel="ms, a dot a round", xscale="log")
        latency.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        for axis in ("major", "minor"):  # 10, 20, 50, not powers, which would be mathematics
            getattr(latency.xaxis, f"set_{axis}_formatter")("{x:g}")
        figure.legend(loc="outside lower right", ncols=2, frameon=False)
        latency.invert_yaxis()
        figure.savefig(path)


def as_json(found: Measured) -> dict[str, Any]:
    """Return all figures of a family, for machines."""
    family = found.family
    return {
        "model": family.model,
        "models": list(family.models),
        "version": family.version,
        "memory": asdict(found.memory) if found.memory else None,
        "peak_per_s": found.peak_per_s,
        "alone": [asdict(latency) for latency in found.alone],
        "beside": [asdict(latency) for latency in found.beside],
        "p99_ratio": asdict(ratio) if (ratio := _ratio(found)) else None,
    }


def _percentiles(rounds: Sequence[Latency]) -> tuple[str, str]:
    if not rounds:
        return "–", "–"
    return f"{median(r.p50_ms for r in rounds):.2f}", f"{median(r.p99_ms for r in rounds):.2f}"


def _ratio(found: Measured) -> Interval | None:
    """Return how many times as long the 99th percentile is beside the others, round by round; None without any."""
    if not found.beside:
        return None
    return median_interval(ratios([r.p99_ms for r in found.beside], [r.p99_ms for r in found.alone]))
