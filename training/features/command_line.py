"""The commands: declared here, where `--help` needs no Feast; carried out in the environment `data`.

python -m training features build FAMILY
python -m training features materialize FAMILY [--to MOMENT]
python -m training features serve FAMILY [--port 6566]
python -m training features status FAMILY
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NoReturn

from cli.commands import Command, port, run
from contracts import layout
from training.families import FAMILIES

PROGRAM = "python -m training features"
PORT = 6566  # Feast's own
DESCRIPTION = """Features once, for training and serving, by Feast: point-in-time joins, an online store, a server.

  python -m training features build FAMILY           training rows, each with what was known at its moment
  python -m training features materialize FAMILY     the newest rows into the online store; --to 2013-11-05T10:00Z
  python -m training features serve FAMILY           Feast's feature server over it
  python -m training features status FAMILY          how fresh it is
  python -m clients predict FAMILY … --features http://127.0.0.1:6566
"""


def in_its_environment(arguments: Sequence[str]) -> NoReturn:
    """Become the same command in the environment `data`, which is made if there is none; mistakes are said before."""
    run_here(arguments, check=True)
    from cli.installing.tool_environments import programs

    python = programs("data") / "python"
    places = [str(layout.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    sys.stdout.flush()
    os.execve(python, [str(python), "-m", "training.features", *arguments], environment)  # noqa: S606  # in its place


def run_here(arguments: Sequence[str] | None = None, *, check: bool = False) -> int:
    """Carry out the command that is named, in this process.

    Args:
        check: Only read it, and end the process where that is a mistake or `--help`.
    """
    return run(PROGRAM, DESCRIPTION, [_checked(command) for command in COMMANDS] if check else COMMANDS, arguments)


def nothing(_: argparse.Namespace) -> int:
    """Do nothing: the arguments are right."""
    return 0


def _checked(command: Command) -> Command:
    return Command(command.name, command.help, f"{__name__}:nothing", command.arguments)


def _build(build: argparse.ArgumentParser) -> None:
    _family(build)
    build.add_argument("--json", action="store_true", help="print what was made as JSON")


def _materialize(materialize: argparse.ArgumentParser) -> None:
    _family(materialize)
    materialize.add_argument(
        "--to",
        type=_moment,
        metavar="MOMENT",
        help="up to when, as 2013-11-05T10:00Z (default: the newest row that is known by now)",
    )
    materialize.add_argument(
        "--again",
        action="store_true",
        help="all that may still be served, not only what is new: for rows that came late",
    )
    materialize.add_argument("--anew", action="store_true", help="empty the online store first, to go back in time")
    _store(materialize)
    materialize.add_argument("--json", action="store_true", help="print what was written as JSON")


def _serve(serve: argparse.ArgumentParser) -> None:
    _family(serve)
    serve.add_argument(
        "--host", default="127.0.0.1", help="where it listens (default: %(default)s, this machine alone)"
    )
    serve.add_argument("--port", type=port, default=PORT, help="(default: %(default)s)")
    _store(serve)


def _status(status: argparse.ArgumentParser) -> None:
    _family(status)
    _store(status)
    status.add_argument("--json", action="store_true", help="print it as JSON")


def _family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", choices=list(FAMILIES), metavar="FAMILY", help=f"one of {', '.join(FAMILIES)}")


def _store(parser: argparse.ArgumentParser) -> None:
    stores = sorted(path.stem for path in (layout.ROOT / "configs" / "features").glob("*.yaml"))
    parser.add_argument(
        "--store",
        choices=stores,
        default=os.environ.get("FEATURES_STORE", "sqlite"),
        help=f"where online values are: {', '.join(stores)}, each a file in configs/features/ "
        "(default: $FEATURES_STORE, else sqlite)",
    )


def _moment(text: str) -> datetime:
    """Read an argument that is a moment: a time in ISO 8601 with its offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment: a time with its offset, as 2013-11-05T10:00Z")
    return found.astimezone(UTC)


COMMANDS = (
    Command("build", "training rows, each with what was known at its moment", "training.features.building:run", _build),
    Command(
        "materialize",
        "the newest row of each key into the online store",
        "training.features.materializing:run",
        _materialize,
    ),
    Command("serve", "Feast's feature server over the online store", "training.features.serving:run", _serve),
    Command("status", "how fresh the online store is", "training.features.reporting:run", _status),
)
