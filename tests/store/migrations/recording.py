"""What this version asks of a database, kept for later ones, whose schema has to bear it: a file a revision.

    python -m tests.store.migrations.recording sqlite:///new.db      # and once with PostgreSQL

The statements are those of a writer, of keys, and of what reads; on an empty database.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import event as event_of

from store import labels, predictions, releases, usage
from store.database import Database
from store.keeping import erasure, retention
from store.keeping.retention import Policy
from store.keys import Keys
from store.migrations import migrating
from store.payloads.moving import Payloads
from store.payloads.places import Folder
from store.writing.writer import Writer
from tests.store.given import DAY_NS, event, label, prediction
from tests.store.records import spooled

RECORDED = Path(__file__).parent / "recorded"
Asked = list[tuple[str, Any]]


async def recorded(database: Database, folder: Path) -> Asked:
    """Use all of the store: what the database was asked."""
    heard: Asked = []

    def hear(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            heard.append((statement, parameters))

    await migrating.prepare(database)
    event_of.listen(database.engine.sync_engine, "before_cursor_execute", hear)
    await _use(database, folder)
    return heard


async def _use(database: Database, folder: Path) -> None:
    spooled(folder, prediction(1, time=5 * DAY_NS))
    await Writer(database, folder).run(asyncio.Event(), once=True)
    spooled(
        folder, prediction(2), label(1, "r1", 1), event(1, request="r1"),
        {"kind": "release", "model": "m", "release": "1", "time": 1},
        {"kind": "usage", "model": "m", "requests": 1, "rows": 1, "time": 1},
    )  # fmt: skip
    await Writer(database, folder).run(asyncio.Event(), once=True)
    keys = Keys(database)
    key, _ = await keys.create("web")
    await keys.rotate(key.id)
    await keys.all()
    await releases.judge(database, "m", "1", "gate", passed=True)
    await releases.of(database)
    await predictions.page(database, predictions.Wanted(model="boats", labelled=True))
    await predictions.story(database, "r1")
    await labels.unmatched(database, 1)
    await usage.totals(database)
    payloads = Payloads(folder, Folder(folder / "inputs"))
    await retention.retain(database, payloads, folder, Policy(1, 1, 1, 1, 1), 3 * DAY_NS)
    await erasure.erase(database, payloads, folder, "request", "r1")
    await keys.revoke(key.id)


async def _record(url: str) -> None:
    async with Database(url) as database:
        with tempfile.TemporaryDirectory() as folder:
            heard = await recorded(database, Path(folder))
        name = f"{migrating.head()}-{'sqlite' if database.is_sqlite else 'postgresql'}.json"
        (RECORDED / name).write_text(json.dumps(heard, indent=1) + "\n")
        print(f"{len(heard)} statements in {RECORDED / name}")


if __name__ == "__main__":
    asyncio.run(_record(sys.argv[1]))
