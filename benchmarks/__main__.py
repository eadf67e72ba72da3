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

from cli import commands
from cli.commands import Command, count, port, positive, positive_count, share
from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError


def main(arguments: Sequence[str] | None = None) -> int:
    return commands.run("python -m benchmarks", __doc__, COMMANDS, arguments)


def _perf(perf: argparse.ArgumentParser) -> None:
    _model(perf)
    perf.add_argument("--protocol", nargs="+", choices=["grpc", "http"], default=["grpc", "http"])
    perf.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="URL",
        help="grpc://HOST:PORT or http://HOST:PORT, one a protocol (default: the server that `deploy up` started)",
    )
    perf.add_argument("--concurrency", nargs="+", type=positive_count, default=[1, 4, 16], help="default: 1 4 16")
    perf.add_argument("--window", type=positive, default=2, metavar="SECONDS", help="one of three (default: 2)")
    perf.add_argument(
        "--requests", type=positive_count, default=100, metavar="N", help="at most, sent in turn (default: 100)"
    )
    _images(perf)


def _overload(overload: argparse.ArgumentParser) -> None:
    overload.add_argument("--factor", type=positive, default=3, help="of the closed-loop peak (default: 3)")
    overload.add_argument("--seconds", type=positive, default=60, help="of too much load (default: 60)")
    overload.add_argument(
        "--rows-per-request",
        "--images-per-request",
        type=positive_count,
        nargs="+",
        default=[1],
        metavar="N",
        help="samples; one measurement each (default: 1)",
    )
    overload.add_argument(
        "--priority-share", type=share, default=0, metavar="SHARE", help="of requests with priority 1 (default: 0)"
    )
    _model(overload)
    _images(overload)


def _families(families: argparse.ArgumentParser) -> None:
    _rounds(families, 5)
    _seconds(families, 3, "of each measurement: one a family for its peak, two a family in a round")
    families.add_argument(
        "--models", nargs="+", default=[], metavar="MODEL", help="default: all that have golden requests"
    )


def _soak(soak: argparse.ArgumentParser) -> None:
    soak.add_argument("--minutes", type=positive, default=30, help="default: 30; Ctrl-C reports what there is")
    soak.add_argument("--reload-every", type=float, default=180, metavar="SECONDS", help="default: 180; 0: never")
    soak.add_argument("--limit", type=float, default=10, metavar="MB_PER_H", help="of growth (default: 10)")
    _model(soak)
    _images(soak)


def _client(client: argparse.ArgumentParser) -> None:
    _rounds(client, 15, "fewer fail by chance")
    _seconds(client, 1, "of each of the 36 measurements in a round, 24 with --against")
    client.add_argument(
        "--bulk",
        type=positive_count,
        default=10_000,
        metavar="N",
        help="images at once, if the model takes images (default: 10,000)",
    )
    client.add_argument(
        "--against",
        type=Path,
        metavar="DIRECTORY",
        help="compare with the client library of this checkout of another commit, not with tritonclient",
    )
    _model(client)
    _images(client)


def _storm(storm: argparse.ArgumentParser) -> None:
    _rounds(storm, 5)
    _seconds(storm, 8, "of each way in a round")
    _model(storm)
    _images(storm)


def _shared_memory(shared_memory: argparse.ArgumentParser) -> None:
    _rounds(shared_memory, 5)
    _seconds(shared_memory, 1, "of each of the measurements in a round, 16 if they are made up")
    shared_memory.add_argument("--model", help="send its golden requests to the server that is up (default: made up)")


def _front(front: argparse.ArgumentParser) -> None:
    _rounds(front, 15)
    _seconds(front, 1, "of each of the six measurements in a round")
    front.add_argument("--against", type=Path, required=True, metavar="DIRECTORY", help="the other checkout")
    front.add_argument("--model", help="send its golden request to the server that is up (default: made up)")
    front.add_argument("--nginx", type=Path, metavar="FILE", help="default: that of PATH, or /usr/sbin/nginx")


def _gateway(gateway: argparse.ArgumentParser) -> None:
    _rounds(gateway, 9)
    _seconds(gateway, 1, "of each of the ten measurements in a round")
    gateway.add_argument("--nginx", type=Path, metavar="FILE", help="default: that of PATH, else Debian's, unpacked")


