"""Throughput and latency percentiles by concurrency, as NVIDIA's perf_analyzer sees them."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from benchmarks import results, target, workload
from benchmarks.errors import MeasurementError
from benchmarks.serving import perf_analyzer
from benchmarks.serving.perf_analyzer import Measurement
from benchmarks.workload import Workload
from cli import tables
from cli.progress import track
from cli.tables import Table, console
from deploy.triton import state


def main(options: argparse.Namespace) -> int:
    """Measure every protocol at every concurrency, print and keep."""
    addresses = _addresses(options)
    url = next(f"{protocol}://{addresses[protocol]}" for protocol in options.protocol)
    sent = workload.find(url, options.model, target.repository(), options.images)
    workload.answers(url, sent.requests)
    tool = perf_analyzer.find()
    checked = {protocol: perf_analyzer.checkable(sent, protocol) for protocol in options.protocol}
    requests = {
        protocol: perf_analyzer.write_requests(
            sent, options.requests, checked[protocol], results.directory() / f"perf-requests-{protocol}.json"
        )
        for protocol in options.protocol
    }
    plan = [(protocol, concurrency) for protocol in options.protocol for concurrency in options.concurrency]
    measurements = [
        perf_analyzer.measure(
            tool,
            options.model,
            protocol,
            addresses[protocol],
            concurrency,
            requests[protocol],
            round(options.window * 1000),
        )
        for protocol, concurrency in track(plan, "perf_analyzer", "measurements")
    ]
    title = f"{options.model}: closed loop, 3 windows of {options.window:g} s"
    console().print(table(measurements, title))
    said = f"{sent.source}, one sample a request; {_checked(sent, checked)}"
    print(f"Sent: {said}")
    figures = [asdict(measurement) for measurement in measurements]
    results.keep("perf", {"model": options.model, "sent": said, "checked": checked, "measurements": figures})
    return 0


def table(measurements: Sequence[Measurement], title: str) -> Table:
    """Lay out the measurements, a row each."""
    percentiles = ("p50 ms", "p90 ms", "p95 ms", "p99 ms")
    shown = tables.table("protocol", "concurrency", "requests/s", *percentiles, title=title)
    for m in measurements:
        latencies = (f"{ms:.2f}" for ms in (m.p50_ms, m.p90_ms, m.p95_ms, m.p99_ms))
        shown.add_row(m.protocol, str(m.concurrency), f"{m.throughput_per_s:,.0f}", *latencies)
    return shown


def _checked(sent: Workload, checked: Mapping[str, Sequence[str]]) -> str:
    """Say which answers were checked. perf_analyzer compares bytes, which numbers with a tolerance do not keep."""
    if not sent.has_answers:
        return "no golden requests, so that no answer was checked"
    under_load = [f"{' and '.join(names)} over {protocol}" for protocol, names in checked.items() if names]
    return f"answers checked before the load, and under it {'; '.join(under_load) or 'none'}"


def _addresses(options: argparse.Namespace) -> dict[str, str]:
    """Find host:port of each protocol that is asked for: as named, else of the server that is up."""
    up = state.running()
    known = {"grpc": options.grpc or (up and up.grpc), "http": options.http or (up and up.http)}
    if not all(known[protocol] for protocol in options.protocol):
        raise MeasurementError(
            "no server is up", hint="python -m deploy up --detach, or name one: --grpc HOST:PORT --http HOST:PORT"
        )
    return {protocol: str(known[protocol]) for protocol in options.protocol}
