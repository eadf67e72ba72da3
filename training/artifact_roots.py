"""Where the files of a MLflow store lie, when the folder they share with its database has moved.

MLflow records absolute paths, and makes them of relative ones: a relative one would be another folder for each working
directory. A store in a SQLite file whose folder was moved or copied, or is mounted in a container, so has the paths of
another place. `follow` writes them anew; `moved` tells of a store that is not to be written to where its files are.
See docs/decisions/0014-artifact-roots-follow-the-store.md.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_BUSY_S = 30  # as long as others may keep the database locked

# Wherever MLflow 3.17 records the address of a file. Older schemas have some of them.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
    ("trace_tags", "value"),
)


@dataclass(frozen=True)
class Moved:
    """The folder of a store's files, and what it was called when it lay elsewhere."""

    here: Path
    formerly: frozenset[Path]

    def now(self, address: str) -> str:
        """Return `address` as it is here. What still lies there, and not here, keeps its own."""
        path = _local(address)
        for root in self.formerly:
            if path is None or not path.is_relative_to(root):
                continue
            here = self.here / path.relative_to(root)
            if path == root or _exists(here) or not _exists(path):
                return here.as_uri() if address.startswith("file:") else str(here)
        return address


def moved(database: Path, here: Path) -> Moved:
    """Find what is recorded of the files that lie `here`, beside the store's database.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    with _opened(database) as connection:
        return _moved(connection, database, here)


def follow(database: Path, here: Path) -> None:
    """Write anew what is recorded otherwise than it is: all of it or none, and one process after the other.

    A store that cannot be written to is left as it is.
    """
    try:
        with _opened(database) as connection:
            if not _changes(connection, database, here):
                return
            connection.execute("BEGIN IMMEDIATE")  # who held it until now may have left nothing to do
            with connection:
                for table, column, row, address in _changes(connection, database, here):
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (address, row))  # noqa: S608  # ours
    except sqlite3.Error:  # what is wrong with a file that is no store, MLflow tells
        return


def _changes(connection: sqlite3.Connection, database: Path, here: Path) -> list[tuple[str, str, int, str]]:
    """Return [(table, column, rowid, address as it is here)]."""
    found = _moved(connection, database, here)
    if not found.formerly:
        return []
    return [
        (table, column, row, now)
        for table, column in _ADDRESSES
        for row, address in _recorded(connection, table, column)
        if (now := found.now(address)) != address
    ]


def _moved(connection: sqlite3.Connection, database: Path, here: Path) -> Moved:
    """Find the roots that were this folder; one that a user gave an experiment is left alone."""
    runs: dict[Path, list[str]] = {}  # {root: [run id]}
    for _, address in _recorded(connection, "experiments", "artifact_location"):
        if root := _local(address):
            runs.setdefault(root, [])
    for _, address in _recorded(connection, "runs", "artifact_uri"):  # <root>/<run id>/artifacts
        if (path := _local(address)) and len(path.parts) > 2:
            runs.setdefault(path.parents[1], []).append(path.parent.name)
    formerly = {
        root
        for root, ids in runs.items()
        if root.name == here.name
        and not _same(root, here)
        # Gone; or the store lies beside it that this one is a copy of; or files of it lie here.
        and (not _exists(root) or _exists(root.with_name(database.name)) or any(_exists(here / run) for run in ids))
    }
    return Moved(here, frozenset(formerly))


def _recorded(connection: sqlite3.Connection, table: str, column: str) -> list[tuple[int, str]]:
    """Return [(rowid, address)]; none of a schema that has no such column."""
    if column not in (name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")):
        return []
    return list(connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL"))  # noqa: S608  # ours


def _local(address: str) -> Path | None:
    """Return the path of an address on this machine: file:///… or an absolute path."""
    path = Path(unquote(address.removeprefix("file:")) if address.startswith("file:") else address)
    return path if path.root == "/" else None  # "//" of file://host/… is another machine


def _same(one: Path, other: Path) -> bool:
    """Whether both are one folder, as by a link: then nothing has moved."""
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in somebody's folder that is closed to us
        return False


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a store that there is, to be read where it may not be written to. Transactions are the caller's."""
    address = f"{database.as_uri()}?mode=rw"
    with closing(sqlite3.connect(address, _BUSY_S, isolation_level=None, uri=True)) as connection:
        yield connection