def _gateway_drill(drill: argparse.ArgumentParser) -> None:
    drill.add_argument(
        "--servers", type=positive_count, default=2, metavar="N", help="behind it; 1: callers wait (default: 2)"
    )
    drill.add_argument("--requests", type=positive_count, default=5_000, metavar="N", help="at least (default: 5,000)")
    drill.add_argument("--connections", type=positive_count, default=8, metavar="N", help="default: 8")
    drill.add_argument("--model", help="the one to upgrade (default: the first that was released)")
    drill.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _gateway_soak(soak: argparse.ArgumentParser) -> None:
    soak.add_argument("--requests", type=positive_count, default=1_000_000, metavar="N", help="default: 1,000,000")
    soak.add_argument("--connections", type=positive_count, default=16, metavar="N", help="default: 16")
    soak.add_argument("--kills", type=count, default=3, metavar="N", help="of PostgreSQL, spread evenly (default: 3)")
    soak.add_argument("--away", type=positive, default=5, metavar="SECONDS", help="that it is gone (default: 5)")
    soak.add_argument(
        "--limit-percent", type=positive, default=5, metavar="PERCENT", help="of growth of memory (default: 5)"
    )
    soak.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _hedging(hedging: argparse.ArgumentParser) -> None:
    _rounds(hedging, 3)
    _seconds(hedging, 10, "of each of the two in a round")


def _drill(drill: argparse.ArgumentParser) -> None:
    drill.add_argument(
        "--requests", type=positive_count, default=20_000, metavar="N", help="at least (default: 20,000)"
    )
    drill.add_argument(
        "--connections", type=positive_count, default=8, metavar="N", help="HTTP and gRPC in turn (default: 8)"
    )
    drill.add_argument("--model", help="the one to upgrade (default: the first that was released)")


def _cache(cache: argparse.ArgumentParser) -> None:
    _rounds(cache, 5, "some 30 s each")
    _model(cache)


def _switch(switch: argparse.ArgumentParser) -> None:
    switch.add_argument(
        "--requests", type=positive_count, default=100_000, metavar="N", help="at least (default: 100,000)"
    )
    switch.add_argument("--connections", type=positive_count, default=16, metavar="N", help="default: 16")
    switch.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _startup(startup: argparse.ArgumentParser) -> None:
    _rounds(startup, 5, "some 30 s each for a checkout; 30 for an interval that tells something")
    _seconds(startup, 2, "of each of the measurements of throughput in a round")
    startup.add_argument("--releases", type=positive_count, default=10, metavar="N", help="default: 10")
    startup.add_argument(
        "--against", type=Path, metavar="DIRECTORY", help="compare with this checkout of another commit, in turn"
    )
    startup.add_argument("--model", help="what the releases are copies of (default: the first that was released)")
    startup.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _export(export: argparse.ArgumentParser) -> None:
    export.add_argument("family", nargs="?", default=layout.DEFAULT_FAMILY, help="default: %(default)s")
    export.add_argument("--checkpoint", type=Path, help="default: best.ckpt of the newest run of the family")


def _limit(limit: argparse.ArgumentParser) -> None:
    _rounds(limit, 5)
    _seconds(limit, 1, "of each of the five measurements in a round")
    _model(limit)


def _speed(speed: argparse.ArgumentParser) -> None:
    speed.add_argument(
        "--against", metavar="COMMIT", help="also compare with this commit, or checkout, in the same run"
    )
    _seconds(speed, 0.4, "of each of the two measurements of a side in a round")
    speed.add_argument(
        "--budget", type=positive, default=60, metavar="SECONDS", help="for all rounds, nine at least (default: 60)"
    )
    speed.add_argument(
        "--keep", action="store_true", help="write the figures to benchmarks/results/speed.json, for later runs"
    )
    speed.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _scenario(scenario: argparse.ArgumentParser) -> None:
    scenario.add_argument(
        "scenario",
        nargs="?",
        default="steady",
        help="steady, ramp, spike, or mixed: a fifth of the requests has priority 1 (default: %(default)s)",
    )
    scenario.add_argument(
        "--rate", type=positive, default=50, metavar="PER_S", help="requests a second at its height (default: 50)"
    )
    _seconds(scenario, 30, "that it takes")
    scenario.add_argument(
        "--traffic", type=Path, metavar="FILE", help="recorded traffic in place of a scenario: docs/how-to/load.md"
    )
    scenario.add_argument("--speed", type=positive, default=1, help="of recorded traffic; 2: twice (default: 1)")
    scenario.add_argument("--with", dest="with_", choices=["locust", "k6"], default="locust", help="default: locust")
    scenario.add_argument("--p95-ms", type=positive, metavar="MS", help="the limit; for mixed, that of priority 1")
    scenario.add_argument("--p99-ms", type=positive, metavar="MS", help="the limit; for mixed, that of priority 1")
    scenario.add_argument(
        "--max-errors", type=share, default=0.0, metavar="SHARE", help="of wrong, refused and lost ones (default: 0)"
    )
    scenario.add_argument(
        "--connections", type=positive_count, default=64, metavar="N", help="requests under way at most (default: 64)"
    )
    scenario.add_argument("--grpc", action="store_true", help="Locust over gRPC, not HTTP")
    scenario.add_argument("--processes", type=positive_count, metavar="N", help="Locust's workers, below a master")
    scenario.add_argument("--page", type=port, metavar="PORT", help="Locust's page, until Ctrl-C")
    scenario.add_argument("--keep", type=Path, metavar="DIRECTORY", help="for k6's plan, or Locust's outcome")
    scenario.add_argument("--model", nargs="+", default=[layout.DEFAULT_FAMILY], help="in turn (default: %(default)s)")


