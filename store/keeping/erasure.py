"""Remove all of a request, or of a key, for good: rows, whole inputs, and what is still on its way.

First it is noted that it is erased, by a hash; so the writer leaves out what waits in a spool, and a backup that is
restored later is freed of it as well. What a key has used, as numbers, stays, and so does the key: revoke it first.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from store import schema
from store.database import Database
from store.keeping.retention import CHUNK
from store.payloads.moving import Payloads
from store.writing import refused
from store.writing.batches import hold_erasures
from store.writing.rows import subject

Kind = Literal["request", "key"]
FOR_EVER = (1 << 63) - 1

_TABLES = (schema.Label, schema.Event, schema.Prediction)


@dataclass
class Erased:
    """How many were removed."""

    predictions: int = 0
    labels: int = 0
    events: int = 0
    payloads: int = 0
    refused: int = 0


async def erase(database: Database, payloads: Payloads, spool: Path, kind: Kind, name: str) -> Erased:
    """Erase it. It may be stopped at any moment, and be begun again.

    Raises:
        DatabaseGoneError, PayloadError: it is noted, or not even that; the same command goes on.
    """
    now = time.time_ns()
    until = FOR_EVER if kind == "request" else now
    async with database.writing() as connection:
        await hold_erasures(database, connection, shared=False)
        await _note(database, connection, [{"subject": subject(kind, name), "until": until, "at": now}])
    erased = Erased()
    for table in _TABLES:
        while count := await _remove_some(database, payloads, table, _condition(table, kind, name, until), erased):
            setattr(erased, table.__tablename__, getattr(erased, table.__tablename__) + count)
    erased.refused = refused.erase(spool, ("key",) if kind == "key" else ("id", "request"), name)
    await database.tidy()
    return erased


async def reapply(database: Database, others: Database) -> int:
    """Erase in a database what is noted as erased in another; return how many rows that were."""
    async with others.reading() as connection:
        noted = [dict(row._mapping) for row in await connection.execute(select(schema.Erasure.__table__))]
    if not noted:
        return 0
    until = {row["subject"]: row["until"] for row in noted}
    async with database.writing() as connection:
        await _note(database, connection, noted)
    removed = 0
    for table in _TABLES:
        removed += await _reapply(database, table, until)
    await database.tidy()
    return removed


async def _note(database: Database, connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    insert = (sqlite if database.is_sqlite else postgresql).insert(schema.Erasure)
    changed = {"until": insert.excluded.until, "at": insert.excluded.at}
    newer = insert.excluded.until >= schema.Erasure.until
    await connection.execute(insert.on_conflict_do_update(index_elements=["subject"], set_=changed, where=newer), rows)


async def _remove_some(database: Database, payloads: Payloads, table: Any, condition: Any, erased: Erased) -> int:
    """Remove some rows, before them their inputs: a row that is gone no longer says where they are."""
    columns = (table.id, table.payload) if table is schema.Prediction else (table.id,)
    async with database.reading() as connection:
        rows = (await connection.execute(select(*columns).where(condition).limit(CHUNK))).all()
    if not rows:
        return 0
    if table is schema.Prediction:
        erased.payloads += await payloads.remove([row.payload for row in rows if row.payload])
    async with database.writing() as connection:
        await connection.execute(delete(table).where(table.id.in_([row.id for row in rows])))
    return len(rows)


def _condition(table: Any, kind: Kind, name: str, until: int) -> Any:
    if kind == "key":
        return (table.key == name) & (_came(table) <= until)
    return (table.id if table is schema.Prediction else table.request) == name


def _came(table: Any) -> Any:
    """Return when a row came: the time of labels and events is what their caller says."""
    return table.time if table is schema.Prediction else table.received


async def _reapply(database: Database, table: Any, until: dict[str, int]) -> int:
    request = table.id if table is schema.Prediction else table.request
    async with database.reading() as connection:
        rows = await connection.stream(
            select(table.id, request.label("request"), table.key, _came(table).label("came"))
        )
        gone = [row.id async for row in rows if _is_erased(row, until)]
    for at in range(0, len(gone), CHUNK):
        async with database.writing() as connection:
            await connection.execute(delete(table).where(table.id.in_(gone[at : at + CHUNK])))
    return len(gone)


def _is_erased(row: Any, until: dict[str, int]) -> bool:
    subjects = [subject(kind, name) for kind, name in (("request", row.request), ("key", row.key)) if name]
    return any(row.came <= until.get(each, -1) for each in subjects)
