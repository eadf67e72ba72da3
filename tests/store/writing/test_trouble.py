"""A database that is gone, slow, full or busy: records wait, it is said why, and none is lost or there twice."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from store.database import Database
from store.errors import DatabaseGoneError, SchemaError
from store.spool import Spool, segments
from store.writing import state
from store.writing.writer import Writer
from tests.conftest import free_ports
from tests.store.databases import PostgreSQL, postgresql
from tests.store.given import prediction
from tests.store.records import asked, changed, in_store, spooled, written


def watched(url: str, folder: Path, play: Callable[[Writer, list[str]], Awaitable[None]]) -> None:
    """A writer that runs beside what a test does; `play` also sees what it says."""

    async def run() -> None:
        said: list[str] = []
        stop = asyncio.Event()
        async with Database(url, wait_s=1) as database:
            writer = Writer(database, folder, batch=100, say=said.append)
            running = asyncio.create_task(writer.run(stop))
            try:
                await play(writer, said)
            finally:
                stop.set()
                await asyncio.wait_for(running, 60)

    asyncio.run(run())


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def test_a_database_that_dies_or_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with postgresql() as server:
        url = server.new()

        async def play(writer: Writer, said: list[str]) -> None:
            spool.put(prediction(1))
            await until(lambda: writer.state.written == 1)
            for number, (away, back) in enumerate([(server.kill, server.start), (server.freeze, server.thaw)], start=2):
                away()
                spool.put(prediction(number))
                await until(lambda: writer.state.waiting)
                assert state.read(tmp_path / "spool").waiting, "who asks for the status is told"
                assert "does not answer" in said[-1] and "postgres@" in said[-1]
                back()
                await until(lambda number=number: writer.state.written == number)
                assert not writer.state.waiting and "is there again" in said[-1]
            assert len(said) == 4, "once for each, however often it was tried"

        watched(url, tmp_path / "spool", play)
        assert sorted(asked(url, "SELECT id FROM predictions")) == [("r1",), ("r2",), ("r3",)]


def test_a_database_that_is_not_there_yet_is_waited_for(tmp_path: Path, postgres: PostgreSQL) -> None:
    spooled(tmp_path / "spool", prediction(1))

    async def play(writer: Writer, said: list[str]) -> None:
        await until(lambda: writer.state.waiting)
        assert 'database "comes_later" does not exist' in writer.state.waiting
        await asyncio.to_thread(postgres.server.psql, "CREATE DATABASE comes_later;")
        await until(lambda: writer.state.written == 1)

    watched(postgres.url("comes_later"), tmp_path / "spool", play)


def test_a_pool_that_is_exhausted_is_said_in_time(url: str) -> None:
    async def run() -> None:
        async with Database(url, connections=1, wait_s=0.3) as database, database.writing():
            started = time.monotonic()
            with pytest.raises(DatabaseGoneError):
                async with database.writing():
                    pass
            assert time.monotonic() - started < 3

    asyncio.run(run())


def test_what_others_have_locked_is_waited_for(url: str, tmp_path: Path) -> None:
    written(url, spooled(tmp_path / "spool", prediction(1)))
    spool = Spool(tmp_path / "spool")

    async def play(writer: Writer, said: list[str]) -> None:
        async with Database(url) as other, other.writing() as connection:
            if not other.is_sqlite:
                await connection.exec_driver_sql("LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE")
            spool.put(prediction(2))
            await until(lambda: writer.state.waiting)
        await until(lambda: asked_ids(writer) == 2)

    def asked_ids(writer: Writer) -> int:
        return writer.state.written

    watched(url, tmp_path / "spool", play)
    assert asked(url, "SELECT count(*) FROM predictions") == [(2,)]


def test_a_disk_that_is_full_is_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    written(url, spooled(tmp_path / "spool", prediction(0)))
    records = [prediction(number, inputs={"text": "x" * 2000}) for number in range(1, 200)]

    async def play(database: Database) -> None:
        async with database.engine.connect() as connection:  # the only one, which keeps the limit
            pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
            await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 5}")
        spooled(tmp_path / "spool", *records)
        writer = Writer(database, tmp_path / "spool", say=lambda _: None)
        with pytest.raises(DatabaseGoneError, match="disk is full"):
            await writer.step()
        async with database.engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        await writer.run(asyncio.Event(), once=True)

    async def once(database: Database) -> None:
        await play(database)

    in_store(url, once)
    assert asked(url, "SELECT count(*), sum(rows) FROM predictions") == [(200, 400)]


def test_who_is_not_let_in_or_lacks_a_right_gives_no_record_up(tmp_path: Path, postgres: PostgreSQL) -> None:
    url = postgres.new()
    written(url, tmp_path / "spool")
    changed(url, "CREATE ROLE reader NOLOGIN")
    changed(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    spooled(tmp_path / "spool", prediction(1))

    async def play(writer: Writer, said: list[str]) -> None:
        await until(lambda: "not permitted to log in" in writer.state.waiting)
        await asyncio.to_thread(changed, url, "ALTER ROLE reader LOGIN")
        await until(lambda: "permission denied" in writer.state.waiting)
        assert not writer.state.refused
        await asyncio.to_thread(changed, url, "GRANT ALL ON ALL TABLES IN SCHEMA public TO reader")
        await until(lambda: writer.state.written == 1)

    watched(url.replace("postgres@", "reader@"), tmp_path / "spool", play)


def test_a_password_is_never_said(tmp_path: Path) -> None:
    [port] = free_ports(1)
    url = f"postgresql://me:sesame@127.0.0.1:{port}/store?sslmode=disable"

    async def run() -> None:
        async with Database(url) as database:
            with pytest.raises(DatabaseGoneError) as raised:
                async with database.reading():
                    pass
            assert "sesame" not in str(raised.value) and "me:***@127.0.0.1" in str(raised.value)

    asyncio.run(run())
    for wrong in ("mysql://me:sesame@host/x", "sesame", "postgresql://me:sesame@host:port/x", "sqlite://"):
        with pytest.raises(SchemaError) as refused:
            Database(wrong)
        assert "sesame" not in str(refused.value)


def test_a_segment_that_somebody_removed_stops_nothing(url: str, tmp_path: Path) -> None:
    spooled(tmp_path / "spool", prediction(1))
    spooled(tmp_path / "spool", prediction(2))

    async def play(database: Database) -> None:
        writer = Writer(database, tmp_path / "spool", batch=1)
        await writer.step()
        for path in segments(tmp_path / "spool"):
            path.unlink()
        spooled(tmp_path / "spool", prediction(3))
        await writer.run(asyncio.Event(), once=True)
        assert writer.state.written == 3

    in_store(url, play)


def test_a_commit_whose_answer_was_lost_is_not_done_again(url: str, tmp_path: Path) -> None:
    """The connection is lost as the commit is answered: nobody but the database knows that it is done."""
    from store.writing import batches

    spooled(tmp_path / "spool", *(prediction(number) for number in range(10)))
    write, lost = batches.write, []

    async def loses(*given: object, **named: object) -> object:
        done = await write(*given, **named)  # type: ignore[arg-type]  # handed on
        if not lost:
            lost.append(done)
            raise DatabaseGoneError("the connection was lost")
        return done

    async def play(database: Database) -> None:
        batches.write = loses  # type: ignore[assignment]
        try:
            await Writer(database, tmp_path / "spool", batch=4, say=lambda _: None).run(asyncio.Event(), once=True)
        finally:
            batches.write = write

    in_store(url, play)
    assert lost and asked(url, "SELECT count(*) FROM predictions") == [(10,)]
    assert asked(url, "SELECT requests FROM usage") == [(10,)]
    assert state.read(tmp_path / "spool").duplicates == 0