def _tune(tune: argparse.ArgumentParser) -> None:
    tune.add_argument("model", metavar="MODEL", help="an ensemble, or a network that is asked by itself")
    tune.add_argument("--p99-ms", type=positive, required=True, metavar="MS", help="what has to hold")
    tune.add_argument("--rate", type=positive, metavar="PER_S", help="at which it has to hold, in an open loop, too")
    tune.add_argument(
        "--budget", type=positive, default=900, metavar="SECONDS", help="of the search; it goes on later (default: 900)"
    )
    tune.add_argument(
        "--repository",
        type=Path,
        metavar="DIRECTORY",
        help="default: that of the server that is up, or model_repository",
    )
    _seconds(tune, 1.5, "of each of the levels of load of a trial")
    _rounds(tune, 9, "of the winner beside today's settings")


def _growth(growth: argparse.ArgumentParser) -> None:
    growth.add_argument(
        "what",
        nargs="*",
        choices=["batch", "image", "text", "models", "connections", "versions", []],
        metavar="WHAT",
        help="batch, image, text, models, connections, versions (default: all, in some ten minutes)",
    )
    growth.add_argument("--sizes", type=positive_count, nargs="+", metavar="N", help="in place of the usual ones")
    growth.add_argument("--most", type=positive_count, metavar="N", help="no size above it")
    growth.add_argument(
        "--model", help="of the repository (default: the stand-in of the default family; text: that of `peers`)"
    )
    _seconds(growth, 2, "of each measurement under load")


def _gpu_day(gpu_day: argparse.ArgumentParser) -> None:
    from benchmarks.gpu_day.steps import STEPS

    gpu_day.add_argument(
        "--export",
        default=layout.DEFAULT_FAMILY,
        metavar="ARGUMENTS",
        help="what to export, as python -m export takes it, e.g. '--onnx FILE --spec FILE --inputs FILE' (default: "
        "%(default)s, its newest checkpoint or one that is trained for it)",
    )
    gpu_day.add_argument(
        "--device", choices=["auto", "gpu", "cpu"], default="auto", help="cpu is a rehearsal (default: auto)"
    )
    gpu_day.add_argument(
        "--budget", type=positive, default=600, metavar="SECONDS", help="for all steps together (default: 600)"
    )
    gpu_day.add_argument(
        "--only", nargs="+", choices=[step.name for step in STEPS], metavar="STEP", help="of: %(choices)s"
    )
    gpu_day.add_argument(
        "--requests", type=positive_count, default=10_000, metavar="N", help="answers to look at (default: 10,000)"
    )
    gpu_day.add_argument(
        "--drill-requests", type=positive_count, default=5_000, metavar="N", help="of the drill (default: 5,000)"
    )
    gpu_day.add_argument(
        "--folder", type=Path, metavar="DIRECTORY", help="for the evidence (default: artifacts/gpu-day/TIME)"
    )


def _peers(peers: argparse.ArgumentParser) -> None:
    from benchmarks.peers.names import MODELS, PEERS

    peers.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], help="default: all, of %(choices)s")
    peers.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS], help="default: all, of %(choices)s")
    _rounds(peers, 5)
    _seconds(peers, 3, "of each measurement, whole ones: three a system in a round")
    peers.add_argument(
        "--search", action="store_true", help="look for each peer's best settings first; an hour for all"
    )


def _report(report: argparse.ArgumentParser) -> None:
    report.add_argument("result", type=Path, nargs="?", metavar="RESULT", help="default: the newest of `peers`")
    report.add_argument(
        "--folder", type=Path, metavar="DIRECTORY", help="where it goes (default: artifacts/benchmarks/report-RESULT)"
    )
    report.add_argument(
        "--price-per-core-hour", type=positive, metavar="PRICE", help="adds what the CPU of a million answers costs"
    )


def _compare(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("before", type=Path, metavar="BEFORE")
    compare.add_argument("after", type=Path, metavar="AFTER")
    compare.add_argument("--system", metavar="NAME", help="tell of this one alone, as in `ours` (default: of all)")
    compare.add_argument(
        "--least", type=positive, default=5, metavar="PERCENT", help="a change that matters (default: %(default)g)"
    )
    compare.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default=layout.DEFAULT_FAMILY, help="default: the ensemble %(default)s")


def _images(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images", type=Path, metavar="DIRECTORY", help="send its .png files, in place of golden requests"
    )


