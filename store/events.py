"""Events: conversions after a request, features of an entity; a page at a time, one statement each."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, tuple_

from store import schema
from store.database import Database

_table = schema.Event


@dataclass(frozen=True)
class Event:
    """Something that happened; times are nanoseconds since 1970."""

    id: str
    name: str
    time: int
    received: int
    request: str | None
    entity: str | None
    value: float | None
    data: dict[str, Any] | None
    key: str | None


@dataclass(frozen=True)
class Wanted:
    """Which events; None: any. `since` and `until`, which is not included, are nanoseconds since 1970."""

    name: str | None = None
    request: str | None = None
    entity: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class Page:
    """Some events, the newest first, and after which the next ones come; None if these are the last."""

    rows: tuple[Event, ...]
    next: tuple[int, str] | None


async def page(database: Database, wanted: Wanted, *, after: tuple[int, str] | None = None, limit: int = 1000) -> Page:
    """Return a page."""
    asked = select(_table.__table__).order_by(_table.time.desc(), _table.id.desc()).limit(limit + 1)
    for name in ("name", "request", "entity"):
        if (value := getattr(wanted, name)) is not None:
            asked = asked.where(getattr(_table, name) == value)
    if wanted.since is not None:
        asked = asked.where(_table.time >= wanted.since)
    if wanted.until is not None:
        asked = asked.where(_table.time < wanted.until)
    if after is not None:
        asked = asked.where(tuple_(_table.time, _table.id) < tuple_(*after))
    async with database.reading() as connection:
        found = [Event(**row._mapping) for row in await connection.execute(asked)]
    rows = tuple(found[:limit])
    return Page(rows, (rows[-1].time, rows[-1].id) if len(found) > limit else None)
