"""What the commands take that measure the client library."""

import argparse
from pathlib import Path

from benchmarks.command_line import options
from cli.commands import Command, positive_count


def _client(client: argparse.ArgumentParser) -> None:
    options.rounds(client, 15, "fewer fail by chance")
    options.seconds(client, 1, "of each of the 36 measurements in a round, 24 with --against")
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
    options.model(client)
    options.images(client)


def _storm(storm: argparse.ArgumentParser) -> None:
    options.rounds(storm, 5)
    options.seconds(storm, 8, "of each way in a round")
    options.model(storm)
    options.images(storm)


def _shared_memory(shared_memory: argparse.ArgumentParser) -> None:
    options.rounds(shared_memory, 5)
    options.seconds(shared_memory, 1, "of each of the measurements in a round, 16 if they are made up")
    shared_memory.add_argument("--model", help="send its golden requests to the server that is up (default: made up)")


def _hedging(hedging: argparse.ArgumentParser) -> None:
    options.rounds(hedging, 3)
    options.seconds(hedging, 10, "of each of the two in a round")


def _drill(drill: argparse.ArgumentParser) -> None:
    drill.add_argument(
        "--requests", type=positive_count, default=20_000, metavar="N", help="at least (default: 20,000)"
    )
    drill.add_argument(
        "--connections", type=positive_count, default=8, metavar="N", help="HTTP and gRPC in turn (default: 8)"
    )
    drill.add_argument("--model", help="the one to upgrade (default: the first that was released)")


CLIENT = Command(
    "client",
    "overhead over tritonclient (limits: 100 µs, 5 %), gain for many images (3×)",
    "benchmarks.calling.client:main",
    _client,
)
STORM = Command(
    "storm",
    "retry storm: goodput with retries (limit: 90 % of the peak)",
    "benchmarks.calling.storm:main",
    _storm,
)
SHARED_MEMORY = Command(
    "shared-memory",
    "inputs in shared memory against inputs in the request, by size",
    "benchmarks.calling.shared_memory:main",
    _shared_memory,
)
HEDGING = Command(
    "hedging",
    "percentiles of a long tail with and without hedging",
    "benchmarks.calling.hedging:main",
    _hedging,
)
DRILL = Command(
    "drill",
    "upgrade, harm and kill a server under load, through the client library",
    "benchmarks.calling.drill:main",
    _drill,
)
