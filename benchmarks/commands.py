"""What `python -m benchmarks` does, once its arguments are understood.

Each imports its benchmark itself: they need different and heavy libraries.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from benchmarks.errors import MeasurementError
from contracts import layout
from deploy.triton import state

_LEAST_GOODPUT = 0.9  # of the peak, in a retry storm


def perf(options: argparse.Namespace) -> int:
    from benchmarks.serving import perf

    up = state.running()
    addresses = {"grpc": options.grpc or (up and up.grpc), "http": options.http or (up and up.http)}
    if not all(addresses[protocol] for protocol in options.protocol):
        raise MeasurementError(
            "no server is up", hint="python -m deploy up --detach, or name one: --grpc HOST:PORT --http HOST:PORT"
        )
    images = sorted(options.images.glob("*.png"))
    results = layout.artifacts() / "benchmarks"
    results.mkdir(parents=True, exist_ok=True)
    requests = perf.write_requests(images[: options.requests], results / "perf-requests.json")
    tool = perf.find()
    console = Console(stderr=True)
    plan = [(protocol, concurrency) for protocol in options.protocol for concurrency in options.concurrency]
    measurements = [
        perf.measure(
            tool,
            options.model,
            protocol,
            str(addresses[protocol]),
            concurrency,
            requests,
            round(options.window * 1000),
        )
        for protocol, concurrency in track(plan, "perf_analyzer", console=console, transient=True)
    ]

    table = Table(title=f"{options.model}: PNG bytes to label, closed loop, 3 windows of {options.window:g} s")
    for heading in ("protocol", "concurrency", "requests/s", "p50 ms", "p90 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for m in measurements:
        latencies = (f"{ms:.2f}" for ms in (m.p50_ms, m.p90_ms, m.p95_ms, m.p99_ms))
        table.add_row(m.protocol, str(m.concurrency), f"{m.throughput_per_s:,.0f}", *latencies)
    Console(width=100).print(table)

    _keep("perf", {"model": options.model, "measurements": [asdict(m) for m in measurements]})
    return 0


def overload(options: argparse.Namespace) -> int:
    from benchmarks.serving import overload, overload_report

    up, console = _running(), Console(stderr=True, highlight=False)
    results = [
        overload.run(
            up.http,
            up,
            overload.Settings(
                images=_images(options.images),
                model=options.model,
                images_per_request=images,
                factor=options.factor,
                seconds=options.seconds,
                priority_share=options.priority_share,
            ),
            say=console.print,
        )
        for images in options.images_per_request
    ]
    Console(width=130).print(overload_report.table(results))
    stem = _keep("overload", {"measurements": [overload_report.as_json(result) for result in results]})
    for result in results:
        picture = stem.with_name(f"{stem.stem}-{result.settings.images_per_request}.png")
        overload_report.plot(result, picture)
        overload_report.keep(result, picture.with_suffix(".npz"))
        print(f"Picture: {layout.shown(picture)}", file=sys.stderr)
        for finding in result.findings:
            print(f"✗ {finding}", file=sys.stderr)
    return 1 if any(result.findings for result in results) else 0


def soak(options: argparse.Namespace) -> int:
    from benchmarks.serving import soak

    settings = soak.Settings(
        images=_images(options.images),
        minutes=options.minutes,
        model=options.model,
        reload_every_s=options.reload_every,
        limit_mb_per_h=options.limit,
    )
    result = soak.run(_running(), settings)
    Console(width=120).print(soak.table(result))
    for finding in result.findings:
        print(f"✗ {finding}")
    _keep("soak", soak.write(result, layout.artifacts() / "benchmarks"))
    return 1 if result.findings else 0


def client(options: argparse.Namespace) -> int:
    from benchmarks.calling import client
    from clients.settings import Protocol

    up, images = _running(), _images(options.images)
    addresses: dict[Protocol, str] = {"grpc": up.grpc, "http": up.http}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        ways = client.overhead(addresses, images[0], options.rounds, options.seconds, progress)
        bulk = client.bulk(addresses, images, max(1, options.rounds // 3), progress)
    console = Console(width=100)
    console.print(client.overhead_table(ways))
    console.print(client.bulk_table(bulk))
    beyond = client.findings(ways, bulk)
    print("\n".join(f"✗ {finding}" for finding in beyond) or "✓ Overhead and gain are within their limits")
    _keep("client", {"findings": beyond, "overhead": [asdict(way) for way in ways], "bulk": [asdict(b) for b in bulk]})
    return 1 if beyond else 0


def storm(options: argparse.Namespace) -> int:
    from benchmarks.calling import storm

    images, url = _images(options.images), f"grpc://{_running().grpc}"
    with Progress(console=Console(stderr=True), transient=True) as progress:
        storms = storm.measure(url, images, options.rounds, options.seconds, progress)
    Console(width=100).print(storm.table(storms))
    held = (share := storm.goodput_share(storms)) >= _LEAST_GOODPUT
    print(f"{'✓' if held else '✗'} With retries the goodput is {share:.1%} of the peak (limit: {_LEAST_GOODPUT:.0%})")
    _keep("storm", {"clients": storm.CLIENTS, "goodput_share": share, "ways": [asdict(one) for one in storms]})
    return 0 if held else 1


def shared_memory(options: argparse.Namespace) -> int:
    from benchmarks.calling import shared_memory

    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = shared_memory.measure(options.rounds, options.seconds, progress)
    Console(width=100).print(shared_memory.table(found))
    _keep("shared-memory", {"ways": [asdict(one) for one in found]})
    return 0


def hedging(options: argparse.Namespace) -> int:
    from benchmarks.calling import hedging

    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = hedging.measure(options.rounds, options.seconds, progress)
    Console(width=100).print(hedging.table(found))
    _keep("hedging", {"ways": [asdict(one) for one in found]})
    return 0


def drill(options: argparse.Namespace) -> int:
    from benchmarks.calling import client
    from deploy.drill import events, results, run

    settings = run.DrillSettings(requests=options.requests, connections=options.connections)
    strict = [(name, act, None) for name, act, _ in events.EVENTS]  # nothing may fail, whatever happens
    result = run.drill(settings, strict, client.connect)
    folder = results.save(result, layout.artifacts() / "drill")
    Console(width=120).print(results.table(result))
    print(result.verdict())
    print(f"The picture, and every request: {layout.shown(folder)}")
    return 0 if result.passed else 1


def cache(options: argparse.Namespace) -> int:
    from benchmarks.serving import cache

    with Progress(console=Console(stderr=True), transient=True) as progress:
        result = cache.measure(options.rounds, progress)
    Console(width=100).print(cache.table(result))
    _keep("cache", {"cache_mb": cache.CACHE_MB, **asdict(result)})
    return 0


def export(options: argparse.Namespace) -> int:
    from benchmarks import export

    found = sorted((layout.checkpoints() / options.family).glob("*/best.ckpt"), key=lambda path: path.stat().st_mtime)
    checkpoint = options.checkpoint or (found[-1] if found else None)
    if checkpoint is None:
        raise MeasurementError(f"there is no {options.family} checkpoint", hint="name one with --checkpoint, or train")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch:
        runs = [
            export.measure(name, options.family, checkpoint, Path(scratch))
            for name in track(export.RUNS, "exporting", console=console, transient=True)
        ]
    table = Table(title=f"python -m export {options.family}, whole processes")
    for heading in ("", "seconds", "peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for run in runs:
        table.add_row(run.name, f"{run.seconds:.1f}", f"{run.peak_rss_mb:,.0f}")
    Console(width=100).print(table)
    _keep("export", {"checkpoint": layout.shown(checkpoint), "runs": [asdict(run) for run in runs]})
    return 0


def _running() -> state.Running:

    if (up := state.running()) is None:
        raise MeasurementError("no server is up", hint="python -m deploy up --detach")
    return up


def _images(directory: Path) -> tuple[bytes, ...]:

    found = tuple(path.read_bytes() for path in sorted(directory.glob("*.png")))
    if not found:
        raise MeasurementError(f"{layout.shown(directory)} holds no .png", hint="python -m training examples fashion")
    return found


def _keep(name: str, summary: dict[str, Any]) -> Path:
    """The raw figures: in a file, and as the last line for machines. That file."""
    record = layout.artifacts() / "benchmarks" / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"Kept in {layout.shown(record)}")
    print(json.dumps(summary))
    return record
