"""The record: what was asked, answered and found true.

  python -m store write                          take records from the spool to the database, until it is stopped
  python -m store status                         is the database there, what waits, what was lost
  python -m store migrate                        bring the database's schema to that of this version
  python -m store predictions --model fashion    the newest requests and answers, a page at a time
  python -m store show REQUEST                   one of them, with its labels and events; its whole inputs
  python -m store usage --since 2026-11-01       requests and rows by key, day and model
  python -m store retain --predictions 90        remove what is older than so many days
  python -m store erase --request ID             remove all of a request, or of a key, for good
  python -m store backup FILE                    all of the database in one file
  python -m store restore FILE --to URL          into an empty database, and verified

The database is that of STORE_URL, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME; where that is not set,
artifacts/store/store.db. What answers requests needs none: it leaves its records in a spool, artifacts/store/spool.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cli import commands
from cli.commands import Command, positive_count
from cli.run import run_command_line
from contracts.errors import ProjectError


def main(arguments: Sequence[str] | None = None) -> int:
    return commands.run("python -m store", __doc__, COMMANDS, arguments)


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="URL", help="of the database (default: STORE_URL, else SQLite in artifacts)")


def _spool(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spool", type=Path, metavar="DIRECTORY", help="default: artifacts/store/spool")


def _payloads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--payloads", metavar="PLACE", help="of whole inputs: a folder or s3://BUCKET/PREFIX (default: PAYLOADS_URL)"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _write(write: argparse.ArgumentParser) -> None:
    write.add_argument("--once", action="store_true", help="write what is there now, and end")
    write.add_argument("--batch", type=positive_count, default=1000, metavar="N", help="records (default: 1000)")
    _spool(write)
    _store(write)
    _payloads(write)


def _status(status: argparse.ArgumentParser) -> None:
    _spool(status)
    _store(status)
    _json(status)


def _migrate(migrate: argparse.ArgumentParser) -> None:
    migrate.add_argument("--to", default="head", metavar="REVISION", help="up or down to it (default: the newest)")
    migrate.add_argument("--draft", metavar="MESSAGE", help="for developers: the next revision, from schema.py")
    _store(migrate)


COMMANDS = (
    Command("write", "Take records from the spool to the database.", "store.command_line.write:run", _write),
    Command("status", "Is the database there, what waits, what was lost?", "store.command_line.status:run", _status),
    Command("migrate", "Bring the schema to a revision.", "store.command_line.migrate:run", _migrate),
)


if __name__ == "__main__":
    run_command_line(main, ProjectError)
