"""The schema goes up and down with data in it, and code of every revision before works on today's."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from contracts import layout
from store.database import Database
from store.errors import DatabaseGoneError, SchemaError
from store.keeping import restoring
from store.keeping.backup import backup
from store.migrations import migrating
from store.schema import Base
from tests.store.databases import PostgreSQL
from tests.store.given import label, prediction
from tests.store.migrations.recording import RECORDED
from tests.store.records import asked, changed, spooled, written

FORMER = sorted({path.name.partition("-")[0] for path in RECORDED.glob("*.json")} - {migrating.head()})


@pytest.fixture
def url(empty_url: str) -> str:
    return empty_url


def migrated(url: str, to: str, down: bool = False) -> str:
    async def run() -> str:
        async with Database(url, wait_s=30) as database:
            return await (migrating.downgrade if down else migrating.upgrade)(database, to)

    return asyncio.run(run())


def asked_of(url: str, revision: str) -> list[tuple[str, Any]]:
    """What the code of a revision asks of such a database."""
    kind = "sqlite" if url.startswith("sqlite") else "postgresql"
    return [(words, _row(values)) for words, values in json.loads((RECORDED / f"{revision}-{kind}.json").read_text())]


def _row(values: Any) -> Any:
    return [tuple(each) for each in values] if values and isinstance(values[0], list) else tuple(values)


def played(url: str, statements: list[tuple[str, Any]]) -> None:
    async def play() -> None:
        async with Database(url) as database:
            for words, values in statements:
                async with database.writing() as connection:
                    await connection.exec_driver_sql(words, values)

    asyncio.run(play())


def test_the_last_revision_is_what_the_code_says(url: str) -> None:
    migrated(url, "head")

    def compare(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    async def run() -> list[Any]:
        async with Database(url) as database, database.reading() as connection:
            return await connection.run_sync(compare)

    assert asyncio.run(run()) == []


def test_up_and_down_with_data_in_between(url: str, tmp_path: Path) -> None:
    revisions = migrating.known_revisions()
    assert migrated(url, revisions[0]) == revisions[0]
    former = [words for words in asked_of(url, revisions[0]) if words[0].startswith("INSERT INTO predictions")][:1]
    played(url, former)
    for revision in revisions[1:]:
        assert migrated(url, revision) == revision
    written(url, spooled(tmp_path / "spool", prediction(2, caller_id="mine"), label(1, "r1", 1)))
    for revision in reversed(revisions[:-1]):
        assert migrated(url, revision, down=True) == revision
        assert asked(url, "SELECT id, status FROM predictions ORDER BY id") == [("r1", 200), ("r2", 200)]
    assert migrated(url, "head") == revisions[-1]
    assert asked(url, "SELECT id, caller_id FROM predictions ORDER BY id") == [("r1", None), ("r2", None)]
    assert asked(url, "SELECT requests FROM usage") == [(1,)] and len(asked(url, "SELECT id FROM labels")) == 1
    assert migrated(url, "base", down=True) == "base" and migrated(url, "head") == revisions[-1]


@pytest.mark.parametrize("revision", FORMER)
def test_code_of_each_former_revision_works_on_todays_schema(url: str, revision: str) -> None:
    migrated(url, "head")
    played(url, asked_of(url, revision))


def test_what_this_code_asks_is_recorded_for_later_ones() -> None:
    kinds = {path.name for path in RECORDED.glob(f"{migrating.head()}-*.json")}
    assert len(kinds) == 2, "python -m tests.store.migrations.recording URL, once for each kind of database"


@pytest.mark.parametrize("revision", FORMER)
def test_old_and_new_code_write_at_once_while_the_schema_changes(url: str, revision: str, tmp_path: Path) -> None:
    migrated(url, revision)
    words, values = next(each for each in asked_of(url, revision) if each[0].startswith("INSERT INTO predictions"))

    async def old(database: Database, stop: asyncio.Event) -> int:
        """Write as the former code does, until nobody has it any more."""
        count = 0
        while not stop.is_set():
            async with database.writing() as connection:
                await connection.exec_driver_sql(words, (f"old{count}", *values[1:]))
            count += 1
            await asyncio.sleep(0)
        return count

    async def run() -> int:
        stop = asyncio.Event()
        async with Database(url, wait_s=30) as one, Database(url, wait_s=30) as other:
            writing = asyncio.create_task(old(one, stop))
            await asyncio.sleep(0.2)
            await migrating.upgrade(other)
            await asyncio.to_thread(written, url, spooled(tmp_path / "spool", *map(prediction, range(500))))
            await asyncio.sleep(0.2)
            stop.set()
            return await writing

    count = asyncio.run(run())
    assert count > 10 and asked(url, "SELECT count(*) FROM predictions") == [(count + 500,)]


def test_several_who_migrate_at_once_do_it_once(url: str) -> None:
    async def run() -> list[str]:
        databases = [Database(url, wait_s=30) for _ in range(4)]
        found = await asyncio.gather(*(migrating.upgrade(each) for each in databases))
        for each in databases:
            await each.close()
        return found

    assert asyncio.run(run()) == [migrating.head()] * 4


def test_a_migration_that_fails_changes_nothing(url: str) -> None:
    first = migrating.known_revisions()[0]
    migrated(url, first)
    column = "caller_id VARCHAR(5)"  # somebody has added it by hand, as something else
    changed(url, f"ALTER TABLE predictions ADD COLUMN {column}")
    with pytest.raises(Exception, match="caller_id"):
        migrated(url, "head")

    async def run() -> str | None:
        async with Database(url) as database:
            return await migrating.revision(database)

    assert asyncio.run(run()) == first


def test_a_migration_does_not_wait_for_a_long_reader(postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ALTER that waits has everybody else wait: so it gives up, and says so."""
    monkeypatch.setattr(migrating, "_LOCK_WAIT", "300ms")
    url = postgres.new()
    migrated(url, migrating.known_revisions()[0])

    async def run() -> None:
        async with Database(url) as reader, Database(url, wait_s=30) as other:
            async with reader.reading() as connection:
                await connection.exec_driver_sql("SELECT * FROM predictions")
                with pytest.raises(DatabaseGoneError, match="lock timeout"):
                    await migrating.upgrade(other)
            assert await migrating.upgrade(other) == migrating.head()

    asyncio.run(run())


