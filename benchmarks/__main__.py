"""Measure a running server, or an export.

  python -m benchmarks perf                                   perf_analyzer, gRPC and HTTP
  python -m benchmarks perf --concurrency 1 8 64 --window 5   other loads, longer windows
  locust -f benchmarks/locustfile.py --headless -u 16 -t 30s  Locust, in one command
  python -m benchmarks overload                               three times what the server can do: what does it still do?
  python -m benchmarks families                               several in one server: memory, p99 alone and with others
  python -m benchmarks soak --minutes 30                      does a process grow, does a request fail?
  python -m benchmarks client                                 the client library against tritonclient
  python -m benchmarks client --against DIRECTORY             the client library against that of another checkout
  python -m benchmarks storm                                  goodput of a saturated server under 64 clients that retry
  python -m benchmarks shared-memory                          from which size on it is faster than a request
  python -m benchmarks hedging                                what a second request does to a long tail
  python -m benchmarks front --against DIRECTORY              what the proxy costs, here and in another checkout
  python -m benchmarks gateway                                what the gateway costs, beside nginx that asks it
  python -m benchmarks gateway-drill --servers 2              the drill through the gateway: nothing may fail
  python -m benchmarks gateway-soak --requests 1000000        records are answers, the database killed three times
  python -m benchmarks drill                                  `deploy drill` through the client: nothing may fail
  python -m benchmarks cache                                  Triton's response cache: what it brings and costs
  python -m benchmarks switch                                 releases that differ in everything, under load
  python -m benchmarks startup --against DIRECTORY            `up` with ten releases, `reload` of one
  python -m benchmarks export                                 time and memory of an export, with and without search
  python -m benchmarks limit                                  what this machine could answer without any server
  python -m benchmarks peers                                  this server, its peers and the limits, in one run
  python -m benchmarks report                                 the newest result of `peers` as a page with pictures
  python -m benchmarks compare BEFORE AFTER                   what has changed between two results, and what is noise
  python -m benchmarks speed --against COMMIT                 has a request become slower? the gate: `make speed`
  python -m benchmarks scenario spike --rate 200 --p99-ms 50  load as it comes in life, by Locust or k6: does it hold?
  python -m benchmarks scenario --traffic FILE                recorded traffic, at its own times
  python -m benchmarks tune MODEL --p99-ms 20                 settings that answer most within an objective
  python -m benchmarks growth connections versions            how cost grows with one thing at a time
  python -m benchmarks gpu-day                                all that only a GPU can show, in ten minutes, as evidence

Those from `gateway` on start what they need, `drill` and `cache` over a copy of the model repository; the export
publishes nothing. For the others start a server (python -m deploy up --detach). What they send to a model, that
--model names, are the golden requests of its release, with the answers that they check; where it has none, images:
--images DIRECTORY, or those of `python -m training examples FAMILY`. Every figure is what a client sees; client and
server share this machine's cores.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command_line import (
    calling,
    gateway,
    gpu_day,
    growth,
    options,
    peers,
    releases,
    reporting,
    scenarios,
    serving,
    speed,
    tuning,
)
from cli import commands
from cli.commands import Command
from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError


def main(arguments: Sequence[str] | None = None) -> int:
    return commands.run("python -m benchmarks", __doc__, COMMANDS, arguments)


def _export(export: argparse.ArgumentParser) -> None:
    export.add_argument("family", nargs="?", default=layout.DEFAULT_FAMILY, help="default: %(default)s")
    export.add_argument("--checkpoint", type=Path, help="default: best.ckpt of the newest run of the family")


def _limit(limit: argparse.ArgumentParser) -> None:
    options.rounds(limit, 5)
    options.seconds(limit, 1, "of each of the seven measurements in a round")
    options.model(limit)


COMMANDS = (
    serving.PERF,
    serving.OVERLOAD,
    releases.FAMILIES,
    serving.SOAK,
    calling.CLIENT,
    calling.STORM,
    calling.SHARED_MEMORY,
    serving.FRONT,
    gateway.GATEWAY,
    gateway.DRILL,
    gateway.SOAK,
    calling.HEDGING,
    calling.DRILL,
    serving.CACHE,
    releases.SWITCH,
    releases.STARTUP,
    Command("export", "wall time and peak memory of an export", "benchmarks.export:main", _export),
    peers.PEERS,
    reporting.REPORT,
    reporting.COMPARE,
    gpu_day.GPU_DAY,
    Command(
        "limit",
        "the release's own steps and graph in process, without a server: what all figures are a share of",
        "benchmarks.limit:main",
        _limit,
    ),
    speed.SPEED,
    scenarios.SCENARIO,
    tuning.TUNE,
    growth.GROWTH,
)

if __name__ == "__main__":
    run_command_line(main, ProjectError)
