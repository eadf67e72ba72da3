"""Write a stretch of a segment in one transaction, together with how far the segment is written then.

So it does not matter who is killed when: after a commit whose answer was lost, the place says that it was done. A
record that is there already is left as it is, and counted; its usage is not counted again.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, String, Table, any_, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from store import schema
from store.database import Database
from store.writing.rows import Row, day_of

_ADDED = ("requests", "rows", "failed")
_TEXTS = ARRAY(String)
_PLACE_SUMS = ("written", "duplicates", "refused")
_ERASING = 7_202_253_612  # PostgreSQL's advisory lock: whoever erases waits for those who write, and they for it


@dataclass(frozen=True)
class Written:
    """What became of a batch; `erased` are the rows that were not written, as what they are about was erased."""

    position: int
    written: int = 0
    duplicates: int = 0
    erased: tuple[Row, ...] = ()


async def write(
    database: Database, segment: str, begin: int, end: int, rows: Sequence[Row], refused: int = 0
) -> Written:
    """Write the rows that lie between `begin` and `end` of a segment, unless its place says that they are written.

    Returns:
        What was written, and the place after it, which is another one where somebody has been here before.

    Raises:
        DatabaseGoneError: nothing is known of what was written; the place knows it.
        sqlalchemy.exc.DBAPIError: the database refuses a row.
    """
    async with database.writing() as connection:
        await hold_erasures(database, connection, shared=True)
        place = await connection.scalar(select(schema.Place.position).where(schema.Place.segment == segment))
        if (place or 0) != begin:
            return Written(place or 0)
        erased = await _erased(database, connection, rows)
        kept = [row for row in rows if not _is_erased(row, erased)]
        written, inserted = await _insert(database, connection, kept)
        await _add_usage(database, connection, inserted)
        done = Written(end, written, len(kept) - written, tuple(row for row in rows if _is_erased(row, erased)))
        place_row = {
            "segment": segment, "position": end, "written": written, "duplicates": done.duplicates, "refused": refused,
        }  # fmt: skip
        await _add(database, connection, schema.Place.__table__, [place_row], _PLACE_SUMS, position=end)
    return done


async def hold_erasures(database: Database, connection: AsyncConnection, *, shared: bool) -> None:
    """Keep erasures and writes apart until the transaction ends; SQLite's writers are one at a time anyway."""
    if not database.is_sqlite:
        lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        await connection.execute(select(lock(_ERASING)))


async def _erased(database: Database, connection: AsyncConnection, rows: Iterable[Row]) -> dict[str, int]:
    subjects = sorted({subject for row in rows for subject in row.subjects})
    if not subjects:
        return {}
    table = schema.Erasure
    # As one array, where there are arrays: else each number of them is another statement to prepare.
    among = table.subject.in_(subjects) if database.is_sqlite else table.subject == any_(literal(subjects, _TEXTS))
    found = await connection.execute(select(table.subject, table.until).where(among))
    return dict(found.tuples().all())


def _is_erased(row: Row, erased: dict[str, int]) -> bool:
    return any(row.time <= erased.get(subject, -1) for subject in row.subjects)


async def _insert(
    database: Database, connection: AsyncConnection, rows: Sequence[Row]
) -> tuple[int, list[dict[str, Any]]]:
    """Insert the rows that are not there yet: how many, and the usage that comes of them."""
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_kind[row.kind].append(row.values)
    usage = by_kind.pop("usage", [])
    written = len(usage)
    for kind, table in (
        ("prediction", schema.Prediction),
        ("label", schema.Label),
        ("event", schema.Event),
    ):
        if values := by_kind.get(kind):
            statement = _dialect(database).insert(table).on_conflict_do_nothing().returning(table.id)
            new = set((await connection.execute(statement, values)).scalars())
            written += len(new)
            if kind == "prediction":
                first = {row["id"]: row for row in reversed(values)}  # of those with one id in the batch
                usage += [_usage(first[each]) for each in new]
    if releases := by_kind.get("release"):
        statement = _dialect(database).insert(schema.Release).on_conflict_do_nothing()
        returning = statement.returning(schema.Release.release)
        written += len((await connection.execute(returning, releases)).all())
    return written, usage


def _usage(prediction: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": prediction["key"] or "", "day": day_of(prediction["time"]), "model": prediction["model"],
        "requests": 1, "rows": prediction["rows"], "failed": int(prediction["status"] >= 400),
    }  # fmt: skip


async def _add_usage(database: Database, connection: AsyncConnection, rows: Iterable[dict[str, Any]]) -> None:
    sums: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        total = sums.setdefault((row["key"], row["day"], row["model"]), {**row, **dict.fromkeys(_ADDED, 0)})
        for name in _ADDED:
            total[name] += row[name]
    if sums:  # in one order, whoever writes: two writers never wait for each other in a circle
        await _add(database, connection, schema.Usage.__table__, [sums[key] for key in sorted(sums)], _ADDED)


async def _add(
    database: Database, connection: AsyncConnection, table: Any, rows: list[dict[str, Any]], sums: Sequence[str],
    **also: Any,
) -> None:  # fmt: skip
    """Insert rows, or add to those that are there."""
    assert isinstance(table, Table)
    insert = _dialect(database).insert(table)
    changed = {name: table.c[name] + insert.excluded[name] for name in sums}
    key = [column.name for column in table.primary_key]
    await connection.execute(insert.on_conflict_do_update(index_elements=key, set_={**changed, **also}), rows)


def _dialect(database: Database) -> Any:
    """Return SQLAlchemy's module with the database's own INSERT … ON CONFLICT, of which both have the same."""
    return sqlite if database.is_sqlite else postgresql
