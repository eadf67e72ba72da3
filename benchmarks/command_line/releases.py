"""What the commands take that measure several releases in one server."""

import argparse
from pathlib import Path

from benchmarks.command_line import options
from cli.commands import Command, positive_count


def _families(families: argparse.ArgumentParser) -> None:
    options.rounds(families, 5)
    options.seconds(families, 3, "of each measurement: one a family for its peak, two a family in a round")
    families.add_argument(
        "--models", nargs="+", default=[], metavar="MODEL", help="default: all that have golden requests"
    )


def _switch(switch: argparse.ArgumentParser) -> None:
    switch.add_argument(
        "--requests", type=positive_count, default=100_000, metavar="N", help="at least (default: 100,000)"
    )
    switch.add_argument("--connections", type=positive_count, default=16, metavar="N", help="default: 16")
    switch.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _startup(startup: argparse.ArgumentParser) -> None:
    options.rounds(startup, 5, "some 30 s each for a checkout; 30 for an interval that tells something")
    options.seconds(startup, 2, "of each of the measurements of throughput in a round")
    startup.add_argument("--releases", type=positive_count, default=10, metavar="N", help="default: 10")
    startup.add_argument(
        "--against", type=Path, metavar="DIRECTORY", help="compare with this checkout of another commit, in turn"
    )
    startup.add_argument("--model", help="what the releases are copies of (default: the first that was released)")
    startup.add_argument("--json", action="store_true", help="one JSON object on stdout")


FAMILIES = Command(
    "families",
    "several families in one server: memory of each, latency alone and with the others at half load",
    "benchmarks.releases.families:main",
    _families,
)
SWITCH = Command(
    "switch",
    "switch between two releases that differ in everything, and kill the server: no failure, no mixture",
    "benchmarks.releases.switch:main",
    _switch,
)
STARTUP = Command(
    "startup",
    "how long `deploy up` takes with ten releases and `reload` with one; throughput as before",
    "benchmarks.releases.startup:main",
    _startup,
)
