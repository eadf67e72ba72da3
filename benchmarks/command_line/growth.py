"""What `python -m benchmarks growth` takes."""

import argparse

from benchmarks.command_line import options
from cli.commands import Command, positive_count


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
    options.seconds(growth, 2, "of each measurement under load")


GROWTH = Command(
    "growth",
    "throughput and memory against batch, image and text size, models, connections, versions",
    "benchmarks.growth.command:main",
    _growth,
)