def _rounds(command: argparse.ArgumentParser, default: int, more: str = "") -> None:
    help_ = f"default: {default}; {more}" if more else f"default: {default}"
    command.add_argument("--rounds", type=positive_count, default=default, help=help_)


def _seconds(command: argparse.ArgumentParser, default: float, what: str) -> None:
    command.add_argument("--seconds", type=positive, default=default, help=f"{what} (default: {default:g})")


COMMANDS = (
    Command(
        "perf",
        "throughput and latency percentiles by concurrency, from perf_analyzer",
        "benchmarks.serving.perf:main",
        _perf,
    ),
    Command(
        "overload",
        "goodput, latency and recovery past saturation, in an open loop",
        "benchmarks.serving.overload:main",
        _overload,
    ),
    Command(
        "families",
        "several families in one server: memory of each, latency alone and with the others at half load",
        "benchmarks.releases.families:main",
        _families,
    ),
    Command(
        "soak",
        "memory slope of every process under half of the peak load; reloads mixed in",
        "benchmarks.serving.soak:main",
        _soak,
    ),
    Command(
        "client",
        "overhead over tritonclient (limits: 100 µs, 5 %), gain for many images (3×)",
        "benchmarks.calling.client:main",
        _client,
    ),
    Command(
        "storm",
        "retry storm: goodput with retries (limit: 90 % of the peak)",
        "benchmarks.calling.storm:main",
        _storm,
    ),
    Command(
        "shared-memory",
        "inputs in shared memory against inputs in the request, by size",
        "benchmarks.calling.shared_memory:main",
        _shared_memory,
    ),
    Command(
        "front",
        "what the proxy in front of Triton costs a request, beside another checkout's",
        "benchmarks.serving.front:main",
        _front,
    ),
    Command(
        "gateway",
        "what the gateway's doors cost a request, beside Triton alone and nginx that asks it",
        "benchmarks.gateway.command:main",
        _gateway,
    ),
    Command(
        "gateway-drill",
        "upgrade, harm and kill the servers behind the gateway under load, through the client library",
        "benchmarks.gateway.drill:main",
        _gateway_drill,
    ),
    Command(
        "gateway-soak",
        "many requests through the gateway: as many records, PostgreSQL killed meanwhile, memory flat",
        "benchmarks.gateway.soak:main",
        _gateway_soak,
    ),
    Command(
        "hedging",
        "percentiles of a long tail with and without hedging",
        "benchmarks.calling.hedging:main",
        _hedging,
    ),
    Command(
        "drill",
        "upgrade, harm and kill a server under load, through the client library",
        "benchmarks.calling.drill:main",
        _drill,
    ),
    Command(
        "cache",
        "the response cache on each model, for repeated and for new images",
        "benchmarks.serving.cache:main",
        _cache,
    ),
    Command(
        "switch",
        "switch between two releases that differ in everything, and kill the server: no failure, no mixture",
        "benchmarks.releases.switch:main",
        _switch,
    ),
    Command(
        "startup",
        "how long `deploy up` takes with ten releases and `reload` with one; throughput as before",
        "benchmarks.releases.startup:main",
        _startup,
    ),
    Command("export", "wall time and peak memory of an export", "benchmarks.export:main", _export),
    Command(
        "peers",
        "this server beside FastAPI, LitServe, BentoML, Ray Serve and MLServer, as shares of the machine's limit",
        "benchmarks.peers.command:main",
        _peers,
    ),
    Command(
        "report",
        "a result as one page that needs nothing else, and as Markdown with pictures",
        "benchmarks.reporting.page:main",
        _report,
    ),
    Command(
        "compare",
        "two results: what is better or worse, and what cannot be told from noise",
        "benchmarks.reporting.comparing:main",
        _compare,
    ),
    Command(
        "gpu-day",
        "versions, plans, CUDA graphs, answers, upgrades and crashes on a GPU: ten minutes, a bundle of evidence",
        "benchmarks.gpu_day.commands:main",
        _gpu_day,
    ),
    Command(
        "limit",
        "the release's own steps and graph in process, without a server: what all figures are a share of",
        "benchmarks.limit:main",
        _limit,
    ),
    Command(
        "speed",
        "the gate: latency and CPU of a request, served against in process, may not grow",
        "benchmarks.speed.command:main",
        _speed,
    ),
    Command(
        "scenario",
        "steady, ramp, spike, mixed priorities or recorded traffic, by Locust or k6: pass or fail",
        "benchmarks.scenarios.command:main",
        _scenario,
    ),
    Command(
        "tune",
        "batch sizes, delays, instances, threads, queues: a search on a real server, a patch with its evidence",
        "benchmarks.tuning.command:main",
        _tune,
    ),
    Command(
        "growth",
        "throughput and memory against batch, image and text size, models, connections, versions",
        "benchmarks.growth.command:main",
        _growth,
    ),
)

if __name__ == "__main__":
    run_command_line(main, ProjectError)
