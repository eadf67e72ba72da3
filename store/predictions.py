"""Requests and their answers, a page at a time, each with the labels that hold; two statements a page.

page = await predictions.page(database, Wanted(model="boats"), limit=100)
page = await predictions.page(database, Wanted(model="boats"), after=page.next)   # until next is None
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, tuple_

from store import events, labels, schema
from store.database import Database
from store.errors import UnknownError

_table = schema.Prediction
MOST = 10_000  # of a page


@dataclass(frozen=True)
class Prediction:
    """A request and its answer, as the store has them.

    Attributes:
        time: Of the request, in nanoseconds since 1970.
        key: The id of the caller's key; None where none was asked for.
        release: That answered; None if none did.
        inputs, outputs: Summaries.
        payload: The name of the whole inputs; None if they were not sampled.
        caller_id: What the caller calls the request, and perhaps others, too; None if it has not said.
        labels: Those that hold, by name.
    """

    id: str
    time: int
    door: str
    key: str | None
    model: str
    release: str | None
    arm: str
    rows: int
    latency_ms: float
    triton_ms: float | None
    status: int
    inputs: dict[str, Any] | None
    outputs: dict[str, Any] | None
    payload: str | None
    caller_id: str | None = None
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """Which predictions; None: any.

    Attributes:
        since, until: In nanoseconds since 1970, `until` not included.
        failed: Answered with a status from 400 on, or not.
        labelled: With a label, or without one.
    """

    model: str | None = None
    key: str | None = None
    release: str | None = None
    arm: str | None = None
    caller_id: str | None = None
    since: int | None = None
    until: int | None = None
    failed: bool | None = None
    labelled: bool | None = None


@dataclass(frozen=True)
class Page:
    """Some predictions, the newest first, and what to ask for the next ones by; None if these are the last."""

    rows: tuple[Prediction, ...]
    next: str | None


async def page(database: Database, wanted: Wanted, *, after: str | None = None, limit: int = 100) -> Page:
    """Return a page. Whatever is written meanwhile, no prediction is left out or there twice on the pages after it.

    Raises:
        UnknownError: `after` is no place, or `limit` too large.
    """
    if not 0 < limit <= MOST:
        raise UnknownError(f"a page has 1 to {MOST:,} predictions, not {limit:,}")
    asked = select(_table.__table__).where(*_conditions(wanted))
    if after is not None:
        asked = asked.where(tuple_(_table.time, _table.id) < tuple_(*_place(after)))
    asked = asked.order_by(_table.time.desc(), _table.id.desc()).limit(limit + 1)
    async with database.reading() as connection:
        found = [row._asdict() for row in await connection.execute(asked)]
        more, found = len(found) > limit, found[:limit]
        hold = await labels.holding(connection, [row["id"] for row in found]) if found else {}
    rows = tuple(Prediction(**row, labels=hold.get(row["id"], {})) for row in found)
    return Page(rows, f"{rows[-1].time}-{rows[-1].id}" if more else None)


@dataclass(frozen=True)
class Story:
    """All that is known of a request: a prediction, unless only others speak of it, its labels, its events."""

    prediction: Prediction | None
    labels: list[labels.Label]
    events: list[events.Event]


async def story(database: Database, request: str) -> Story:
    """Return all that is known of a request; three statements.

    Raises:
        UnknownError: that is nothing.
    """
    async with database.reading() as connection:
        row = (await connection.execute(select(_table.__table__).where(_table.id == request))).one_or_none()
    said = await labels.history(database, request)
    happened = (await events.page(database, events.Wanted(request=request))).rows
    if row is None and not said and not happened:
        raise UnknownError(
            f"nothing is known of the request {request!r}",
            note="it may wait in the spool: python -m store status; or it was erased, or is older than what is kept",
        )
    newest = {label.name: label.value for label in reversed(said)}
    holding = {name: value for name, value in newest.items() if value is not None}
    found = None if row is None else Prediction(**row._mapping, labels=holding)
    return Story(found, said, list(happened))


def _conditions(wanted: Wanted) -> list[Any]:
    found = [
        getattr(_table, name) == value
        for name in ("model", "key", "release", "arm", "caller_id")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.since is not None:
        found.append(_table.time >= wanted.since)
    if wanted.until is not None:
        found.append(_table.time < wanted.until)
    if wanted.failed is not None:
        found.append(_table.status >= 400 if wanted.failed else _table.status < 400)
    if wanted.labelled is not None:
        has = select(schema.Label.id).where(schema.Label.request == _table.id).exists()
        found.append(has if wanted.labelled else ~has)
    return found


def _place(after: str) -> tuple[int, str]:
    time, _, name = after.partition("-")
    if not time.lstrip("-").isdecimal() or not name or int(time) >= 1 << 63:
        raise UnknownError(f"{after!r} is no place in the predictions", hint="take `next` of the page before")
    return int(time), name
