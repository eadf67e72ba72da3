"""The gateway: the front door of a team's models.

  python -m gateway up --with-triton             answer requests at http://127.0.0.1:8080, with a Triton behind it
  python -m gateway keys create "web shop"       a key for a caller, shown this once
  python -m gateway settings                     what holds, and where from

Everything else is a setting: configs/settings.yaml, .env, the environment.
"""

from collections.abc import Sequence

from cli import commands
from cli.run import run_command_line
from contracts.errors import ProjectError
from gateway.running.commands import COMMANDS as RUNNING
from gateway.settings.commands import COMMANDS as SETTINGS


def main(arguments: Sequence[str] | None = None) -> int:
    return commands.run("python -m gateway", __doc__, (*RUNNING, *SETTINGS), arguments)


if __name__ == "__main__":
    run_command_line(main, ProjectError)
