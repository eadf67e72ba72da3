"""All rows of a database, table by table, and a digest of them that is the same in every database."""

import hashlib
import json
from collections.abc import AsyncIterator, Collection
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, MetaData, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection


class Digest:
    """Of rows in any order: how many there are, and the sum of the SHA-256 of each.

    PostgreSQL gives JSON back with other numbers than it was given: 5 or 5.0, 1e300 or all of its digits. So the
    numbers in columns of JSON count by their value.
    """

    def __init__(self, json_columns: Collection[str]) -> None:
        self.rows = 0
        self.json_columns = tuple(sorted(json_columns))
        self._sum = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        same = {name: _same(value) if name in self.json_columns else value for name, value in row.items()}
        digest = hashlib.sha256(line_of(same).encode()).digest()
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(digest, "big")) % (1 << 256)

    def __str__(self) -> str:
        return f"{self._sum:064x}"


async def tables(connection: AsyncConnection) -> list[Table]:
    """Return the tables as the database has them, whatever revision its schema is."""
    found = MetaData()
    await connection.run_sync(found.reflect)
    return [table for name, table in sorted(found.tables.items()) if name != "alembic_version"]


def json_columns(table: Table) -> list[str]:
    """Return the names of the columns that hold JSON."""
    return [column.name for column in table.columns if isinstance(column.type, JSON)]


async def rows(connection: AsyncConnection, table: Table) -> AsyncIterator[dict[str, Any]]:
    """Yield all rows of a table, some at a time."""
    found = await connection.stream(select(table), execution_options={"yield_per": 1000})
    async for row in found:
        yield dict(row._mapping)


def line_of(row: dict[str, Any]) -> str:
    """Return a row as a line of JSON."""
    return json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _same(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _same(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_same(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ["number", str(Decimal(repr(value)).normalize()) if value else "0"]
    return value
