"""The database as people have it: URLs of libpq's, TLS, a pooler in between, several who write at once."""

import asyncio
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from contracts import layout
from store import schema
from store.database import Database
from store.errors import DatabaseGoneError, SchemaError
from store.keeping.retention import Policy
from store.keys import Keys
from store.migrations import migrating
from store.writing.writer import Writer
from tests.background import background
from tests.conftest import free_ports, wait_for
from tests.packages import started_by, unpack
from tests.store.databases import PostgreSQL
from tests.store.given import prediction
from tests.store.records import asked, in_store, spooled, written

_UNPACKED = layout.artifacts() / "tools" / "pgbouncer"


@pytest.mark.parametrize("more", ["sslmode=prefer", "sslmode=disable&application_name=mine", "pgbouncer=true"])
def test_a_url_as_hosts_of_postgresql_give_it_is_understood(postgres: PostgreSQL, more: str) -> None:
    url = f"{postgres.new()}&{more}".replace("postgresql://", "postgres://")
    in_store(url, lambda database: Keys(database).create("web"))
    assert asked(url, "SELECT name FROM keys") == [("web",)]


def test_what_libpq_would_not_know_is_an_error_in_words(postgres: PostgreSQL) -> None:
    async def run() -> None:
        async with Database(f"{postgres.new()}&sslmode=perhaps") as database:
            await migrating.revision(database)

    with pytest.raises(SchemaError, match=r"cannot be used: .*sslmode"):
        asyncio.run(run())


