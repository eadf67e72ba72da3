"""`python -m store status`: the database, the spool and the process between them."""

import argparse
import asyncio
import json
import time
from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select

from cli.tables import console, table
from store import schema
from store.command_line import places
from store.database import Database
from store.errors import DatabaseGoneError, SchemaError
from store.migrations import migrating
from store.writing import state

_COUNTED = (schema.Prediction, schema.Label, schema.Event, schema.Key, schema.Release, schema.Verdict)


def run(options: argparse.Namespace) -> int:
    """Print it; return 0, or 3 where the database does not answer, or records wait and nobody writes them."""
    found = asyncio.run(_found(options))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    stuck = found["spool"]["waiting_bytes"] and not found["writer"]["runs"]
    return 3 if found["database"]["error"] or stuck else 0


async def _found(options: argparse.Namespace) -> dict[str, Any]:
    folder = places.spool(options)
    async with places.database(options) as database:
        answer, at = await _database(database)
    waiting = asdict(state.backlog(folder, at))
    waiting.pop("places")
    writer = {**asdict(state.read(folder)), "runs": state.is_written(folder)}
    return {"database": answer, "spool": {"folder": str(folder), **waiting}, "writer": writer}


async def _database(database: Database) -> tuple[dict[str, Any], dict[str, int]]:
    """Ask it two things: its revision, and how much is in it; three statements in all."""
    found: dict[str, Any] = {"url": str(database), "error": "", "revision": None, "head": migrating.head(), "rows": {}}
    try:
        found["revision"] = await migrating.revision(database)
        if found["revision"] is None:
            return found, {}
        async with database.reading() as connection:
            counts = [select(func.count()).select_from(each).scalar_subquery() for each in _COUNTED]
            numbers = (await connection.execute(select(*counts))).one()
            at = dict((await connection.execute(select(schema.Place.segment, schema.Place.position))).tuples().all())
        found["rows"] = {each.__tablename__: number for each, number in zip(_COUNTED, numbers, strict=True)}
    except (DatabaseGoneError, SchemaError) as error:
        found["error"] = str(error).splitlines()[0]
        return found, {}
    return found, at


def _print(found: dict[str, Any]) -> None:
    answer, spool, writer = found["database"], found["spool"], found["writer"]
    shown = table("", "", left=2, show_header=False, box=None)
    shown.add_row("database", answer["url"])
    schema_told = f"schema {answer['revision'] or 'none yet'}"
    if answer["revision"] not in (None, answer["head"]):
        schema_told += f"; this version's is {answer['head']}: python -m store migrate"
    shown.add_row("", answer["error"] or schema_told)
    if answer["rows"]:
        shown.add_row("", ", ".join(f"{number:,} {name}" for name, number in answer["rows"].items()))
    waits = f"{spool['waiting_bytes']:,} bytes wait in {spool['segments']:,} segments"
    if spool["waiting_bytes"]:
        waits += f", the oldest since {spool['oldest_s']:,.0f} s"
    shown.add_row("spool", waits)
    shown.add_row("writer", f"process {writer['pid']}" if writer["runs"] else "does not run: python -m store write")
    if writer["waiting"]:
        shown.add_row("", f"waits since {(time.time_ns() - writer['waiting_since']) / 1e9:,.0f} s: {writer['waiting']}")
    if writer["payloads_waiting"]:
        shown.add_row("", writer["payloads_waiting"])
    counted = ("written", "duplicates", "refused", "damaged", "erased")
    shown.add_row("", ", ".join(f"{writer[name]:,} {name}" for name in counted))
    console().print(shown)
