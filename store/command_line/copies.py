"""`python -m store backup|restore`: all of a database in a file, and a database from a file."""

import argparse
import asyncio
import json
from dataclasses import asdict

from cli import progress
from contracts import layout
from store.command_line import places
from store.database import Database
from store.errors import BackupError, StoreError
from store.keeping import restoring
from store.keeping.backup import Manifest, check, manifest_of
from store.keeping.backup import backup as make_backup
from store.keeping.restoring import Restored
from store.migrations import migrating


def backup(options: argparse.Namespace) -> int:
    """Write a backup; return 0."""
    manifest = asyncio.run(_backup(options))
    if options.json:
        print(json.dumps(asdict(manifest)))
    else:
        print(f"Backed up {manifest.rows:,} rows of the schema {manifest.revision} to {layout.shown(options.file)}")
        print(f"python -m store restore {layout.shown(options.file)} --check    reads and compares all of it")
    return 0


def restore(options: argparse.Namespace) -> int:
    """Restore a backup, or only check it; return 0."""
    if options.check:
        manifest, erased = _check(options), 0
    else:
        done = asyncio.run(_restore(options))
        manifest, erased = done.manifest, done.erased
    if options.json:
        print(json.dumps({**asdict(manifest), "erased": erased}))
    elif options.check:
        print(f"{layout.shown(options.file)} is whole: {manifest.rows:,} rows, of {manifest.made}")
    else:
        print(f"Restored and verified {manifest.rows:,} rows, of {manifest.made}; {erased:,} of them erased again")
        print("To use it: stop `store write`, set STORE_URL to it, start `store write`")
    return 0


async def _backup(options: argparse.Namespace) -> Manifest:
    async with places.database(options, wait_s=places.PATIENCE_S) as database:
        with progress.bar("rows", await _rows(database), "rows") as bar:
            return await make_backup(database, options.file, bar.advance)


def _check(options: argparse.Namespace) -> Manifest:
    with progress.bar("rows", max(1, manifest_of(options.file).rows), "rows") as bar:
        return check(options.file, bar.advance)


async def _restore(options: argparse.Namespace) -> Restored:
    passes = 3  # read, written, read again
    async with Database(options.to, wait_s=places.PATIENCE_S) as to, Database(options.erasures_of) as others:
        if options.no_erasures or (not options.erasures_of and others.url == to.url):
            since = None
        else:
            since = await _reachable(others)
        with progress.bar("rows", max(1, passes * manifest_of(options.file).rows)) as bar:
            return await restoring.restore(options.file, to, erasures_of=since, advance=bar.advance)


async def _reachable(others: Database) -> Database | None:
    """Return the database that was in use, None if it never was.

    Raises:
        BackupError: nobody knows what was erased from it since the backup.
    """
    try:
        return others if await migrating.revision(others) else None
    except StoreError as error:
        raise BackupError(
            "it is not known what was erased since this backup",
            note=str(error).splitlines()[0],
            hint="--erasures-of URL names the database that knows, --no-erasures restores it all the same",
        ) from error


async def _rows(database: Database) -> int:
    """Return about how many rows there are: a bar needs no more."""
    from sqlalchemy import func, select

    from store.schema import Prediction

    async with database.reading() as connection:
        return max(1, await connection.scalar(select(func.count()).select_from(Prediction)) or 1)
