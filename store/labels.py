"""Labels: what callers have said was true for a request, each correction beside what it corrects.

The label that holds is the newest by the time that it speaks of, whatever order they came in; null withdraws it.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store import schema
from store.database import Database

_table = schema.Label
_NEWEST = (_table.time.desc(), _table.received.desc(), _table.id.desc())


@dataclass(frozen=True)
class Label:
    """A label as it was given; times are nanoseconds since 1970."""

    id: str
    request: str
    name: str
    value: Any
    time: int
    received: int
    key: str | None


async def history(database: Database, request: str, name: str | None = None) -> list[Label]:
    """Return all labels of a request, the one that holds first; one statement."""
    asked = select(_table.__table__).where(_table.request == request).order_by(_table.name, *_NEWEST)
    async with database.reading() as connection:
        found = await connection.execute(asked if name is None else asked.where(_table.name == name))
        return [Label(**row._mapping) for row in found]


async def holding(connection: AsyncConnection, requests: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the labels that hold, {request: {name: value}}; one statement, however many requests."""
    place = func.row_number().over(partition_by=(_table.request, _table.name), order_by=_NEWEST).label("place")
    ranked = select(_table.request, _table.name, _table.value, place).where(_table.request.in_(list(requests)))
    newest = ranked.subquery()
    asked = select(newest.c.request, newest.c.name, newest.c.value).where(newest.c.place == 1)
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for request, label, value in (await connection.execute(asked)).tuples():
        if value is not None:
            found[request][label] = value
    return dict(found)


async def unmatched(database: Database, before: int, limit: int = 100) -> tuple[int, list[Label]]:
    """Return how many labels are for a request that is not known, and the oldest of them; two statements.

    Args:
        before: Received before this time, in nanoseconds since 1970: the record of a request may come later.
    """
    known = select(schema.Prediction.id).where(schema.Prediction.id == _table.request).exists()
    async with database.reading() as connection:
        count = await connection.scalar(_unmatched(select(func.count()), known, before))
        oldest = _unmatched(select(_table.__table__), known, before).order_by(_table.received).limit(limit)
        return count or 0, [Label(**row._mapping) for row in await connection.execute(oldest)]


def _unmatched(asked: Select[Any], known: Any, before: int) -> Select[Any]:
    return asked.select_from(_table).where(~known, _table.received < before)
