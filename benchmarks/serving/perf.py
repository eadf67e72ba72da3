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
from clients.settings import Address
from contracts.running import record


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
    named = {address.protocol: address for address in map(Address.of, options.server)}
    if secure := [str(address) for address in named.values() if address.tls]:
        raise MeasurementError(f"perf_analyzer is asked without TLS here, not {secure[0]}")
    known = {protocol: address.netloc for protocol, address in named.items()}
    if not known and (up := record.running()) is not None:
        known = {"grpc": up.grpc, "http": up.http}
    if lacking := [protocol for protocol in options.protocol if protocol not in known]:
        raise MeasurementError(
            f"no server is named for {lacking[0]}" if known else "no server is up",
            hint=f"add --server {lacking[0]}://HOST:PORT, or leave it out: --protocol {' '.join(known)}"
            if known
            else "python -m deploy up --detach, or name one: --server grpc://HOST:PORT --server http://HOST:PORT",
        )
    return {protocol: known[protocol] for protocol in options.protocol}
