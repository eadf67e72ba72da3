"""Many requests through the gateway, see `soak_run.py`: a table, a verdict, and all samples and figures."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from benchmarks import results
from benchmarks.gateway.soak_run import Settings, Soak, run
from cli import tables
from cli.tables import Table, console
from contracts import layout


def main(options: argparse.Namespace) -> int:
    """Soak, print and keep; return 0 if every answer has its record and nothing grew."""
    soak = run(
        Settings(options.requests, options.kills, options.away, options.connections, options.limit_percent / 100)
    )
    figures = summary(soak)
    kept = results.write("gateway-soak", figures)
    if options.json:
        print(json.dumps(results.plain(figures)))
    else:
        console().print(table(soak))
        print(f"Kept in {layout.shown(kept)}")
        print(verdict(soak))
    return 1 if soak.findings else 0


def summary(soak: Soak) -> dict[str, Any]:
    """Return every figure as what json.dumps takes."""
    load = soak.load
    return {
        "holds": not soak.findings,
        "findings": soak.findings,
        "requests": load.total,
        "answers": {f"{door} {status}": number for (door, status), number in sorted(load.answers.items())},
        "records": {f"{door} {status}": number for (door, status), number in sorted(soak.stored.requests.items())},
        "rows": sum(load.rows.values()),
        "rows_recorded": sum(soak.stored.rows.values()),
        "seconds": round(soak.seconds, 1),
        "per_s": round(load.answered / soak.seconds) if soak.seconds else None,
        "caught_up_s": round(soak.caught_up_s, 1),
        "waited_at_most": waited_at_most(soak),
        "connections": soak.settings.connections,
        "outages": [asdict(outage) for outage in soak.outages],
        "memory_mb": {name: {"second_quarter": a, "last_quarter": b} for name, (a, b) in soak.growth.items()},
        "limit": soak.settings.limit,
        "samples": [asdict(sample) for sample in soak.samples],
    }


def table(soak: Soak) -> Table:
    """Lay out answers beside records, by door and status, and the memory."""
    load, stored = soak.load, soak.stored
    kills, minutes = len(soak.outages), soak.seconds / 60
    memory = "; ".join(f"{name} {first:.1f} → {last:.1f} MB" for name, (first, last) in soak.growth.items())
    shown = tables.table(
        "door", "status", "answers", "records", "rows answered", "rows recorded", "",
        title=f"{load.answered:,} requests in {minutes:.1f} minutes, PostgreSQL killed {kills} times",
        caption=f"Memory from the second quarter of the requests to the last: {memory or 'not seen'}",
    )  # fmt: skip
    for kind in sorted({*load.answers, *stored.requests}):
        counts = [found.get(kind, 0) for found in (load.answers, stored.requests, load.rows, stored.rows)]
        same = counts[0] == counts[1] and counts[2] == counts[3]
        shown.add_row(kind[0], str(kind[1]), *(f"{number:,}" for number in counts), tables.mark(same))
    return shown


def verdict(soak: Soak) -> str:
    """Say in one line whether it holds."""
    if soak.findings:
        return f"✗ FAILED: {'; '.join(soak.findings)}"
    rate = f"{soak.load.answered / soak.seconds:,.0f} a second"
    waited = f"{waited_at_most(soak):,} records waited at most, the last was written {soak.caught_up_s:.1f} s after it"
    return f"✓ {soak.load.answered:,} answers, {rate}, and as many records, each the answer's own; {waited}"


def waited_at_most(soak: Soak) -> int:
    """Return how many records waited for the database at the worst moment that was looked at."""
    return max((sample.answered - sample.written for sample in soak.samples), default=0)
