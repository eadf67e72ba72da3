"""Bring a database to a revision of the schema, up or down, one process at a time.

Rules of a revision: code of the revision before works on it (columns are added with a default or as nullable, never
renamed, and dropped one release after nothing uses them), so that gateways are upgraded one by one after it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, inspect, text

from store.database import Database
from store.errors import SchemaError

_LOCK = 7_202_253_611  # any number: PostgreSQL's advisory lock of ours
# An ALTER waits for whoever reads the table, and all others behind it: better to give up and try again.
_LOCK_WAIT = "5s"


def head() -> str:
    """Return the revision that this code is written for."""
    return _script().get_current_head() or ""


async def revision(database: Database) -> str | None:
    """Return the revision of a database; None if it has none of our tables.

    Raises:
        DatabaseGoneError: it does not answer.
    """
    if not database.exists:  # SQLite would make the file
        return None
    async with database.reading() as connection:
        return await connection.run_sync(_revision)


async def upgrade(database: Database, to: str = "head") -> str:
    """Bring a database up to a revision, or leave it as it is, whatever fails; return the revision.

    Raises:
        SchemaError: it has tables that are not ours, or a revision that this code does not know.
        DatabaseGoneError: it does not answer, or somebody uses the tables for too long.
    """
    return await _migrate(database, command.upgrade, to)


async def downgrade(database: Database, to: str) -> str:
    """Bring a database down to a revision, "base" for none; what only later revisions have is lost.

    Raises:
        SchemaError, DatabaseGoneError: as for `upgrade`.
    """
    return await _migrate(database, command.downgrade, to)


async def prepare(database: Database) -> None:
    """Make the tables of a database that has none, and see that those of another are good enough for this code.

    Raises:
        SchemaError: it is behind this code: somebody has to migrate it.
        DatabaseGoneError: it does not answer.
    """
    found = await revision(database)
    if found is None:
        await upgrade(database)
    elif found in known_revisions() and found != head():
        raise SchemaError(
            f"the database {database} has the schema {found}, and this version needs {head()}",
            hint="python -m store backup FILE, then python -m store migrate",
        )  # one that is newer works with this code, too: see above


def known_revisions() -> list[str]:
    """Return all revisions, the oldest first."""
    return [each.revision for each in reversed(list(_script().walk_revisions()))]


async def _migrate(database: Database, run: Callable[[Config, str], None], to: str) -> str:
    async with database.writing() as connection:
        if not database.is_sqlite:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))  # others may take their time
            await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
        return await connection.run_sync(_run, run, to)


def _run(connection: Connection, run: Callable[[Config, str], None], to: str) -> str:
    strange = set(inspect(connection).get_table_names()) - {"alembic_version"}  # which is left of a former schema
    if _revision(connection) is None and strange:
        raise SchemaError(
            f"the database has tables that are not the store's: {', '.join(sorted(strange)[:5])}",
            hint="name a database of its own in STORE_URL or --store",
        )
    config = _config()
    config.attributes["connection"] = connection
    try:
        run(config, to)
    except CommandError as error:
        known = ", ".join(known_revisions())
        raise SchemaError(f"the schema cannot be brought to {to}: {error}", note=f"this code knows {known}") from error
    return _revision(connection) or "base"


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def draft(connection: Connection, message: str) -> Any:
    """Write the next revision from what differs between schema.py and the database; to be read before it is kept."""
    config = _config()
    config.attributes["connection"] = connection
    return command.revision(config, message, autogenerate=True, rev_id=f"{len(known_revisions()) + 1:04d}")