def test_a_server_that_only_reads_since_a_failover_is_left(postgres: PostgreSQL) -> None:
    """It answers as ever, but to who writes: another one has its name now."""

    async def write(database: Database, statement: str) -> None:
        async with database.writing() as connection:
            await connection.execute(text(statement))

    async def run() -> None:
        async with Database(postgres.new(), connections=1) as database:
            await write(database, "CREATE TABLE notes (number integer)")
            await write(database, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")  # as it would be from now on
            with pytest.raises(DatabaseGoneError, match="read-only"):
                await write(database, "INSERT INTO notes VALUES (1)")
            await write(database, "INSERT INTO notes VALUES (2)")

    asyncio.run(run())


def test_who_reads_before_he_writes_waits_for_others_and_is_not_refused(url: str) -> None:
    """SQLite refuses at once, whatever the timeout, a lock to who has read before somebody else wrote."""
    key = in_store(url, lambda database: Keys(database).create("web"))[0]

    async def run() -> None:
        databases = [Database(url, wait_s=30) for _ in range(6)]
        await asyncio.gather(*(Keys(each).rotate(key.id) for each in databases for _ in range(5)))
        for each in databases:
            await each.close()

    asyncio.run(run())


def test_machines_that_write_at_once_wait_for_each_other_and_lose_no_count(url: str, tmp_path: Path) -> None:
    """Each with its own spool, the same keys in another order: nobody deadlocks, and every sum is right."""
    models = [f"m{number}" for number in range(20)]
    spools = [
        spooled(tmp_path / str(at), *(prediction(f"{at}-{n}-{m}", model=m) for n in range(25) for m in order))
        for at, order in enumerate((models, models[::-1], models))
    ]
    written(url, tmp_path / "none")

    async def run() -> None:
        databases = [Database(url, wait_s=30) for _ in spools]
        writers = [Writer(database, spool, batch=37) for database, spool in zip(databases, spools, strict=True)]
        await asyncio.gather(*(writer.run(asyncio.Event(), once=True) for writer in writers))
        assert not any(writer.state.waiting for writer in writers)
        for each in databases:
            await each.close()

    asyncio.run(run())
    assert asked(url, "SELECT DISTINCT requests, rows FROM usage") == [(75, 150)]


def test_every_table_that_grows_with_requests_has_a_time_to_live() -> None:
    kept_on_purpose = {"keys", "releases", "verdicts", "erasures"}  # as many as people make
    by_themselves = {"places"}
    limited = set(Policy.__dataclass_fields__) - {"payloads"}
    assert {table.name for table in schema.Base.metadata.sorted_tables} == kept_on_purpose | by_themselves | limited


@contextmanager
def pooler(server: PostgreSQL, folder: Path) -> Iterator[int]:
    """Debian's PgBouncer in front of a server, one connection a transaction, TLS for who asks for it: its port."""
    if not _UNPACKED.exists():
        unpack(["pgbouncer"], _UNPACKED)
    [port] = free_ports(1)
    folder.chmod(0o755)
    (folder / "users.txt").write_text('"postgres" ""\n')
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    made = ("-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "1")
    subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
    (folder / "key.pem").chmod(0o644)  # of a user that is made for PostgreSQL, and of this test
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={server.socket}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"auth_type = trust\nauth_file = {folder}/users.txt\npool_mode = transaction\ndefault_pool_size = 2\n"
        f"unix_socket_dir =\nclient_tls_sslmode = allow\nclient_tls_key_file = {folder}/key.pem\n"
        f"client_tls_cert_file = {folder}/cert.pem\n"
    )
    command = [started_by(_UNPACKED, "pgbouncer"), "-u", "pgserver", str(folder / "pgbouncer.ini")]
    with background(command, folder / "log"):
        wait_for(lambda: b"process up" in (folder / "log").read_bytes(), 20)
        yield port


@pytest.mark.slow  # a package over the network
def test_through_a_pooler_and_with_tls(postgres: PostgreSQL, tmp_path: Path) -> None:
    name = postgres.new().partition("@/")[2].partition("?")[0]
    with tempfile.TemporaryDirectory() as folder, pooler(postgres, Path(folder)) as port:
        base = f"postgresql://postgres@127.0.0.1:{port}/{name}?pgbouncer=true"
        for number, more in enumerate(("", "&sslmode=require", f"&sslmode=verify-full&sslrootcert={folder}/cert.pem")):
            url = base + more
            records = [prediction(f"{number}-{each}") for each in range(300)]
            written(url, spooled(tmp_path / "spool", *records), batch=50)

            async def at_once(database: Database) -> None:
                keys = Keys(database)
                await asyncio.gather(*(keys.create(str(each)) for each in range(20)))
                assert len(await keys.all()) >= 20

            in_store(url, at_once)
        assert asked(base, "SELECT count(*) FROM predictions") == [(900,)]
        wrong = f"{base}&sslmode=verify-full"

        async def refused() -> None:
            async with Database(wrong) as database:
                await migrating.revision(database)

        with pytest.raises(SchemaError, match=r"root certificate file .* does not exist"):
            asyncio.run(refused())


def test_a_file_that_was_removed_is_made_anew_and_nothing_more_is_written_into_the_removed_one(tmp_path: Path) -> None:
    """By a writer that has it open: what waits goes to the new one, and a log of the old one is not taken over."""
    url = f"sqlite:///{tmp_path}/store.db"

    async def run() -> Writer:
        async with Database(url) as database:
            writer, stop = Writer(database, tmp_path / "spool"), asyncio.Event()
            running = asyncio.create_task(writer.run(stop))
            spooled(tmp_path / "spool", *(prediction(number) for number in range(3)))
            await until(lambda: writer.state.written == 3)
            (tmp_path / "store.db").unlink()  # beside it, its log stays
            spooled(tmp_path / "spool", *(prediction(number) for number in range(3, 8)))
            await until(lambda: writer.state.written == 8)
            stop.set()
            await running
            return writer

    assert not asyncio.run(run()).state.waiting
    assert asked(url, "SELECT count(*) FROM predictions") == [(5,)]
    assert asked(url, "PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_was_replaced_is_read(tmp_path: Path) -> None:
    """As by who restores a copy."""
    one, other = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other"))

    async def run() -> list[str]:
        async with Database(one) as database, Database(other) as beside:
            for each, name in ((database, "first"), (beside, "second")):
                await migrating.prepare(each)
                await Keys(each).create(name)
            await beside.close()
            (tmp_path / "other.db").rename(tmp_path / "one.db")
            return [key.name for key in await Keys(database).all()]

    assert asyncio.run(run()) == ["second"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)
