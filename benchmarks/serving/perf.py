"""Throughput and latency percentiles by concurrency, as NVIDIA's perf_analyzer sees them."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks import results, target
from benchmarks.errors import MeasurementError
from benchmarks.serving import perf_analyzer
from benchmarks.serving.perf_analyzer import Measurement
from cli import tables
from cli.progress import track
from cli.tables import Table, console
from deploy.triton import state


def main(options: argparse.Namespace) -> int:
    """Measure every protocol at every concurrency, print and keep."""
    addresses = _addresses(options)
    images = target.images(options.images)[: options.requests]
    requests = perf_analyzer.write_requests(images, results.directory() / "perf-requests.json")
    tool = perf_analyzer.find()
    plan = [(protocol, concurrency) for protocol in options.protocol for concurrency in options.concurrency]
    measurements = [
        perf_analyzer.measure(
            tool, options.model, protocol, addresses[protocol], concurrency, requests, round(options.window * 1000)
        )
        for protocol, concurrency in track(plan, "perf_analyzer", "measurements")
    ]
    title = f"{options.model}: PNG bytes to label, closed loop, 3 windows of {options.window:g} s"
    console().print(table(measurements, title))
    results.keep("perf", {"model": options.model, "measurements": [asdict(m) for m in measurements]})
    return 0


def table(measurements: Sequence[Measurement], title: str) -> Table:
    """Lay out the measurements, a row each."""
    percentiles = ("p50 ms", "p90 ms", "p95 ms", "p99 ms")
    shown = tables.table("protocol", "concurrency", "requests/s", *percentiles, title=title)
    for m in measurements:
        latencies = (f"{ms:.2f}" for ms in (m.p50_ms, m.p90_ms, m.p95_ms, m.p99_ms))
        shown.add_row(m.protocol, str(m.concurrency), f"{m.throughput_per_s:,.0f}", *latencies)
    return shown


def _addresses(options: argparse.Namespace) -> dict[str, str]:
    """Find host:port of each protocol that is asked for: as named, else of the server that is up."""
    up = state.running()
    known = {"grpc": options.grpc or (up and up.grpc), "http": options.http or (up and up.http)}
    if not all(known[protocol] for protocol in options.protocol):
        raise MeasurementError(
            "no server is up", hint="python -m deploy up --detach, or name one: --grpc HOST:PORT --http HOST:PORT"
        )
    return {protocol: str(known[protocol]) for protocol in options.protocol}
