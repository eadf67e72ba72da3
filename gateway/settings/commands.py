"""What `python -m gateway settings` takes."""

import argparse
from pathlib import Path

from cli.commands import Command


def _settings(settings: argparse.ArgumentParser) -> None:
    settings.add_argument("--changed", action="store_true", help="only those that are not defaults")
    settings.add_argument("--json", action="store_true", help="one JSON object on stdout")
    env_file(settings)


def env_file(command: argparse.ArgumentParser) -> None:
    """Add the argument that every command takes which reads the settings."""
    command.add_argument("--env-file", type=Path, metavar="FILE", help="in place of .env in the current folder")


COMMANDS = (
    Command("settings", "what holds, and where from: secrets are masked", "gateway.settings.show:run", _settings),
)
