"""`python -m store migrate`: the schema, up or down."""

import argparse
import asyncio

from store.command_line import places
from store.database import Database
from store.migrations import migrating


def run(options: argparse.Namespace) -> int:
    """Bring the schema to a revision, or draft the next one; return 0."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with places.database(options, wait_s=places.PATIENCE_S) as database:
        if options.draft:
            async with database.writing() as connection:
                await connection.run_sync(migrating.draft, options.draft)
            return 0
        before = await migrating.revision(database)
        after = await _move(database, before, options.to)
    if before == after:
        print(f"The schema of {database} is {after} already")
    else:
        print(f"The schema of {database} is {after} now; it was {before or 'none'}")
    return 0


async def _move(database: Database, before: str | None, to: str) -> str:
    known = migrating.known_revisions()
    down = to == "base" or (to in known and before in known and known.index(to) < known.index(before))
    return await (migrating.downgrade if down else migrating.upgrade)(database, to)
