"""A server beyond its capacity, see `overload_run.py`: a table, a picture, and all figures for machines."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results, target, workload
from benchmarks.serving.load import Outcome
from benchmarks.serving.overload_run import AFTER_S, Overload, PriorityResult, Settings, run
from cli import plots, tables
from cli.plots import BLUE, GREY, VERMILION
from cli.progress import Progress
from cli.tables import Table, console
from contracts import layout

_ROWS = (
    "closed-loop peak, a second",
    "offered, a second",
    "answered, a second (of the peak)",
    "in ms: p50, p99 (limit)",
    "refused, a second (told in ms)",
    "failed",
    "recovery, s",
    "memory, MB: before, twice during, after",
)


def main(options: argparse.Namespace) -> int:
    """Overload the server once for every number of samples in a request; return 0 if it held every time."""
    began, up = results.Began.now(), target.running()
    sent = workload.find(f"http://{up.http}", options.model, Path(up.repository), options.images)
    measured = [
        run(
            up.http,
            up,
            Settings(
                workload=sent,
                rows_per_request=count,
                factor=options.factor,
                seconds=options.seconds,
                priority_share=options.priority_share,
            ),
            say=Progress().say,
        )
        for count in options.rows_per_request
    ]
    console(130).print(table(measured))
    print(f"Sent: {sent}")
    kept = results.keep("overload", {"measurements": [as_json(result) for result in measured]}, began)
    for result in measured:
        picture = kept.with_name(f"{kept.stem}-{result.settings.rows_per_request}.png")
        plot(result, picture)
        save_requests(result, picture.with_suffix(".npz"))
        print(f"Picture: {layout.shown(picture)}", file=sys.stderr)
        for finding in result.findings:
            print(f"✗ {finding}", file=sys.stderr)
    return 1 if any(result.findings for result in measured) else 0


def table(measured: Sequence[Overload]) -> Table:
    """Lay out a column for each kind of request and priority."""
    headings, columns = ["requests"], [[*_ROWS]]
    for result in measured:
        rows = result.settings.rows_per_request
        for c in result.classes:
            headings.append(f"{rows} sample{'s' * (rows > 1)}, priority {c.priority or 'default'}")
            columns.append(_column(result, c))
    first = measured[0].settings
    title = f"{first.workload.model}: {first.factor:g} times the peak, open loop, {first.seconds:g} s"
    shown = tables.table(*headings, title=title)
    for row in zip(*columns, strict=True):
        shown.add_row(*row)
    return shown


def as_json(result: Overload) -> dict[str, Any]:
    """Collect all figures; null where there is nothing to measure."""
    log, settings = result.log, result.settings
    lag_ms = 1e3 * (log.sent_s - log.scheduled_s)
    figures = {
        "model": settings.workload.model,
        "sent": str(settings.workload),
        **{field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "workload"},
        "closed_loops": [asdict(peak) for peak in result.peaks],
        "peak_per_s": result.peak.per_s,
        "goodput_share": result.goodput_share,
        "limit_ms": result.limit_ms,
        "by_priority": [asdict(c) for c in result.classes],
        "unloaded_p50_ms": result.unloaded_p50_ms,
        "recovery_s": result.recovery_s,
        "memory_mb": result.memory_mb,
        "generator": {
            "lag_ms": dict(zip(("p50", "p99", "max"), np.percentile(lag_ms, (50, 99, 100)).tolist(), strict=True)),
            "connections": log.connections,
            "cpu_s": log.cpu_s,
        },
        "findings": result.findings,
    }
    return dict(json.loads(json.dumps(figures), parse_constant=lambda constant: None))  # NaN is no JSON


def save_requests(result: Overload, path: Path) -> None:
    """Write what became of every request, as numpy arrays in an .npz file."""
    log = result.log
    np.savez_compressed(
        path,
        scheduled_s=log.scheduled_s,
        sent_s=log.sent_s,
        done_s=log.done_s,
        outcome=np.array([outcome.name for outcome in Outcome])[log.outcome],
        priority=np.array([request.priority for request in result.requests])[log.which],
    )


def plot(result: Overload, path: Path) -> None:
    """Draw over time what is offered, answered and refused a second; how long an answer takes."""
    with plots.figure(11, 6, dpi=120) as figure:
        log = result.log
        rates, latencies = figure.subplots(2, sharex=True)
        edges = np.arange(0, result.ends_s + AFTER_S + 0.5, 0.5)
        answered = log.outcome == Outcome.OK
        for label, times, colour in (
            ("offered", log.scheduled_s, GREY),
            ("answered", log.done_s[answered], BLUE),
            ("refused or failed", log.done_s[~answered], VERMILION),
        ):
            rates.stairs(np.histogram(times, edges)[0] * 2, edges, label=label, color=colour)
        rates.axhline(result.peak.per_s, color=BLUE, linewidth=0.8, linestyle=":", label="closed-loop peak")
        rates.set_ylabel("requests/s")
        bins = np.digitize(log.scheduled_s[answered], edges) - 1
        for percentile, colour in ((50, BLUE), (99, VERMILION)):
            of_bin = [1e3 * log.latency_s[answered][bins == b] for b in range(len(edges) - 1)]
            values = [np.percentile(ms, percentile) if len(ms) else math.nan for ms in of_bin]
            latencies.stairs(values, edges, label=f"p{percentile} of the answers", color=colour)
        latencies.axhline(result.limit_ms, color=GREY, linewidth=0.8, linestyle=":", label="limit")
        latencies.set_yscale("log")
        latencies.set_ylabel("ms from the scheduled time")
        latencies.set_xlabel("seconds")
        for axes in (rates, latencies):
            axes.legend(loc="upper right", fontsize=8)
        figure.savefig(path)


def _column(result: Overload, c: PriorityResult) -> list[str]:
    total_mb = np.sum(list(result.memory_mb.values()) or [[math.nan] * 4], axis=0)
    return [
        f"{result.peak.per_s:,.0f}",
        f"{c.offered_per_s:,.0f}",
        f"{c.goodput_per_s:,.0f} ({c.goodput_per_s / result.peak.per_s:.0%})",
        f"{c.p50_ms:,.0f}, {c.p99_ms:,.0f} ({result.limit_ms:,.0f})",
        f"{sum(c.shed.values()) / result.settings.seconds:,.0f} ({c.shed_p50_ms:.1f})",
        f"{sum(c.failed.values()):,}",
        f"{result.recovery_s:.1f}",
        " → ".join(f"{mb:.0f}" for mb in total_mb),
    ]
