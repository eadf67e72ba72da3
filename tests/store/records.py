"""Stores of tests: written, asked, changed, and listened to."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event as event_of
from sqlalchemy import text

from store.database import Database
from store.migrations import migrating
from store.spool import Spool
from store.writing.writer import Writer

_T = TypeVar("_T")


def in_store(url: str, do: Callable[[Database], Awaitable[_T]], *, prepare: bool = True) -> _T:
    """Do something with a database that has its tables, or is as it is."""

    async def run() -> _T:
        async with Database(url, wait_s=30) as database:
            if prepare:
                await migrating.prepare(database)
            return await do(database)

    return asyncio.run(run())


def written(url: str, folder: Path, **options: Any) -> Writer:
    """Write all that is in a spool: the writer that did."""

    async def write(database: Database) -> Writer:
        writer = Writer(database, folder, **options)
        await asyncio.wait_for(writer.run(asyncio.Event(), once=True), 60)
        return writer

    return in_store(url, write)


def asked(url: str, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of a statement in SQL."""

    async def ask(database: Database) -> list[tuple[Any, ...]]:
        async with database.reading() as connection:
            return [tuple(row) for row in await connection.execute(text(query), parameters)]

    return in_store(url, ask, prepare=False)


def changed(url: str, statement: str) -> None:
    """Carry out a statement in SQL."""

    async def change(database: Database) -> None:
        async with database.writing() as connection:
            await connection.execute(text(statement))

    in_store(url, change, prepare=False)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is asked of a database within the block, without what begins and ends transactions."""
    heard: list[str] = []

    def hear(_: Any, __: Any, statement: str, *___: Any) -> None:
        if not statement.startswith("BEGIN"):
            heard.append(statement)

    event_of.listen(database.engine.sync_engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        event_of.remove(database.engine.sync_engine, "before_cursor_execute", hear)


def spooled(folder: Path, *records: dict[str, Any]) -> Path:
    """A spool with these records: its folder."""
    spool = Spool(folder)
    for record in records:
        spool.put(record)
    assert not spool.lost, spool.last_error
    spool.close()
    return folder
