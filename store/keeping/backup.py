"""A backup: all tables as of one moment, in one file that any of the databases can be made from again.

It is a zip of a .jsonl a table and manifest.json, with the revision of the schema, and the rows and digest of each.
Whole inputs are not in it: they have a place of their own, to be backed up as it is.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from contracts.files import whole
from store.database import Database
from store.errors import BackupError
from store.keeping.contents import Digest, json_columns, line_of, rows, tables
from store.migrations import migrating

_MANIFEST, _FORMAT = "manifest.json", 1


@dataclass(frozen=True)
class TableManifest:
    """How many rows a table has, which of its columns hold JSON, and the digest of it all (see contents.py)."""

    rows: int
    digest: str
    json_columns: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a backup holds, and as of when."""

    made: str
    revision: str
    tables: dict[str, TableManifest]

    @property
    def rows(self) -> int:
        """Of all tables together."""
        return sum(table.rows for table in self.tables.values())


async def backup(database: Database, path: Path, advance: Callable[[int], None] = lambda _: None) -> Manifest:
    """Write all of a database to a file that was not there, whole or not at all.

    Raises:
        BackupError: the file is there, or the database has no tables of ours.
        DatabaseGoneError: it does not answer.
    """
    if path.exists():
        raise BackupError(f"{path} is there already", hint="name another file, or move that one away")
    revision = await migrating.revision(database)
    if revision is None:
        raise BackupError(f"the database {database} has no tables of the store yet", hint="python -m store write")
    partial = whole.unused_name(path)
    found: dict[str, TableManifest] = {}
    try:
        with os.fdopen(whole.create(partial, 0o600), "wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
                async with database.reading() as connection:
                    for table in await tables(connection):
                        digest = Digest(json_columns(table))
                        with archive.open(f"{table.name}.jsonl", "w", force_zip64=True) as member:
                            async for row in rows(connection, table):
                                member.write(f"{line_of(row)}\n".encode())
                                digest.add(row)
                                advance(1)
                        found[table.name] = TableManifest(digest.rows, str(digest), digest.json_columns)
                manifest = Manifest(datetime.now(UTC).isoformat(timespec="seconds"), revision, found)
                archive.writestr(_MANIFEST, json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=2))
            stream.flush()
            os.fsync(stream.fileno())
        os.link(partial, path)  # unlike a rename, it never takes the place of another
    except FileExistsError:
        raise BackupError(f"{path} is there already", note="it was made meanwhile") from None
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def manifest_of(path: Path) -> Manifest:
    """Read what a backup holds.

    Raises:
        BackupError: it is no backup, or one of a later version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            told = json.loads(archive.read(_MANIFEST))
        if told["format"] != _FORMAT:
            raise BackupError(f"{path} has the format {told['format']!r}, and this version reads {_FORMAT}")
        known = {
            name: TableManifest(table["rows"], table["digest"], tuple(table["json_columns"]))
            for name, table in told["tables"].items()
        }
        return Manifest(told["made"], told["revision"], known)
    except FileNotFoundError:
        raise BackupError(f"there is no backup {path}") from None
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        raise BackupError(f"{path} is no backup of a store, or is damaged: {error}") from error


def check(path: Path, advance: Callable[[int], None] = lambda _: None) -> Manifest:
    """Read all of a backup, and compare every table with what the manifest says.

    Raises:
        BackupError: something is missing or was changed.
    """
    manifest = manifest_of(path)
    for name, expected in manifest.tables.items():
        digest = Digest(expected.json_columns)
        for row in rows_of(path, name):
            digest.add(row)
            advance(1)
        compare(name, expected, digest, f"the backup {path}")
    return manifest


def rows_of(path: Path, table: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table from a backup.

    Raises:
        BackupError: the backup is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{table}.jsonl") as member:
            yield from _rows(member)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        raise BackupError(f"the backup {path} is damaged: {table}: {error}") from error


def _rows(member: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in member:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("a line is no row")
        yield row


def compare(name: str, expected: TableManifest, found: Digest, where: str) -> None:
    """Compare a table with what the manifest says of it.

    Raises:
        BackupError: it is another.
    """
    if (found.rows, str(found)) != (expected.rows, expected.digest):
        raise BackupError(
            f"the table {name} in {where} is not what was backed up",
            note=f"rows: {found.rows:,}, and the manifest says {expected.rows:,}; digest {str(found)[:12]}…, "
            f"and the manifest says {expected.digest[:12]}…",
            hint="take another backup",
        )
