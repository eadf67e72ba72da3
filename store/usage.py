"""What keys have used: requests and rows, by day and model. The key "" is nobody's, and stays when its records go."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from store import schema
from store.database import Database

_table = schema.Usage
BY = ("key", "day", "model")


@dataclass(frozen=True)
class Usage:
    """Sums over what is not named in it: requests, rows, and requests that failed."""

    key: str | None
    day: str | None
    model: str | None
    requests: int
    rows: int
    failed: int


async def totals(
    database: Database, *, by: Sequence[str] = BY, key: str | None = None, since: str = "", until: str = "9999"
) -> list[Usage]:
    """Return the sums by some of key, day and model; one statement.

    Args:
        since, until: Days as in 2026-11-30, `until` included.
    """
    columns = [getattr(_table, name) for name in BY if name in by]
    sums = [func.sum(getattr(_table, name)).label(name) for name in ("requests", "rows", "failed")]
    asked = select(*columns, *sums).where(_table.day >= since, _table.day <= until).group_by(*columns)
    asked = asked.order_by(*columns)
    if key is not None:
        asked = asked.where(_table.key == key)
    async with database.reading() as connection:
        rows = [row._mapping for row in await connection.execute(asked)]
    return [
        Usage(
            row.get("key"), row.get("day"), row.get("model"), *map(int, (row["requests"], row["rows"], row["failed"]))
        )
        for row in rows
        if row["requests"] is not None  # the sum of nothing
    ]
