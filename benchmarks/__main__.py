"""Measure a running server, or an export.

  python -m benchmarks perf                                   perf_analyzer, gRPC and HTTP, real images
  python -m benchmarks perf --concurrency 1 8 64 --window 5   other loads, longer windows
  locust -f benchmarks/locustfile.py --headless -u 16 -t 30s  Locust, in one command
  python -m benchmarks export                                 time and memory of an export, with and without search

For the first three start a server (python -m deploy up), and write images to send (python -m training examples
fashion). Every figure is what a client sees; client and server share this machine's cores. The export publishes
nothing.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contracts import layout
from contracts.errors import run_command_line


def main() -> int:
    options = _parser().parse_args()
    return {"perf": _perf, "export": _export}[options.command](options)


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


def _keep(name: str, summary: dict[str, Any]) -> None:
    """The raw figures: in a file, and as the last line for machines."""
    record = layout.ARTIFACTS / "benchmarks" / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"Kept in {layout.shown(record)}")
    print(json.dumps(summary))


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
    export = commands.add_parser("export", help="wall time and peak memory of an export")
    export.add_argument("family", nargs="?", default="fashion", help="default: fashion")
    export.add_argument("--checkpoint", type=Path, help="default: best.ckpt of the newest run of the family")
    return parser


if __name__ == "__main__":
    run_command_line(main)
