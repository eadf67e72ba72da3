"""What the client library costs on top of tritonclient, and what it gains for many images.

All clients send the same request, for the model's first output, to the same server, interleaved (see
`interleaved.py`); what is compared is compared within the round, and the medians over the rounds count. The work that
every caller has to do, arrays to requests and back, is in all of them.

The library sends an id with each request, by which it knows the response, and a deadline, also as the queue timeout.
"tritonclient, same request" sends these, too, and is what the library is compared with; what they cost by themselves is
the difference to "tritonclient".

What `classify_many` gains over a loop is measured where the model takes images and answers with labels.

With --against, the library is compared with that of another checkout instead: see `against.py`.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks import results, target, workload
from benchmarks.calling import against, bulk
from benchmarks.calling.bulk import BulkResult
from benchmarks.calling.callers import KINDS, Caller, Question, library_caller
from benchmarks.calling.interleaved import AT_ONCE, CallerResult, measure, same_way
from benchmarks.calling.tritonclient_callers import tritonclient_caller
from benchmarks.rounds import median_difference, median_ratio
from cli import tables
from cli.tables import Table, console
from clients.settings import Protocol

_BARE, _SAME, _OURS = "tritonclient", "tritonclient, same request", "ours"

# What the library may cost, and has to gain.
_MAX_ADDED_US, _MIN_THROUGHPUT_RATIO, _MIN_BULK_RATIO = 100, 0.95, 3


def main(options: argparse.Namespace) -> int:
    """Compare the library with tritonclient, or with another checkout's; return 0 if it is within its limits."""
    up = target.running()
    addresses: dict[Protocol, str] = {"grpc": up.grpc, "http": up.http}
    url = f"http://{up.http}"
    sent = workload.find(url, options.model, Path(up.repository), options.images)
    [first, *_] = sent.rows
    workload.answers(url, [first])
    question = Question(first.model, first.inputs, (sent.metadata.outputs[0].name,))
    if options.against:
        return against.report(addresses, question, options.against, options.rounds, options.seconds)
    measured = overhead(addresses, question, options.rounds, options.seconds)
    many = bulk.measure(addresses, sent, options.bulk, max(1, options.rounds // 3)) if bulk.applies(url, sent) else []
    console().print(overhead_table(measured, f"One request to {question.model}"))
    if many:
        console().print(bulk.table(many))
    else:
        print(f"classify_many is for images with labels, which {question.model} is not about: not measured")
    print(f"Sent: one sample of {sent.source}; all clients have to have the same answer, before the time is taken")
    beyond = findings(measured, many)
    print("\n".join(f"✗ {finding}" for finding in beyond) or "✓ Overhead and gain are within their limits")
    summary = {"overhead": [asdict(result) for result in measured], "bulk": [asdict(gain) for gain in many]}
    results.keep("client", {"model": question.model, "sent": sent.source, "findings": beyond, **summary})
    return 1 if beyond else 0


def overhead(addresses: Mapping[Protocol, str], question: Question, rounds: int, seconds: float) -> list[CallerResult]:
    """Time all clients, over both protocols, from threads and from asyncio.

    Args:
        addresses: host:port of each protocol.
        seconds: Of each measurement.

    Raises:
        MeasurementError: the clients do not get the same answer.
    """
    with ExitStack() as opened:
        callers: dict[tuple[str, str], dict[str, Caller]] = {
            (protocol, kind): {
                _BARE: opened.enter_context(tritonclient_caller(protocol, address, kind, question, same_request=False)),
                _SAME: opened.enter_context(tritonclient_caller(protocol, address, kind, question, same_request=True)),
                _OURS: opened.enter_context(library_caller(f"{protocol}://{address}", kind, question)),
            }
            for protocol, address in addresses.items()
            for kind in KINDS
        }
        return measure(callers, rounds, seconds)


def overhead_table(measured: Sequence[CallerResult], what: str) -> Table:
    """Lay out the medians, and how the library compares with tritonclient, round by round."""
    throughputs = [f"{n} at once:\nrequests/s" for n in AT_ONCE]
    title = f"{what}: medians of {len(measured[0].p50_us)} rounds"
    shown = tables.table("", "client", "p50 µs", *throughputs, title=title, left=2)
    for result in measured:
        cells = [f"{median(result.p50_us):,.0f}", *(f"{median(result.per_s[n]):,.0f}" for n in AT_ONCE)]
        if result.client == _OURS:
            same = same_way(measured, result, _SAME)
            ratios = [median_ratio(result.per_s[n], same.per_s[n]) for n in AT_ONCE]
            compared = [f"{median_difference(result.p50_us, same.p50_us):+,.0f}", *(f"{r:.2f}×" for r in ratios)]
            cells = [f"{cell} ({comparison})" for cell, comparison in zip(cells, compared, strict=True)]
        shown.add_row(f"{result.protocol}, {result.of}", result.client, *cells, end_section=result.client == _OURS)
    return shown


def findings(measured: Sequence[CallerResult], many: Sequence[BulkResult]) -> list[str]:
    """Say where the library costs more, or gains less, than it should."""
    beyond = []
    for result in (result for result in measured if result.client == _OURS):
        same, what = same_way(measured, result, _SAME), f"{result.protocol}, {result.of}"
        if (added := median_difference(result.p50_us, same.p50_us)) > _MAX_ADDED_US:
            beyond.append(f"{what}: {added:+.0f} µs at p50 (limit: {_MAX_ADDED_US})")
        for n in AT_ONCE:
            if (ratio := median_ratio(result.per_s[n], same.per_s[n])) < _MIN_THROUGHPUT_RATIO:
                beyond.append(f"{what}: {ratio:.3f} of the throughput of {n} at once (limit: {_MIN_THROUGHPUT_RATIO})")
    for gain in many:
        if gain.ratio < _MIN_BULK_RATIO:
            beyond.append(f"{gain.protocol}: classify_many is {gain.ratio:.1f}× a loop (limit: {_MIN_BULK_RATIO})")
    return beyond
