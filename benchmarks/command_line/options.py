"""Arguments that several commands take."""

import argparse
from pathlib import Path

from cli.commands import positive, positive_count
from contracts import layout


def model(command: argparse.ArgumentParser) -> None:
    """Add --model: which one is asked."""
    command.add_argument("--model", default=layout.DEFAULT_FAMILY, help="default: the ensemble %(default)s")


def images(command: argparse.ArgumentParser) -> None:
    """Add --images: what it is asked."""
    command.add_argument(
        "--images", type=Path, metavar="DIRECTORY", help="send its .png files, in place of golden requests"
    )


def rounds(command: argparse.ArgumentParser, default: int, more: str = "") -> None:
    """Add --rounds: how often everything is measured, in turn."""
    help_ = f"default: {default}; {more}" if more else f"default: {default}"
    command.add_argument("--rounds", type=positive_count, default=default, help=help_)


def seconds(command: argparse.ArgumentParser, default: float, what: str) -> None:
    """Add --seconds: how long something is measured."""
    command.add_argument("--seconds", type=positive, default=default, help=f"{what} (default: {default:g})")
