"""What `python -m benchmarks gateway` takes."""

import argparse
from pathlib import Path

from benchmarks.command_line import options
from cli.commands import Command


def _gateway(gateway: argparse.ArgumentParser) -> None:
    options.rounds(gateway, 9)
    options.seconds(gateway, 1, "of each of the ten measurements in a round")
    gateway.add_argument("--nginx", type=Path, metavar="FILE", help="default: that of PATH, else Debian's, unpacked")


GATEWAY = Command(
    "gateway",
    "what the gateway's doors cost a request, beside Triton alone and nginx that asks it",
    "benchmarks.gateway.command:main",
    _gateway,
)
