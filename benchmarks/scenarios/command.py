"""A scenario, run by Locust or by k6, against the server that is up: does it hold the limits?

Both load in an open loop. Locust goes through the client library, draws random arrivals, counts latency from the time
that a request was due, and shares the load among processes and machines. k6 is quicker, spaces its arrivals evenly, and
drops what finds no free caller, which counts as failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from benchmarks import results, target, workload
from benchmarks.errors import MeasurementError
from benchmarks.scenarios import recording, scenario, with_k6
from benchmarks.scenarios.scenario import ALL
from benchmarks.scenarios.tally import Limits, Outcome
from cli import tables
from cli.tables import Table, console
from contracts import layout

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main(options: argparse.Namespace) -> int:
    """Run, print and keep; return 0 if it holds the limits."""
    if options.with_ == "k6" and (options.traffic or options.page or options.processes or options.grpc):
        told = "recorded traffic, gRPC, a page and several processes are Locust's"
        raise MeasurementError(told, hint="--with locust")
    if options.traffic:
        recorded = recording.read(options.traffic, options.speed)
        name, judged, seconds = f"{options.traffic.name}, {len(recorded):,} requests", ALL, recorded[-1].at_s
    else:
        chosen = scenario.named(options.scenario, options.rate, options.seconds)
        name, judged, seconds = f"{chosen.name}, up to {options.rate:g}/s", chosen.judged, chosen.seconds
    limits = Limits(options.p95_ms, options.p99_ms, options.max_errors)
    up = target.running()
    for model in () if options.traffic else options.model:
        workload.find(up.http_url, model, target.repository())  # what is wrong with it is said before anything starts
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory(prefix="scenario-") as scratch:
        folder = Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if options.with_ == "k6":
            if options.traffic or options.page or options.processes:
                raise MeasurementError(
                    "recorded traffic, a page and several processes are Locust's", hint="--with locust"
                )
            found = with_k6.run(up.http, chosen, options.model, options.connections, folder)
        else:
            found = _with_locust(up.grpc_url if options.grpc else up.http_url, options, folder / "outcome.json")
    findings = [finding for each in found if each.name == judged for finding in each.findings(limits)]
    console().print(table(found, f"{name}, {seconds:g} s, {options.with_}"))
    print("\n".join(f"✗ {finding}" for finding in findings) or f"✓ {judged} requests hold the limits")
    figures = {"scenario": name, "with": options.with_, "limits": asdict(limits), "findings": findings}
    results.keep("scenario", {**figures, "outcomes": [asdict(each) for each in found]})
    return 1 if findings else 0


def table(found: Sequence[Outcome], title: str) -> Table:
    """Lay out what became of each class."""
    shown = tables.table(
        "", "requests", "right/s", "p50 ms", "p95 ms", "p99 ms", "failed", "waited to be sent", title=title
    )
    for each in found:
        latencies = (f"{value:,.1f}" for value in (each.p50_ms, each.p95_ms, each.p99_ms))
        failed = f"{each.error_share:.2%}"
        shown.add_row(each.name, f"{each.requests:,}", f"{each.per_s:,.1f}", *latencies, failed, f"{each.late:,}")
    return shown


def _with_locust(url: str, options: argparse.Namespace, outcome: Path) -> list[Outcome]:
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--host", url, "--outcome", str(outcome)]
    command += ["-u", str(options.connections), "-r", str(options.connections), "--model", *options.model]
    if options.traffic:
        command += ["--traffic", str(options.traffic), "--speed", str(options.speed)]
    else:
        command += ["--scenario", options.scenario, "--rate", str(options.rate), "--seconds", str(options.seconds)]
    limits = {"--p95-ms": options.p95_ms, "--p99-ms": options.p99_ms, "--max-errors": options.max_errors}
    command += [word for name, value in limits.items() if value is not None for word in (name, str(value))]
    if options.processes:
        command += ["--processes", str(options.processes)]
    if options.page:
        command += ["--autostart", "--web-port", str(options.page)]
        print(f"Locust's page: http://localhost:{options.page}; Ctrl-C ends it", file=sys.stderr)
    else:
        command += ["--headless", "--only-summary", "--loglevel", "WARNING"]
    done = subprocess.run(
        command,
        cwd=layout.ROOT,
        stdout=None if options.page else subprocess.DEVNULL,
        stderr=None if options.page else subprocess.PIPE,
        text=True,
        check=False,
    )
    if not outcome.is_file():
        lines = (done.stderr or "").splitlines()
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines[-3:]
        raise MeasurementError(f"Locust ended with {done.returncode}, and nothing was counted", note="\n".join(said))
    return [Outcome(**each) for each in json.loads(outcome.read_text())]
