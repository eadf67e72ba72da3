"""The store's database: SQLite in the artifacts folder, or PostgreSQL by URL.

    async with Database() as database, database.reading() as connection:
        await connection.execute(…)

Whatever says that it is gone, slow, full or out of connections is a DatabaseGoneError; a mistake of ours stays what
it is.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from contracts import layout
from store import sqlite_file
from store.errors import DatabaseGoneError, SchemaError

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
# Classes of SQLSTATE: connection, password, database, resources (disk full, memory, connections), operator (shut down,
# cancelled), system; and single ones: read-only (a standby), lock timeout, deadlock, serialization.
_READ_ONLY = "25006"
_GONE = ("08", "28", "3D", "53", "57", "58", _READ_ONLY, "55P03", "40P01", "40001")
_GONE_SQLITE = ("locked", "disk i/o", "is full", "unable to open", "readonly", "busy")
_URL_HINT = "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME, in STORE_URL or --store"
_CONNECT_S = 10.0
# Each number of rows is another statement, of which drivers keep the last hundred: with up to 1,000 rows, a million
# records made the writer 30 MB larger.
_ROWS_A_STATEMENT = 100
_ONE_VIEW = {"isolation_level": "REPEATABLE READ"}
_NO_SCHEMA = ("42P01", "42703", "no such table", "no such column", "has no column")


def default_folder() -> Path:
    """Return the folder of the store where none is named: SQLite's file, the spool, whole inputs."""
    return layout.artifacts() / "store"


def default_url() -> str:
    """Return the URL of the database: STORE_URL, else SQLite in the artifacts folder."""
    return os.environ.get("STORE_URL") or f"sqlite:///{default_folder() / 'store.db'}"


class Database:
    """A pool of connections to one database; to be closed, or used as a context."""

    def __init__(self, url: str | None = None, *, connections: int = 5, wait_s: float = 10.0) -> None:
        """Make the pool; nothing is opened yet.

        Args:
            url: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME; None for the default one.
            connections: At most.
            wait_s: For a connection, a lock, or the answer to a statement.

        Raises:
            SchemaError: the URL is none, or of another kind of database.
        """
        self.url = _url(url or default_url())
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._sqlite(wait_s) if self.is_sqlite else self._postgresql(connections, wait_s)
        # All statements of a transaction that reads see the same rows; SQLite's do so anyway.
        self._reader = self.engine if self.is_sqlite else self.engine.execution_options(**_ONE_VIEW)
        self._writer = self.engine.execution_options(writes=True)

    def __str__(self) -> str:
        """Return the URL without the password."""
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)

    @property
    def exists(self) -> bool:
        """Tell whether SQLite's file is there; whether a database of PostgreSQL's is, nobody knows without asking."""
        return not self.is_sqlite or self._file.exists()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that reads: all of its statements see the same rows.

        Raises:
            DatabaseGoneError: it does not answer, or not in time.
        """
        with self._translated():
            async with self._reader.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that writes, committed in the end unless something is raised.

        Raises:
            DatabaseGoneError: it does not answer, or not in time. Whether a commit was done is not known.
        """
        with self._translated():
            async with self._writer.begin() as connection:
                yield connection

    async def tidy(self) -> None:
        """Make room of what was removed: SQLite gives it back to the disk, with nothing left in its log.

        PostgreSQL does so by itself some time later; until then its indexes would still lead to what is gone.

        Raises:
            DatabaseGoneError: it does not answer, or somebody uses it for too long.
        """
        alone = {"alone": True, "isolation_level": "AUTOCOMMIT"}
        with self._translated():
            async with self.engine.execution_options(**alone).connect() as connection:
                if not self.is_sqlite:
                    await connection.exec_driver_sql("VACUUM (ANALYZE)")
                    return
                driver: Any = (await connection.get_raw_connection()).driver_connection
                # As a script: it frees a page a step, and `execute` takes one.
                await driver.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

    def _sqlite(self, wait_s: float) -> AsyncEngine:
        file = self.url.database
        if not file or file == ":memory:":
            raise SchemaError("SQLite in memory is no store", hint="name a file, as in sqlite:///store.db")
        self._file = Path(file)
        engine = create_async_engine(
            self.url, connect_args={"timeout": wait_s, "isolation_level": None},
            insertmanyvalues_page_size=_ROWS_A_STATEMENT,
        )  # fmt: skip
        sqlite_file.prepare(engine.sync_engine, self._file)
        return engine

    def _postgresql(self, connections: int, wait_s: float) -> AsyncEngine:
        query = dict(self.url.query)
        bouncer = query.pop("pgbouncer", None)
        self.url = self.url.set(query=query)
        server = {"application_name": str(query.pop("application_name", "store"))}
        # asyncpg reads the URL itself: only so it knows libpq's parameters, sslmode and the like.
        address = self.url.set(drivername="postgresql", query=query).render_as_string(hide_password=False)
        options = {"timeout": min(wait_s, _CONNECT_S), "command_timeout": wait_s, "server_settings": server}
        named: dict[str, Any] = {}
        if bouncer:  # between two transactions the connection may be another: no statement is kept
            options["statement_cache_size"] = 0
            named = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: f"__{uuid4()}__"}

        async def connect(*_: object, **__: object) -> Any:
            import asyncpg  # type: ignore[import-untyped]  # has no types

            return await asyncpg.connect(address, **options)

        engine = create_async_engine(
            self.url, connect_args={"async_creator_fn": connect, **named}, pool_size=connections, max_overflow=0,
            pool_timeout=wait_s, pool_pre_ping=not bouncer, pool_recycle=1800,
            insertmanyvalues_page_size=_ROWS_A_STATEMENT,
        )  # fmt: skip
        event.listen(engine.sync_engine, "handle_error", _leave_a_standby)
        return engine

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if is_gone(error):
                hint = "records wait in the spool meanwhile: python -m store status"
                raise DatabaseGoneError(f"the database {self} does not answer: {told(error)}", hint=hint) from error
            if _is_misconfigured(error):
                raise SchemaError(f"the URL of {self} cannot be used: {told(error)}", hint=_URL_HINT) from error
            if _lacks_schema(error):
                fact = f"the database {self} lacks what this version of the store asks for: {told(error)}"
                raise SchemaError(fact, hint="python -m store migrate") from error
            raise


