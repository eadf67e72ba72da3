"""Measure a running server, or an export.

  python -m benchmarks perf                                   perf_analyzer, gRPC and HTTP, real images
  python -m benchmarks perf --concurrency 1 8 64 --window 5   other loads, longer windows
  locust -f benchmarks/locustfile.py --headless -u 16 -t 30s  Locust, in one command
  python -m benchmarks overload                               three times what the server can do: what does it still do?
  python -m benchmarks soak --minutes 30                      does a process grow, does a request fail?
  python -m benchmarks client                                 the client library against tritonclient
  python -m benchmarks storm                                  goodput of a saturated server under 64 clients that retry
  python -m benchmarks shared-memory                          from which size on it is faster than a request
  python -m benchmarks hedging                                what a second request does to a long tail
  python -m benchmarks drill                                  `deploy drill` through the client: nothing may fail
  python -m benchmarks cache                                  Triton's response cache: what it brings and costs
  python -m benchmarks export                                 time and memory of an export, with and without search

The last five start what they need, `drill` and `cache` over a copy of the model repository; the export publishes
nothing. For the others start a server (python -m deploy up --detach), and write images to send (python -m training
examples fashion). Every figure is what a client sees; client and server share this machine's cores.
"""

import argparse
from pathlib import Path

from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError


def main() -> int:
    options = _parser().parse_args()

    from benchmarks import commands

    return {
        "perf": commands.perf,
        "overload": commands.overload,
        "soak": commands.soak,
        "client": commands.client,
        "storm": commands.storm,
        "shared-memory": commands.shared_memory,
        "hedging": commands.hedging,
        "drill": commands.drill,
        "cache": commands.cache,
        "export": commands.export,
    }[options.command](options)


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
    perf.add_argument("--images", type=Path, default=layout.examples() / "fashion", help="a folder of .png files")
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
        command.add_argument(
            "--images", type=Path, default=layout.examples() / "fashion", help="a folder of .png files"
        )
    client = commands.add_parser(
        "client", help="overhead over tritonclient (limits: 100 µs, 5 %%), gain for many images (3×)"
    )
    client.add_argument("--rounds", type=int, default=15, help="default: 15; fewer fail by chance")
    client.add_argument(
        "--seconds", type=float, default=1, help="of each of the 36 measurements in a round (default: 1)"
    )
    client.add_argument("--images", type=Path, default=layout.examples() / "fashion", help="a folder of .png files")
    storm = commands.add_parser("storm", help="retry storm: goodput with retries (limit: 90 %% of the peak)")
    storm.add_argument("--rounds", type=int, default=5, help="default: 5")
    storm.add_argument("--seconds", type=float, default=8, help="of each way in a round (default: 8)")
    storm.add_argument("--images", type=Path, default=layout.examples() / "fashion", help="a folder of .png files")
    sharing = commands.add_parser(
        "shared-memory", help="inputs in shared memory against inputs in the request, by size"
    )
    sharing.add_argument("--rounds", type=int, default=5, help="default: 5")
    sharing.add_argument(
        "--seconds", type=float, default=1, help="of each of the 16 measurements in a round (default: 1)"
    )
    hedging = commands.add_parser("hedging", help="percentiles of a long tail with and without hedging")
    hedging.add_argument("--rounds", type=int, default=3, help="default: 3")
    hedging.add_argument("--seconds", type=float, default=10, help="of each of the two in a round (default: 10)")
    drill = commands.add_parser("drill", help="upgrade and kill a server under load, through the client library")
    drill.add_argument("--requests", type=int, default=20_000, metavar="N", help="at least (default: 20,000)")
    drill.add_argument("--connections", type=int, default=8, metavar="N", help="HTTP and gRPC in turn (default: 8)")
    cache = commands.add_parser("cache", help="the response cache on each model, for repeated and for new images")
    cache.add_argument("--rounds", type=int, default=5, help="of some 30 s (default: 5)")
    export = commands.add_parser("export", help="wall time and peak memory of an export")
    export.add_argument("family", nargs="?", default="fashion", help="default: fashion")
    export.add_argument("--checkpoint", type=Path, help="default: best.ckpt of the newest run of the family")
    return parser


if __name__ == "__main__":
    run_command_line(main, ProjectError)
