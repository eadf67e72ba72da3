"""A scenario, run by Locust or by k6, against the server that is up: does it hold the limits?

Both load in an open loop. Locust goes through the client library, draws random arrivals, counts latency from the time
that a request was due, and shares the load among processes and machines. k6 is quicker, spaces its arrivals evenly, and
drops what finds no free caller, which counts as failed.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from benchmarks import results, target, workload
from benchmarks.errors import MeasurementError
from benchmarks.scenarios import recording, scenario, with_k6, with_locust
from benchmarks.scenarios.scenario import ALL
from benchmarks.scenarios.tally import Limits, Outcome, findings
from cli import tables
from cli.tables import Table, console


def main(options: argparse.Namespace) -> int:
    """Run, print and keep; return 0 if it holds the limits."""
    if options.with_ == "k6" and (options.traffic or options.page or options.processes or options.grpc):
        told = "recorded traffic, gRPC, a page and several processes are Locust's"
        raise MeasurementError(told, hint="--with locust")
    if options.traffic:
        recorded = recording.read(options.traffic, options.speed)
        name, judged, seconds = f"{options.traffic.name}, {len(recorded):,} requests", ALL, recorded[-1].at_s
        pause_s = recording.longest_pause_s(recorded)
        print(f"{name} over {seconds:,.1f} s; the longest pause between two is {pause_s:,.1f} s", file=sys.stderr)
    else:
        chosen = scenario.named(options.scenario, options.rate, options.seconds)
        name, judged, seconds = f"{chosen.name}, up to {options.rate:g}/s", chosen.judged, chosen.seconds
    limits = Limits(options.p95_ms, options.p99_ms, options.max_errors)
    up = target.running()
    for model in () if options.traffic else options.model:
        workload.find(up.http_url, model, target.repository())  # what is wrong with it is said before anything starts
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory(prefix="scenario-") as scratch:
        folder = results.made(Path(scratch))
        try:
            if options.with_ == "k6":
                found = with_k6.run(up.http, chosen, options.model, options.connections, folder)
            else:
                found = with_locust.run(up.grpc_url if options.grpc else up.http_url, options, folder)
        except KeyboardInterrupt:
            print("\nStopped, and nothing was counted. The same command begins anew", file=sys.stderr)
            raise
    against = findings(found, judged, limits)
    console().print(table(found, f"{name}, {seconds:g} s, {options.with_}"))
    print("\n".join(f"✗ {finding}" for finding in against) or f"✓ {judged} requests hold the limits")
    figures = {"scenario": name, "with": options.with_, "limits": asdict(limits), "findings": against}
    results.keep("scenario", {**figures, "outcomes": [asdict(each) for each in found]})
    return 1 if against else 0


def table(found: Sequence[Outcome], title: str) -> Table:
    """Lay out what became of each class."""
    shown = tables.table(
        "", "requests", "right/s", "p50 ms", "p95 ms", "p99 ms", "failed", "waited to be sent", title=title
    )
    for each in found:
        numbers = (each.per_s, each.p50_ms, each.p95_ms, each.p99_ms)
        figures = ("–" if math.isnan(number) else f"{number:,.1f}" for number in numbers)
        shown.add_row(each.name, f"{each.requests:,}", *figures, f"{each.error_share:.2%}", f"{each.late:,}")
    return shown
