"""What `python -m benchmarks tune` takes."""

import argparse
from pathlib import Path

from benchmarks.command_line import options
from cli.commands import Command, positive


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
    options.seconds(tune, 1.5, "of each of the levels of load of a trial")
    options.rounds(tune, 9, "of the winner beside today's settings")


TUNE = Command(
    "tune",
    "batch sizes, delays, instances, threads, queues: a search on a real server, a patch with its evidence",
    "benchmarks.tuning.command:main",
    _tune,
)
