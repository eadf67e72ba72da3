"""The process that takes records from a spool to the database: `python -m store write`.

It may be killed at any moment, and so may the database: a record is written once, in the transaction that also says
how far its segment is written; a segment is removed when nobody appends to it and all of it is written.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.exc import StatementError

from store import schema
from store.database import Database, is_refused, told
from store.errors import DatabaseGoneError, PayloadError, SchemaError
from store.migrations import migrating
from store.payloads.moving import Payloads
from store.spool import segments
from store.writing import batches, state
from store.writing.refused import Refused
from store.writing.rows import RefusedError, Row, row_of
from store.writing.segments import Packed, Stretch, read

_IDLE_S = 0.2  # between two looks at a spool that had nothing new
_WAIT_S = (0.2, 5.0)  # for a database that is gone: at first, and at most
_SAY_S = 1.0  # between two changes of what the writer says of itself


@dataclass(frozen=True)
class _Parsed:
    rows: list[Row]
    refused: list[tuple[Packed, str]]


class Writer:
    """Takes a spool to a database; the only one that does so (see `state.only_writer`)."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        batch: int = 1000,
        payloads: Payloads | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.state = state.here(state.read(folder))
        self._database, self._folder, self._batch, self._payloads, self._say = database, folder, batch, payloads, say
        self._places: dict[str, int] = {}
        self._refused = Refused(folder)
        self._to_forget: set[str] = set()  # inputs of what was erased
        self._ready = False
        self._said_at = 0.0

    async def run(self, stop: asyncio.Event, *, once: bool = False) -> None:
        """Write until `stop`, or `once` all that is there now; wait for a database that is gone.

        Raises:
            SchemaError: the database is behind this code.
        """
        moving = [self._move_payloads(stop)] if self._payloads and not once else []
        await asyncio.gather(self._write_records(stop, once=once), *moving)
        await self._look_at_payloads(move=once)
        self._tell(now=True)

    async def _write_records(self, stop: asyncio.Event, *, once: bool) -> None:
        wait_s = _WAIT_S[0]
        while not stop.is_set():
            try:
                count = await self.step(stop)
            except DatabaseGoneError as error:
                self._waits(error)
                await _wait(stop, wait_s)
                wait_s = min(_WAIT_S[1], wait_s * 2)
                continue
            except SchemaError:
                if not self._ready:
                    raise
                self._ready = False  # the tables were there: SQLite's file is another one
                continue
            wait_s = _WAIT_S[0]
            self._goes_on()
            if not count:
                if once:
                    break
                await _wait(stop, _IDLE_S)
        stop.set()

    async def _move_payloads(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._look_at_payloads(move=True)
            await _wait(stop, _WAIT_S[1] if self.state.payloads_waiting else _SAY_S)

    async def _look_at_payloads(self, *, move: bool) -> None:
        """Remove whole inputs of what was erased, and bring those that wait to their place, which may be gone."""
        if not self._payloads:
            return
        names = frozenset(self._to_forget)
        try:
            await self._payloads.remove(names)
            self._to_forget -= names
            if move:
                await self._payloads.move()
            self.state.payloads_waiting = ""
        except PayloadError as error:
            if not self.state.payloads_waiting:
                self._say(f"{error}; they wait")
            self.state.payloads_waiting = str(error)

    async def step(self, stop: asyncio.Event | None = None) -> int:
        """Write what is there of each segment, the oldest first; return how many records that were.

        Args:
            stop: Once it is set, no more batches are begun: what waits, waits.

        Raises:
            DatabaseGoneError: the database is gone; what is written, it knows itself.
        """
        if not self._ready:
            await migrating.prepare(self._database)
            await self._find_places()
            self._ready = True
        count = 0
        stop = stop or asyncio.Event()
        for path in segments(self._folder):
            if stop.is_set():
                break
            try:
                count += await self._take_all(path, stop)
            except FileNotFoundError:  # somebody has removed it
                self._places.pop(path.name, None)
            except DatabaseGoneError:
                self._ready = False  # a commit may have been done whose answer was lost
                raise
        self._tell()
        return count

    async def _take_all(self, path: Path, stop: asyncio.Event) -> int:
        """Write batches as long as they are full: so the oldest segments make room first."""
        count = taken = await self._take(path)
        while taken == self._batch and not stop.is_set():
            count += (taken := await self._take(path))
        return count

    async def _take(self, path: Path) -> int:
        stretch = read(path, self._places.get(path.name, 0), self._batch)
        if stretch.end > stretch.begin:
            await self._write(path.name, stretch)
            self.state.damaged += stretch.damaged
        if stretch.finished and self._places.get(path.name, 0) >= stretch.end:
            await self._finish(path)
        return len(stretch.records)

    async def _write(self, segment: str, stretch: Stretch) -> None:
        parsed = _parse(stretch.records)
        self.state.refused += self._refused.keep(segment, parsed.refused)
        try:
            done = await batches.write(
                self._database, segment, stretch.begin, stretch.end, parsed.rows, len(parsed.refused)
            )
        except StatementError as error:
            if not is_refused(error):  # a right that is missing, or what nobody has thought of: nothing is given up
                raise DatabaseGoneError(f"the database does not take records: {told(error)}") from error
            if len(stretch.records) > 1:
                for half in _halves(stretch):
                    await self._write(segment, half)
                return
            self.state.refused += self._refused.keep(segment, [(each, told(error)) for each in stretch.records])
            done = await batches.write(self._database, segment, stretch.begin, stretch.end, [], 1)
        self._places[segment] = done.position
        self.state.written += done.written
        self.state.duplicates += done.duplicates
        self.state.erased += len(done.erased)
        if done.written:
            self.state.last_written = time.time_ns()
        self._to_forget |= {name for row in done.erased if (name := row.values.get("payload"))}

    async def _finish(self, path: Path) -> None:
        """Remove a segment that is written; then its place, which nobody needs without it."""
        path.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # after a power cut it must not be there again
        finally:
            os.close(folder)
        async with self._database.writing() as connection:
            await connection.execute(delete(schema.Place).where(schema.Place.segment == path.name))
        self._places.pop(path.name, None)
        self._refused.finished(path.name)

    async def _find_places(self) -> None:
        names = [path.name for path in segments(self._folder)]
        table = schema.Place
        async with self._database.reading() as connection:
            found = await connection.execute(select(table.segment, table.position).where(table.segment.in_(names)))
            self._places = dict(found.tuples().all())

    def _waits(self, error: DatabaseGoneError) -> None:
        first = not self.state.waiting
        if first:
            self.state.waiting_since = time.time_ns()
            self._say(f"{str(error).splitlines()[0]}; records wait in {self._folder}")
        self.state.waiting = str(error).splitlines()[0]
        self._tell(now=first)

    def _goes_on(self) -> None:
        if self.state.waiting:
            away_s = (time.time_ns() - self.state.waiting_since) / 1e9
            self.state.waiting, self.state.waiting_since = "", 0
            self._say(f"the database is there again, after {away_s:,.1f} s")
            self._tell(now=True)

    def _tell(self, *, now: bool = False) -> None:
        if now or time.monotonic() >= self._said_at:
            self._said_at = time.monotonic() + _SAY_S
            with suppress(OSError):  # the disk is full, which is no reason to stop what makes room
                state.write(self._folder, self.state)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _parse(records: tuple[Packed, ...]) -> _Parsed:
    parsed = _Parsed([], [])
    for packed in records:
        try:
            parsed.rows.append(row_of(packed.content))
        except RefusedError as error:
            parsed.refused.append((packed, str(error)))
    return parsed


def _halves(stretch: Stretch) -> tuple[Stretch, Stretch]:
    """Cut a stretch in two, to find the record that the database refuses."""
    middle = len(stretch.records) // 2
    first, second = stretch.records[:middle], stretch.records[middle:]
    cut = first[-1].end
    return (
        Stretch(stretch.begin, first, cut, 0, finished=False),
        Stretch(cut, second, stretch.end, 0, finished=False),
    )
