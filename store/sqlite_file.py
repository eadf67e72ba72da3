"""SQLite's file: made for its owner, opened as we need it, and noticed when it is removed or another one.

A connection stays with the file that it opened, also when nobody can find that any more: what is written there is lost
with the last connection. So each transaction sees first whether the file of that name is still the one it has open.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DisconnectionError

_SWITCH_S = 2.0  # to a write-ahead log, of a file that others open at the same moment
_OPENED, _LOG = "opened", "log"  # which files a connection has, in SQLAlchemy's notes on it


def prepare(engine: Engine, file: Path) -> None:
    """Have the connections of an engine be what is said above."""

    log = file.with_name(f"{file.name}-wal")

    def make(*_: object) -> None:
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(file)

    def settle(connection: Any, record: Any) -> None:
        record.info[_OPENED] = _identity(file)
        _settle(connection)

    def see(_: object, record: Any, __: object) -> None:
        if record.info.get(_OPENED) == _identity(file):
            record.info[_LOG] = _identity(log)
            return
        if record.info.get(_LOG) is not None:
            with _locked(file.parent):
                if record.info[_LOG] == _identity(log):  # of the one before: SQLite would write its pages into this one
                    _forget(file)
        raise DisconnectionError(f"{file} was removed, or is another file")  # the pool opens that then

    event.listen(engine, "do_connect", make)
    event.listen(engine, "connect", settle)
    event.listen(engine, "checkout", see)
    event.listen(engine, "begin", _begin)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _make(file: Path) -> None:
    """Make a new file for its owner alone; SQLite gives those beside it the same rights."""
    with _locked(file.parent):
        if not file.exists():
            _forget(file)
            os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _forget(file: Path) -> None:
    """Remove the log that a file which is gone has left."""
    for end in ("-wal", "-shm"):
        file.with_name(f"{file.name}{end}").unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _settle(connection: Any) -> None:
    """Make a new connection to SQLite as we need it."""
    cursor = connection.cursor()
    for pragma in (
        "auto_vacuum=INCREMENTAL",  # a file that was emptied can be made smaller; must come first
        "synchronous=FULL",  # the spool is removed after a commit
        "secure_delete=ON",  # what was erased is not in the file any more
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    _read_beside_writers(cursor)
    cursor.close()


def _read_beside_writers(cursor: Any) -> None:
    """Have a log in place of a journal, so that who reads is not in the way of who writes.

    SQLite waits for no lock there: of several that open a new file at once, all but one are refused, whatever the
    timeout of the connection. The first one's switch takes a moment, and is everybody's.
    """
    stop = time.monotonic() + _SWITCH_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > stop:
                raise
            time.sleep(0.005)


def _begin(connection: Connection) -> None:
    """Begin a transaction that will write with its lock: later SQLite would refuse at once, and not wait for it."""
    options = connection.get_execution_options()
    if not options.get("alone"):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")
