"""What `python -m benchmarks gateway`, `gateway-drill` and `gateway-soak` take."""

import argparse
from pathlib import Path

from benchmarks.command_line import options
from cli.commands import Command, count, positive, positive_count


def _gateway(gateway: argparse.ArgumentParser) -> None:
    options.rounds(gateway, 9)
    options.seconds(gateway, 1, "of each of the ten measurements in a round")
    gateway.add_argument("--nginx", type=Path, metavar="FILE", help="default: that of PATH, else Debian's, unpacked")


def _drill(drill: argparse.ArgumentParser) -> None:
    drill.add_argument(
        "--servers", type=positive_count, default=2, metavar="N", help="behind it; 1: callers wait (default: 2)"
    )
    drill.add_argument("--requests", type=positive_count, default=5_000, metavar="N", help="at least (default: 5,000)")
    drill.add_argument("--connections", type=positive_count, default=8, metavar="N", help="default: 8")
    drill.add_argument("--model", help="the one to upgrade (default: the first that was released)")
    drill.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _soak(soak: argparse.ArgumentParser) -> None:
    soak.add_argument("--requests", type=positive_count, default=1_000_000, metavar="N", help="default: 1,000,000")
    soak.add_argument("--connections", type=positive_count, default=16, metavar="N", help="default: 16")
    soak.add_argument("--kills", type=count, default=3, metavar="N", help="of PostgreSQL, spread evenly (default: 3)")
    soak.add_argument("--away", type=positive, default=5, metavar="SECONDS", help="that it is gone (default: 5)")
    soak.add_argument(
        "--limit-percent", type=positive, default=5, metavar="PERCENT", help="of growth of memory (default: 5)"
    )
    soak.add_argument("--json", action="store_true", help="one JSON object on stdout")


GATEWAY = Command(
    "gateway",
    "what the gateway's doors cost a request, beside Triton alone and nginx that asks it",
    "benchmarks.gateway.command:main",
    _gateway,
)
DRILL = Command(
    "gateway-drill",
    "upgrade, harm and kill the servers behind the gateway under load, through the client library",
    "benchmarks.gateway.drill:main",
    _drill,
)
SOAK = Command(
    "gateway-soak",
    "many requests through the gateway: as many records, PostgreSQL killed meanwhile, memory flat",
    "benchmarks.gateway.soak:main",
    _soak,
)
