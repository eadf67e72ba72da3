"""What `python -m benchmarks speed` takes."""

import argparse

from benchmarks.command_line import options
from cli.commands import Command, positive


def _speed(speed: argparse.ArgumentParser) -> None:
    speed.add_argument(
        "--against", metavar="COMMIT", help="also compare with this commit, or checkout, in the same run"
    )
    options.seconds(speed, 0.4, "of each of the two measurements of a side in a round")
    speed.add_argument(
        "--budget", type=positive, default=60, metavar="SECONDS", help="for all rounds, nine at least (default: 60)"
    )
    speed.add_argument(
        "--keep", action="store_true", help="write the figures to benchmarks/results/speed.json, for later runs"
    )
    speed.add_argument("--json", action="store_true", help="one JSON object on stdout")


SPEED = Command(
    "speed",
    "the gate: latency and CPU of a request, served against in process, may not grow",
    "benchmarks.speed.command:main",
    _speed,
)
