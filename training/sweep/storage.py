"""The database of searches: a file of SQLite's, or the one that a URL names."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from contracts import layout
from training.errors import SweepError

_FILE = "sweeps.db"
_LOCKED_S = 60  # as long as other processes may keep SQLite locked
_ADVISORY = 7_395_101_283  # the lock under which PostgreSQL's tables and studies are made; any number
_LOST = (SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError)


def default() -> str:
    """Return the address of the file in which searches are kept, unless another database is named."""
    path = str(layout.searches() / _FILE)  # it may have % and ? in it
    return URL.create("sqlite", database=path).render_as_string()


def shown(address: str) -> str:
    """Return an address without its password."""
    return make_url(address).render_as_string(hide_password=True)


@contextmanager
def opened_alone(address: str) -> Iterator[RDBStorage]:
    """Open a database; nobody else makes tables or studies in it as long as the block runs.

    Raises:
        SweepError: it is no address, or the database does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of every trial
    url = _url(address)
    arguments: dict[str, Any] = {"timeout": _LOCKED_S} if url.get_backend_name() == "sqlite" else {}
    layout.searches().mkdir(parents=True, exist_ok=True)
    with locked(layout.searches() / ".lock"), answers(address), _locked_for_all(url):
        yield _opened(url, {"pool_pre_ping": True, "connect_args": arguments})


@contextmanager
def answers(address: str) -> Iterator[None]:
    """Make an error of a database a SweepError: what has ended is in the trials' folders, and nothing is lost."""
    try:
        yield
    except _LOST as error:
        raise SweepError(
            f"the search's storage {shown(address)} does not answer",
            note=str(getattr(error, "orig", None) or error).strip().splitlines()[0],
            hint="what the trials found is kept in their folders: with the storage back, run the same command again",
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file; whoever else wants it waits. It ends with the process, however that ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _opened(url: URL, options: dict[str, Any]) -> RDBStorage:
    try:
        return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
    except RuntimeError as error:  # its tables are another version's
        raise SweepError(
            f"the search's storage {url.render_as_string(hide_password=True)} is of another version of Optuna",
            note=str(error).partition(". ")[0],
            hint="optuna storage upgrade --storage URL, behind a copy of it; or --storage names a new one",
        ) from error


def _url(address: str) -> URL:
    try:
        url = make_url(address)
        if url.drivername in ("postgresql", "postgres"):  # SQLAlchemy 2.1 would take psycopg 3, which is not installed
            url = url.set(drivername="postgresql+psycopg2")
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise SweepError(
            f"--storage {address.partition('://')[0]}… is no address of a database",
            note=str(error).splitlines()[0],
            hint="sqlite:///path/to/file.db or postgresql://user:password@host/database",
        ) from error
    return url


@contextmanager
def _locked_for_all(url: URL) -> Iterator[None]:
    """Hold a lock of the database's own, where other machines may open it: two that make its tables at once fail."""
    if url.get_backend_name() != "postgresql":
        yield
        return
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY})  # until it is closed
            yield
    finally:
        engine.dispose()
