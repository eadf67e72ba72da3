"""Half of a server's peak load for a long time, see `soak_run.py`: a table, a picture, all samples and figures."""

import argparse
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results, target, workload
from benchmarks.serving import memory
from benchmarks.serving.memory import Sample
from benchmarks.serving.soak_run import Settings, Soak, run
from cli import tables
from cli.tables import Table, console
from cli.terminal import Rows
from contracts import layout


def main(options: argparse.Namespace) -> int:
    """Soak the server that is up; return 0 if nothing grew and nothing failed."""
    up = target.running()
    settings = Settings(
        workload=workload.find(f"http://{up.http}", options.model, Path(up.repository), options.images),
        minutes=options.minutes,
        reload_every_s=options.reload_every,
        limit_mb_per_h=options.limit,
    )
    soak = run(up, settings)
    console().print(table(soak))
    print(f"Sent: {settings.workload}")
    for finding in soak.findings:
        print(f"✗ {finding}")
    results.keep("soak", write(soak, results.directory()))
    return 1 if soak.findings else 0


def write(soak: Soak, directory: Path) -> dict[str, Any]:
    """Write the samples as CSV and the picture of them; return all else that was seen, for machines."""
    stem = directory / f"soak-{soak.began:%Y%m%d-%H%M%S}"
    samples, picture = stem.with_suffix(".csv"), stem.with_suffix(".png")
    with samples.open("w", newline="") as file:
        rows = Rows(file)
        for row in ((f.name for f in fields(Sample)), *map(astuple, soak.samples)):
            rows.write(row)
    memory.plot(soak.samples, soak.growth, [reload.at_s for reload in soak.reloads], picture)
    p50, p99 = np.percentile(np.concatenate(soak.latency_ms), (50, 99)).tolist() if soak.latency_ms else (None, None)
    return {
        "model": soak.settings.workload.model,
        "sent": str(soak.settings.workload),
        "minutes": round(soak.samples[-1].at_s / 60, 2),
        "peak_per_s": round(soak.peak_per_s),
        "outcomes": dict(soak.outcomes),
        "visits": dict(soak.visits),
        "p50_ms": p50,
        "p99_ms": p99,
        "reloads": [asdict(reload) for reload in soak.reloads],
        "warm_up_s": soak.settings.warm_up_s,
        "limit_mb_per_h": soak.settings.limit_mb_per_h,
        "growth": [asdict(growth) for growth in soak.growth],
        "findings": soak.findings,
        "samples": layout.shown(samples),
        "picture": layout.shown(picture),
    }


def table(soak: Soak) -> Table:
    """Lay out the processes, a row each."""
    requests, minutes = soak.outcomes.total() + soak.visits.total(), soak.samples[-1].at_s / 60
    model = soak.settings.workload.model
    title = f"{model}: {requests:,} requests in {minutes:.1f} minutes, {len(soak.reloads)} reloads"
    headings = ("process", "lives", "own memory, MB", "files", "threads", "MB/h", "95 % interval", "")
    shown = tables.table(*headings, title=title)
    for g in soak.growth:
        slope, interval = ("–", "") if g.mb_per_h is None else (f"{g.mb_per_h:+.1f}", f"{g.low:+.1f} … {g.high:+.1f}")
        mark = "grows" if g.over(soak.settings.limit_mb_per_h) else ""
        spans = (f"{g.mb[0]:.1f} → {g.mb[1]:.1f}", *("{} → {}".format(*span) for span in (g.files, g.threads)))
        shown.add_row(g.name, str(g.pids), *spans, slope, interval, mark)
    return shown
