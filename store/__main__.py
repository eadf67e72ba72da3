"""The record: what was asked, answered and found true.

  python -m store write                          take records from the spool to the database, until it is stopped
  python -m store status                         is the database there, what waits, what was lost
  python -m store migrate                        bring the database's schema to that of this version
  python -m store predictions --model boats    the newest requests and answers, a page at a time
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
from cli.commands import Command, day, positive, positive_count
from cli.run import run_command_line
from contracts.errors import ProjectError


def main(arguments: Sequence[str] | None = None) -> int:
    return commands.run("python -m store", __doc__, COMMANDS, arguments)


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="URL", help="of the database (default: STORE_URL, else SQLite in artifacts)")


def _spool(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spool", type=Path, metavar="DIRECTORY", help="default: artifacts/store/spool")


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--place", metavar="PLACE", help="of whole inputs: a folder or s3://BUCKET/PREFIX (default: PAYLOADS_URL)"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _write(write: argparse.ArgumentParser) -> None:
    write.add_argument("--once", action="store_true", help="write what is there now, and end")
    write.add_argument(
        "--batch", type=_batch, default=1000, metavar="N", help="records a transaction, up to 10,000 (default: 1000)"
    )
    _spool(write)
    _store(write)
    _place(write)


def _batch(text: str) -> int:
    if (count := positive_count(text)) > 10_000:  # SQLite takes so many values in a statement, three times over
        raise argparse.ArgumentTypeError(f"{text} is more than 10,000")
    return count


def _status(status: argparse.ArgumentParser) -> None:
    _spool(status)
    _store(status)
    _json(status)


def _migrate(migrate: argparse.ArgumentParser) -> None:
    migrate.add_argument("--to", default="head", metavar="REVISION", help="up or down to it (default: the newest)")
    migrate.add_argument("--draft", metavar="MESSAGE", help="for developers: the next revision, from schema.py")
    _store(migrate)


def _predictions(predictions: argparse.ArgumentParser) -> None:
    for name in ("model", "key", "release", "arm"):
        predictions.add_argument(f"--{name}", help=f"of this {name}")
    predictions.add_argument("--caller-id", metavar="ID", help="that a caller has given it this id")
    _days(predictions)
    predictions.add_argument("--failed", action="store_true", default=None, help="answered with an error")
    predictions.add_argument("--labelled", action="store_true", default=None, help="with a label")
    predictions.add_argument("--limit", type=positive_count, default=100, metavar="N", help="a page (default: 100)")
    predictions.add_argument("--after", metavar="PLACE", help="the next page: what the one before ended with")
    _store(predictions)
    _json(predictions)


def _show(show: argparse.ArgumentParser) -> None:
    show.add_argument("request", metavar="REQUEST", help="its id")
    show.add_argument("--save", type=Path, metavar="FILE", help="write its whole inputs there, if they were sampled")
    _spool(show)
    _store(show)
    _place(show)
    _json(show)


def _usage(usage: argparse.ArgumentParser) -> None:
    usage.add_argument(
        "--by", nargs="+", choices=["key", "day", "model"], default=["key", "model"], help="default: key model"
    )
    usage.add_argument("--key", help="of this key")
    _days(usage)
    _store(usage)
    _json(usage)


def _retain(retain: argparse.ArgumentParser) -> None:
    for name, what in (
        ("predictions", "requests and answers"), ("payloads", "whole inputs"), ("labels", "labels, by when they came"),
        ("events", "events"), ("usage", "sums by day"),
    ):  # fmt: skip
        retain.add_argument(f"--{name}", type=positive, metavar="DAYS", help=f"for which {what} are kept")
    retain.add_argument("--dry-run", action="store_true", help="say how many there are, and remove none")
    _spool(retain)
    _store(retain)
    _place(retain)
    _json(retain)


def _erase(erase: argparse.ArgumentParser) -> None:
    what = erase.add_mutually_exclusive_group(required=True)
    what.add_argument("--request", nargs="+", metavar="ID", help="all of these requests")
    what.add_argument("--key", metavar="ID", help="all requests, labels and events of a key, up to now")
    _spool(erase)
    _store(erase)
    _place(erase)
    _json(erase)


def _backup(backup: argparse.ArgumentParser) -> None:
    backup.add_argument("file", type=Path, metavar="FILE", help="that is not there yet, as in record.zip")
    _store(backup)
    _json(backup)


def _restore(restore: argparse.ArgumentParser) -> None:
    restore.add_argument("file", type=Path, metavar="FILE", help="that `backup` wrote")
    where = restore.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", metavar="URL", help="of an empty database, of either kind")
    where.add_argument("--check", action="store_true", help="read all of the backup, and restore nothing")
    restore.add_argument(
        "--erasures-of", metavar="URL", help="also erase what was erased from that one since (default: STORE_URL)"
    )
    restore.add_argument("--no-erasures", action="store_true", help="restore also what was erased since")
    _json(restore)


def _days(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=day, metavar="DAY", help="from this day on, UTC, as in 2026-11-01")
    parser.add_argument("--until", type=day, metavar="DAY", help="up to and with this day")


COMMANDS = (
    Command("write", "Take records from the spool to the database.", "store.command_line.write:run", _write),
    Command("status", "Is the database there, what waits, what was lost?", "store.command_line.status:run", _status),
    Command("migrate", "Bring the schema to a revision.", "store.command_line.migrate:run", _migrate),
    Command("predictions", "Requests and answers, the newest first.", "store.command_line.look:run", _predictions),
    Command("show", "All that is known of a request.", "store.command_line.look:show", _show),
    Command("usage", "Requests and rows, by key, day and model.", "store.command_line.look:usage", _usage),
    Command("retain", "Remove what is older than so many days.", "store.command_line.remove:retain", _retain),
    Command("erase", "Remove all of a request, or of a key.", "store.command_line.remove:erase", _erase),
    Command("backup", "Write all of the database to a file.", "store.command_line.copies:backup", _backup),
    Command("restore", "Make a database from a backup, and verify it.", "store.command_line.copies:restore", _restore),
)


if __name__ == "__main__":
    run_command_line(main, ProjectError)