def test_a_writer_of_this_version_says_that_the_schema_is_behind_and_loses_nothing(url: str, tmp_path: Path) -> None:
    migrated(url, migrating.known_revisions()[0])
    spooled(tmp_path / "spool", prediction(1))
    words = [sys.executable, "-m", "store", "write", "--once", "--store", url, "--spool", str(tmp_path / "spool")]
    done = subprocess.run(words, cwd=layout.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "python -m store migrate" in done.stderr and "Traceback" not in done.stderr
    migrated(url, "head")
    assert written(url, tmp_path / "spool").state.written == 1


def test_a_schema_of_a_later_version_is_worked_with(url: str, tmp_path: Path) -> None:
    written(url, spooled(tmp_path / "spool", prediction(1)))
    changed(url, "ALTER TABLE predictions ADD COLUMN later INTEGER DEFAULT 0")
    changed(url, "UPDATE alembic_version SET version_num = '9999'")
    assert written(url, spooled(tmp_path / "spool", prediction(2))).state.written == 2, "in all its lives"
    with pytest.raises(SchemaError, match="cannot be brought to head"):
        migrated(url, "head")


def test_tables_that_are_not_ours_are_left_alone(url: str) -> None:
    changed(url, "CREATE TABLE customers (id INTEGER)")
    with pytest.raises(SchemaError, match="tables that are not the store's: customers"):
        migrated(url, "head")


def test_a_backup_of_a_former_revision_is_restored_and_brought_up(url: str, tmp_path: Path) -> None:
    first = migrating.known_revisions()[0]
    migrated(url, first)
    played(url, [each for each in asked_of(url, first) if each[0].startswith("INSERT INTO predictions")])

    async def run() -> int:
        async with Database(url) as old, Database(f"sqlite:///{tmp_path / 'new.db'}") as new:
            assert (await backup(old, tmp_path / "old.zip")).revision == first
            await restoring.restore(tmp_path / "old.zip", new)
            assert await migrating.revision(new) == migrating.head()
            async with new.reading() as connection:
                return len((await connection.exec_driver_sql("SELECT id, caller_id FROM predictions")).all())

    assert asyncio.run(run()) == 2
