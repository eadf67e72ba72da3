"""What `python -m benchmarks scenario` takes."""

import argparse
from pathlib import Path

from benchmarks.command_line import options
from cli.commands import Command, port, positive, positive_count, share
from contracts import layout


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
    options.seconds(scenario, 30, "that it takes")
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


SCENARIO = Command(
    "scenario",
    "steady, ramp, spike, mixed priorities or recorded traffic, by Locust or k6: pass or fail",
    "benchmarks.scenarios.command:main",
    _scenario,
)
