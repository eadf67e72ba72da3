"""What `python -m benchmarks peers` takes."""

import argparse

from benchmarks.command_line import options
from cli.commands import Command


def _peers(peers: argparse.ArgumentParser) -> None:
    from benchmarks.peers.names import MODELS, PEERS

    peers.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], help="default: all, of %(choices)s")
    peers.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS], help="default: all, of %(choices)s")
    options.rounds(peers, 5)
    options.seconds(peers, 3, "of each measurement, whole ones: three a system in a round")
    peers.add_argument(
        "--search", action="store_true", help="look for each peer's best settings first; an hour for all"
    )


PEERS = Command(
    "peers",
    "this server beside FastAPI, LitServe, BentoML, Ray Serve and MLServer, as shares of the machine's limit",
    "benchmarks.peers.command:main",
    _peers,
)
