"""Switch between two releases under load, see `switch_run.py`: a table, every figure, and whether what must hold does.

No request may fail but those that the killed server held or that came before it was back, and no answer may mix
releases.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks import results
from benchmarks.releases.asking import Asked
from benchmarks.releases.switch_run import Change, Settings, SwitchRun, percentile_ms, run
from cli import tables
from cli.tables import Table, console
from contracts import layout


def main(options: argparse.Namespace) -> int:
    """Switch, print and keep; return 0 if what must hold does."""
    result = run(Settings(options.requests, options.connections))
    figures = summary(result)
    record = results.write("switch", figures)
    if options.json:
        print(json.dumps(figures))
    else:
        console().print(table(result))
        print(f"Kept in {layout.shown(record)}")
        print(verdict(result))
    return 1 if result.findings else 0


def summary(result: SwitchRun) -> dict[str, Any]:
    """Return every figure as what json.dumps takes."""
    switches = [change for change in result.changes if change is not result.kill]
    return {
        "holds": not result.findings,
        "findings": result.findings,
        "requests": len(result.asked),
        "connections": result.settings.connections,
        "failed": len(result.failed),
        "failed_by_the_kill": len(result.excused),
        "mixed": len(result.mixed),
        "steady_ms": _latencies(result.steady),
        "during_switches_ms": _latencies([one for switch in switches for one in result.during(switch)]),
        "pause_after_the_kill_s": pause_s if math.isfinite(pause_s := result.back_s - result.kill.start_s) else None,
        "changes": [_of_change(result, change) for change in result.changes],
        "memory_mb": _memory(result),
        "memory": [asdict(seen) for seen in result.memory],
        "errors": sorted({one.error for one in (*result.failed, *result.mixed)}),
    }


def table(result: SwitchRun) -> Table:
    """Lay out the changes, a row each, between what is steady and the memory."""
    shown = tables.table(
        "", "requests", "failed", "p50 ms", "p99 ms", "took ms", "handover ms",
        title=f"{result.settings.connections} connections, two releases that differ in everything",
        caption=_said_of_memory(result),
    )  # fmt: skip
    steady = _latencies(result.steady)
    shown.add_row("steady", f"{len(result.steady):,}", "", _shown(steady["p50"]), _shown(steady["p99"]), "", "")
    for change in result.changes:
        f = _of_change(result, change)
        shown.add_row(
            change.name, f"{f['requests']:,}", f"{f['failed']:,}", _shown(f["p50_ms"]), _shown(f["p99_ms"]),
            f"{f['took_ms']:,.0f}", _shown(f["handover_ms"]),
        )  # fmt: skip
    return shown


def verdict(result: SwitchRun) -> str:
    """Say in one line whether what must hold does."""
    load = f"{len(result.asked):,} requests over {result.settings.connections} connections"
    if result.findings:
        return f"✗ FAILED after {load}: {'; '.join(result.findings)}"
    kill = f"{len(result.excused):,} failed with the killed server, which was back after"
    return f"✓ {load}: none failed, none mixed; {kill} {result.back_s - result.kill.start_s:.1f} s"


def _of_change(result: SwitchRun, change: Change) -> dict[str, Any]:
    within = result.during(change)
    return {
        "name": change.name,
        "requests": len(within),
        "failed": sum(bool(one.error) for one in within),
        **{f"{name}_ms": figure for name, figure in _latencies(within).items()},
        "took_ms": 1e3 * (change.end_s - change.start_s),
        "handover_ms": None if change is result.kill else result.handover_ms(change),
    }


def _latencies(asked: Sequence[Asked]) -> dict[str, float | None]:
    """Return the median and the 99th percentile of the right answers."""
    right = [one for one in asked if not one.error]
    return {name: percentile_ms(right, percent) for name, percent in (("p50", 50), ("p99", 99))}


def _memory(result: SwitchRun) -> dict[str, dict[str, float]]:
    """Return medians before the first change and after the last, and the largest between, by kind."""
    first_s, last_s = result.changes[0].start_s, result.changes[-1].end_s
    before = [seen for seen in result.memory if seen.at_s < first_s]
    after = [seen for seen in result.memory if seen.at_s > last_s]
    return {
        name: {
            "before": median(getattr(seen, kind) for seen in before),
            "peak": max(getattr(seen, kind) for seen in result.memory),
            "after": median(getattr(seen, kind) for seen in after),
        }
        for name, kind in (("rss", "rss_mb"), ("pss", "pss_mb"))
    }


def _said_of_memory(result: SwitchRun) -> str:
    known = _memory(result).items()
    parts = [f"{kind.upper()} {m['before']:.0f}, {m['peak']:.0f}, {m['after']:.0f} MB" for kind, m in known]
    return f"Memory of server and workers before, at most, after: {'; '.join(parts)}"


def _shown(figure: float | None) -> str:
    return "—" if figure is None else f"{figure:.1f}"
