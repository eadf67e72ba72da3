"""Measure a running server, or an export.

  python -m benchmarks perf                                   perf_analyzer, gRPC and HTTP, real images
  python -m benchmarks perf --concurrency 1 8 64 --window 5   other loads, longer windows
  locust -f benchmarks/locustfile.py --headless -u 16 -t 30s  Locust, in one command
  python -m benchmarks overload                               three times what the server can do: what does it still do?
  python -m benchmarks soak --minutes 30                      does a process grow, does a request fail?
  python -m benchmarks client                                 our client against the tritonclient below it
  python -m benchmarks storm                                  64 clients that retry, before a server that is overloaded
  python -m benchmarks drill                                  `deploy drill` through our client: nothing may fail
  python -m benchmarks cache                                  Triton's response cache: what it brings and costs
  python -m benchmarks export                                 time and memory of an export, with and without search

For all but the last three start a server (python -m deploy up --detach), and write images to send (python -m training
examples fashion). Every figure is what a client sees; client and server share this machine's cores. `drill` and
`cache` start a server of their own, over a copy of the model repository; the export publishes nothing.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import layout
from contracts.errors import run_command_line

if TYPE_CHECKING:
    from deploy.state import Running


def main() -> int:
    options = _parser().parse_args()
    return {
        "perf": _perf,
        "overload": _overload,
        "soak": _soak,
        "client": _client,
        "storm": _storm,
        "drill": _drill,
        "cache": _cache,
        "export": _export,
    }[options.command](options)


def _perf(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from benchmarks import perf_analyzer
    from benchmarks.errors import MeasurementError
    from deploy import state

    up = state.running()
    addresses = {"grpc": options.grpc or (up and up.grpc), "http": options.http or (up and up.http)}
    if not all(addresses[protocol] for protocol in options.protocol):
        raise MeasurementError(
            "no server is up", hint="python -m deploy up --detach, or name one: --grpc HOST:PORT --http HOST:PORT"
        )
    images = sorted(options.images.glob("*.png"))
    results = layout.ARTIFACTS / "benchmarks"
    results.mkdir(parents=True, exist_ok=True)
    requests = perf_analyzer.write_requests(images[: options.requests], results / "perf-requests.json")
    tool = perf_analyzer.find()
    console = Console(stderr=True)
    plan = [(protocol, concurrency) for protocol in options.protocol for concurrency in options.concurrency]
    measurements = [
        perf_analyzer.measure(
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


def _overload(options: argparse.Namespace) -> int:
    from rich.console import Console

    from benchmarks import overload, overload_report

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


def _soak(options: argparse.Namespace) -> int:
    from rich.console import Console

    from benchmarks import soak

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
    _keep("soak", soak.write(result, layout.ARTIFACTS / "benchmarks"))
    return 1 if result.findings else 0


def _client(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import calling
    from clients.settings import Protocol

    up, images = _running(), _images(options.images)
    addresses: dict[Protocol, str] = {"grpc": up.grpc, "http": up.http}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        ways = calling.overhead(addresses, images[0], options.rounds, progress)
        bulk = calling.bulk(addresses, images, max(1, options.rounds // 3), progress)
    console = Console(width=100)
    console.print(calling.overhead_table(ways))
    console.print(calling.bulk_table(bulk))
    _keep("client", {"overhead": [asdict(way) for way in ways], "bulk": [asdict(b) for b in bulk]})
    return 0


def _storm(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import storm

    images, url = _images(options.images), f"grpc://{_running().grpc}"
    with Progress(console=Console(stderr=True), transient=True) as progress:
        storms = storm.measure(url, images, options.rounds, options.seconds, progress)
    Console(width=100).print(storm.table(storms))
    _keep("storm", {"clients": storm.CLIENTS, "ways": [asdict(one) for one in storms]})
    if (share := storm.goodput_share(storms)) < 0.9:
        print(f"✗ with retries {share:.0%} of the peak is answered (limit: 90 %)", file=sys.stderr)
        return 1
    return 0


def _drill(options: argparse.Namespace) -> int:
    from rich.console import Console

    from benchmarks import calling
    from deploy import drill, outcome

    settings = drill.Settings(requests=options.requests, connections=options.connections)
    events = [(name, act, None) for name, act, _ in drill.EVENTS]  # nothing may fail, whatever happens
    result = drill.run(settings, events, calling.connect)
    folder = outcome.save(result, layout.ARTIFACTS / "drill")
    Console(width=120).print(outcome.table(result))
    print(result.verdict())
    print(f"The picture, and every request: {layout.shown(folder)}")
    return 0 if result.passed else 1


def _cache(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import caching

    with Progress(console=Console(stderr=True), transient=True) as progress:
        result = caching.measure(options.rounds, progress)
    Console(width=100).print(caching.table(result))
    _keep("cache", {"cache_mb": caching.CACHE_MB, **asdict(result)})
    return 0


def _running() -> "Running":
    from benchmarks.errors import MeasurementError
    from deploy import state

    if (up := state.running()) is None:
        raise MeasurementError("no server is up", hint="python -m deploy up --detach")
    return up


def _images(directory: Path) -> tuple[bytes, ...]:
    from benchmarks.errors import MeasurementError

    found = tuple(path.read_bytes() for path in sorted(directory.glob("*.png")))
    if not found:
        raise MeasurementError(f"{layout.shown(directory)} holds no .png", hint="python -m training examples fashion")
    return found


def _export(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from benchmarks import exporting
    from benchmarks.errors import MeasurementError

    found = sorted((layout.CHECKPOINTS / options.family).glob("*/best.ckpt"), key=lambda path: path.stat().st_mtime)
    checkpoint = options.checkpoint or (found[-1] if found else None)
    if checkpoint is None:
        raise MeasurementError(f"there is no {options.family} checkpoint", hint="name one with --checkpoint, or train")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch:
        runs = [
            exporting.measure(name, options.family, checkpoint, Path(scratch))
            for name in track(exporting.RUNS, "exporting", console=console, transient=True)
        ]
    table = Table(title=f"python -m export {options.family}, whole processes")
    for heading in ("", "seconds", "peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for run in runs:
        table.add_row(run.name, f"{run.seconds:.1f}", f"{run.peak_rss_mb:,.0f}")
    Console(width=100).print(table)
    _keep("export", {"checkpoint": layout.shown(checkpoint), "runs": [asdict(run) for run in runs]})
    return 0


def _keep(name: str, summary: dict[str, Any]) -> Path:
    """The raw figures: in a file, and as the last line for machines. That file."""
    record = layout.ARTIFACTS / "benchmarks" / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"Kept in {layout.shown(record)}")
    print(json.dumps(summary))
    return record


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    perf = commands.add_parser("perf", help="throughput and latency percentiles by concurrency, from perf_analyzer")
    perf.add_argument("--model", default="fashion", help="the ensemble (default: fashion)")
    perf.add_argument("--protocol", nargs="+", choices=["grpc", "http"], default=["grpc", "http"])
    for protocol in ("grpc", "http"):
        perf.add_argument(f"--{protocol}", metavar="HOST:PORT", help="default: the server that `deploy up` started")
    perf.add_argument("--concurrency", nargs="+", type=int, default=[1, 4, 16], help="default: 1 4 16")
    perf.add_argument("--window", type=float, default=2, metavar="SECONDS", help="one of three (default: 2)")
    perf.add_argument("--images", type=Path, default=layout.EXAMPLES / "fashion", help="a folder of .png files")
    perf.add_argument("--requests", type=int, default=100, metavar="N", help="images sent in turn (default: 100)")
    overload = commands.add_parser("overload", help="goodput, latency and recovery past saturation, in an open loop")
    overload.add_argument("--factor", type=float, default=3, help="of the closed-loop peak (default: 3)")
    overload.add_argument("--seconds", type=float, default=60, help="of too much load (default: 60)")
    overload.add_argument(
        "--images-per-request", type=int, nargs="+", default=[1], metavar="N", help="one measurement each (default: 1)"
    )
    overload.add_argument(
        "--priority-share", type=float, default=0, metavar="SHARE", help="of requests with priority 1 (default: 0)"
    )
    soak = commands.add_parser(
        "soak", help="memory slope of every process under half of the peak load; reloads mixed in"
    )
    soak.add_argument("--minutes", type=float, default=30, help="default: 30; Ctrl-C reports what there is")
    soak.add_argument("--reload-every", type=float, default=180, metavar="SECONDS", help="default: 180; 0: never")
    soak.add_argument("--limit", type=float, default=10, metavar="MB_PER_H", help="of growth (default: 10)")
    for command in (overload, soak):
        command.add_argument("--model", default="fashion", help="the ensemble (default: fashion)")
        command.add_argument("--images", type=Path, default=layout.EXAMPLES / "fashion", help="a folder of .png files")
    client = commands.add_parser("client", help="what our client costs over tritonclient, and brings for many images")
    client.add_argument("--rounds", type=int, default=9, help="of some 25 s (default: 9)")
    client.add_argument("--images", type=Path, default=layout.EXAMPLES / "fashion", help="a folder of .png files")
    storm = commands.add_parser("storm", help="do retries make an overload worse?")
    storm.add_argument("--rounds", type=int, default=5, help="default: 5")
    storm.add_argument("--seconds", type=float, default=8, help="of each way in a round (default: 8)")
    storm.add_argument("--images", type=Path, default=layout.EXAMPLES / "fashion", help="a folder of .png files")
    drill = commands.add_parser("drill", help="upgrade and kill a server under load through our client")
    drill.add_argument("--requests", type=int, default=20_000, metavar="N", help="at least (default: 20,000)")
    drill.add_argument("--connections", type=int, default=8, metavar="N", help="HTTP and gRPC in turn (default: 8)")
    cache = commands.add_parser("cache", help="the response cache on each model, for repeated and for new images")
    cache.add_argument("--rounds", type=int, default=5, help="of some 30 s (default: 5)")
    export = commands.add_parser("export", help="wall time and peak memory of an export")
    export.add_argument("family", nargs="?", default="fashion", help="default: fashion")
    export.add_argument("--checkpoint", type=Path, help="default: best.ckpt of the newest run of the family")
    return parser


if __name__ == "__main__":
    run_command_line(main)
