"""Remove what is older than it shall be kept, a few thousand rows a transaction, so that nobody waits for it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, delete, func, select, update

from store import schema
from store.database import Database
from store.payloads.moving import Payloads
from store.spool import segments
from store.writing.rows import day_of

CHUNK = 5_000  # rows a transaction
DAY_NS = 86_400_000_000_000

_PAUSE_S = 0.01  # between two of them: others have their turn


@dataclass(frozen=True)
class Policy:
    """For how many days each is kept; None: for ever. Whole inputs go with their predictions at the latest."""

    predictions: float | None = None
    payloads: float | None = None
    labels: float | None = None
    events: float | None = None
    usage: float | None = None


@dataclass
class Removed:
    """How many were removed, or would be."""

    predictions: int = 0
    payloads: int = 0
    labels: int = 0
    events: int = 0
    usage: int = 0


async def overdue(database: Database, payloads: Payloads, policy: Policy, now: int) -> Removed:
    """Return how many would be removed; a statement a table."""
    found = Removed()
    async with database.reading() as connection:
        for name, (_, asked) in _asked(policy, now).items():
            setattr(found, name, await connection.scalar(select(func.count()).select_from(asked.subquery())))
    if (day := _payload_day(policy, now)) is not None:
        found.payloads = len(await payloads.before(day))
    return found


async def retain(
    database: Database,
    payloads: Payloads,
    spool: Path,
    policy: Policy,
    now: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Removed:
    """Remove it. It may be stopped at any moment, and be begun again.

    Args:
        spool: Of this machine.
        now: In nanoseconds since 1970.
        advance: Called with how many rows were removed.

    Raises:
        DatabaseGoneError, PayloadError: what was removed so far is removed.
    """
    removed = Removed()
    if (day := _payload_day(policy, now)) is not None:  # first: a row that is gone no longer says where its inputs are
        removed.payloads = await payloads.remove(await payloads.before(day))
        await _forget_payloads(database, day)
    for name, (table, asked) in _asked(policy, now).items():
        while count := await _remove(database, table, asked.limit(CHUNK)):
            setattr(removed, name, getattr(removed, name) + count)
            advance(count)
            await asyncio.sleep(_PAUSE_S)
    await _forget_places(database, spool, now)
    await database.tidy()
    return removed


async def _remove(database: Database, table: Any, asked: Select[Any]) -> int:
    key = schema.Usage.day if table is schema.Usage else table.id
    async with database.writing() as connection:
        return (await connection.execute(delete(table).where(key.in_(asked)))).rowcount


def _asked(policy: Policy, now: int) -> dict[str, tuple[Any, Select[Any]]]:
    """Return for each its table, and what selects the keys of the rows that are too old, the oldest first."""
    found: dict[str, tuple[Any, Select[Any]]] = {}
    for name, table, at in (
        ("predictions", schema.Prediction, schema.Prediction.time),
        ("labels", schema.Label, schema.Label.received),
        ("events", schema.Event, schema.Event.received),
    ):
        days = getattr(policy, name)
        if days is not None:
            old = select(table.id).where(at < now - int(days * DAY_NS))
            # No index has when events came: to sort them would read all of them for each chunk; the oldest lie first.
            found[name] = table, old if table is schema.Event else old.order_by(at)
    if policy.usage is not None:
        day = schema.Usage.day
        found["usage"] = schema.Usage, select(day).where(day < day_of(now - int(policy.usage * DAY_NS)))
    return found


def _payload_day(policy: Policy, now: int) -> str | None:
    days = [each for each in (policy.predictions, policy.payloads) if each is not None]
    return day_of(now - int(min(days) * DAY_NS)) if days else None


async def _forget_payloads(database: Database, day: str) -> None:
    """Let no row name inputs that are gone."""
    table = schema.Prediction
    midnight = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1_000_000_000
    old = select(table.id).where(table.time < midnight, table.payload.is_not(None)).limit(CHUNK)
    while True:
        async with database.writing() as connection:
            done = await connection.execute(update(table).where(table.id.in_(old)).values(payload=None))
        if not done.rowcount:
            break


async def _forget_places(database: Database, spool: Path, now: int) -> None:
    """Remove the places of segments that went with their machine, of more than a month ago: names begin with a time.

    One that still lies here keeps its place: without it all of the segment would be written again. On other machines
    none is as old: a segment ends after a day, and is removed once it is written.
    """
    before, name = f"{now - 31 * DAY_NS:020d}", schema.Place.segment
    here = [path.name for path in segments(spool) if path.name < before]
    async with database.writing() as connection:
        await connection.execute(delete(schema.Place).where(name < before, name.not_in(here)))
