"""Make a database again from a backup: elsewhere, all of it or nothing, and compared row by row afterwards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database
from store.errors import BackupError
from store.keeping import erasure
from store.keeping.backup import Manifest, check, compare, rows_of
from store.keeping.contents import Digest, rows, tables
from store.migrations import migrating

_CHUNK = 1000  # rows a statement


@dataclass(frozen=True)
class Restored:
    """What was restored, and how many rows of it were erased again, as they had been since the backup."""

    manifest: Manifest
    erased: int


async def restore(
    path: Path, to: Database, *, erasures_of: Database | None = None, advance: Callable[[int], None] = lambda _: None
) -> Restored:
    """Restore a backup into an empty database, compare it, and bring it to this version's schema.

    Args:
        erasures_of: The database that was in use since: what was erased from it is erased here, too.

    Raises:
        BackupError: the backup is damaged, the database is not empty, or what is in it afterwards is not the backup.
        DatabaseGoneError: it does not answer.
    """
    manifest = check(path, advance)
    if manifest.revision not in migrating.known_revisions():
        raise BackupError(
            f"{path} has the schema {manifest.revision}, which this version does not know",
            hint="restore it with the version that made it, or a later one",
        )
    await _make_tables(to, manifest)
    async with to.writing() as connection:
        for table in await _empty_tables(connection, to):
            if table.name in manifest.tables:
                await _fill(connection, table, rows_of(path, table.name), advance)
    await _verify(to, manifest, advance)
    await migrating.upgrade(to)
    return Restored(manifest, await erasure.reapply(to, erasures_of) if erasures_of else 0)


async def _make_tables(to: Database, manifest: Manifest) -> None:
    found = await migrating.revision(to)
    if found is not None and found != manifest.revision:
        async with to.reading() as connection:
            await _empty_tables(connection, to)
        await migrating.downgrade(to, "base")
    await migrating.upgrade(to, manifest.revision)


async def _empty_tables(connection: AsyncConnection, to: Database) -> list[Table]:
    found = await tables(connection)
    for table in found:
        if await connection.scalar(select(func.count()).select_from(select(table).limit(1).subquery())):
            raise BackupError(
                f"the database {to} is not empty: {table.name} has rows",
                hint="restore into another one, and name that in STORE_URL when it is verified",
            )
    return found


async def _fill(
    connection: AsyncConnection, table: Table, rows: Iterator[dict[str, Any]], advance: Callable[[int], None]
) -> None:
    while chunk := list(islice(rows, _CHUNK)):
        await connection.execute(insert(table), chunk)
        advance(len(chunk))


async def _verify(to: Database, manifest: Manifest, advance: Callable[[int], None]) -> None:
    async with to.reading() as connection:
        found = {table.name: table for table in await tables(connection)}
        for name, expected in manifest.tables.items():
            if name not in found:
                raise BackupError(f"the database {to} has no table {name}")
            digest = Digest(expected.json_columns)
            async for row in rows(connection, found[name]):
                digest.add(row)
                advance(1)
            compare(name, expected, digest, str(to))
