"""What the commands take that load a server."""

import argparse
from pathlib import Path

from benchmarks.command_line import options
from cli.commands import Command, positive, positive_count, share


def _perf(perf: argparse.ArgumentParser) -> None:
    options.model(perf)
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
    options.images(perf)


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
    options.model(overload)
    options.images(overload)


def _soak(soak: argparse.ArgumentParser) -> None:
    soak.add_argument("--minutes", type=positive, default=30, help="default: 30; Ctrl-C reports what there is")
    soak.add_argument("--reload-every", type=float, default=180, metavar="SECONDS", help="default: 180; 0: never")
    soak.add_argument("--limit", type=float, default=10, metavar="MB_PER_H", help="of growth (default: 10)")
    options.model(soak)
    options.images(soak)


def _front(front: argparse.ArgumentParser) -> None:
    options.rounds(front, 15)
    options.seconds(front, 1, "of each of the six measurements in a round")
    front.add_argument("--against", type=Path, required=True, metavar="DIRECTORY", help="the other checkout")
    front.add_argument("--model", help="send its golden request to the server that is up (default: made up)")
    front.add_argument("--nginx", type=Path, metavar="FILE", help="default: that of PATH, or /usr/sbin/nginx")


def _cache(cache: argparse.ArgumentParser) -> None:
    options.rounds(cache, 5, "some 30 s each")
    options.model(cache)


PERF = Command(
    "perf",
    "throughput and latency percentiles by concurrency, from perf_analyzer",
    "benchmarks.serving.perf:main",
    _perf,
)
OVERLOAD = Command(
    "overload",
    "goodput, latency and recovery past saturation, in an open loop",
    "benchmarks.serving.overload:main",
    _overload,
)
SOAK = Command(
    "soak",
    "memory slope of every process under half of the peak load; reloads mixed in",
    "benchmarks.serving.soak:main",
    _soak,
)
FRONT = Command(
    "front",
    "what the proxy in front of Triton costs a request, beside another checkout's",
    "benchmarks.serving.front:main",
    _front,
)
CACHE = Command(
    "cache",
    "the response cache on each model, for repeated and for new images",
    "benchmarks.serving.cache:main",
    _cache,
)