def is_gone(error: BaseException) -> bool:
    """Tell whether an error means that the same may succeed later, without a change to what is asked."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeoutError | TimeoutError | OSError) or _state(error).startswith(_GONE)
    cause = error.orig
    inner = cause.__cause__ if cause is not None else None
    if error.connection_invalidated or any(isinstance(each, OSError | TimeoutError) for each in (cause, inner)):
        return True
    if isinstance(cause, sqlite3.Error):
        return any(word in str(cause).lower() for word in _GONE_SQLITE)
    return _state(cause).startswith(_GONE) or (isinstance(error, InterfaceError) and "connection" in str(cause).lower())


def is_refused(error: StatementError) -> bool:
    """Tell whether an error is about what was to be stored, and would be the same for ever."""
    cause = error.orig
    if not isinstance(error, DBAPIError) or isinstance(error, DataError | IntegrityError):
        return True
    return _state(cause).startswith(("22", "23")) or "DataError" in type(cause).__name__ + repr(cause)


def told(error: BaseException) -> str:
    """Return what a driver said, in one line and without the statement and what was to be stored."""
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0][:300]


def _state(error: object) -> str:
    """Return the SQLSTATE that an error of asyncpg's has, also where SQLAlchemy does not wrap it: as it connects."""
    return str(getattr(error, "sqlstate", None) or "")


def _is_misconfigured(error: Exception) -> bool:
    """Tell whether asyncpg cannot make out what the URL asks for: no certificates, a strange sslmode."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return "ClientConfigurationError" in (type(cause).__name__, type(getattr(cause, "__cause__", None)).__name__)


def _lacks_schema(error: Exception) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else None
    return cause is not None and any(word in f"{_state(cause)} {cause}" for word in _NO_SCHEMA)


def _url(text: str) -> URL:
    try:
        url = make_url(text)
        return url.set(drivername=_DRIVERS[url.get_backend_name()])
    except (ArgumentError, KeyError, NoSuchModuleError, ValueError):  # none of them is repeated: it may hold a password
        raise SchemaError(
            "the store's URL is neither SQLite's nor PostgreSQL's",
            hint=_URL_HINT,
        ) from None


def _leave_a_standby(context: Any) -> None:
    """Give the connections up to a server that only reads: after a failover another one has the name, and writes.

    The one before answers every ping of the pool, which would keep to it for half an hour.
    """
    if _state(context.original_exception) == _READ_ONLY:
        context.is_disconnect = True
