"""The process that takes records from a spool to the database: `python -m store write`.

It may be killed at any moment, and so may the database: a record is written once, in the transaction that also says
how far its segment is written; a segment is removed when nobody appends to it and all of it is written.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sqlalchemy import delete, select
from sqlalchemy.exc import StatementError

from contracts.files.locks import locked
from store import schema
from store.database import Database, is_refused, told
from store.errors import DatabaseGoneError, PayloadError
from store.migrations import migrating
from store.payloads.moving import Payloads
from store.spool import segments
from store.writing import batches, state
from store.writing.rows import RefusedError, Row, row_of
from store.writing.segments import Packed, Stretch, read

REFUSED, REFUSED_LOCK = "refused.jsonl", "refused.lock"  # in the spool: what no table can hold

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
        self._refused: set[tuple[str, int]] = set()
        self._ready = False
        self._said_at = 0.0

    async def run(self, stop: asyncio.Event, *, once: bool = False) -> None:
        """Write until `stop`, or `once` all that is there now; wait for a database that is gone.

        Raises:
            SchemaError: the database is behind this code.
        """
        records = self._write_records(stop, once=once)
        await asyncio.gather(records, *([self._move_payloads(stop, once=once)] if self._payloads else []))

    async def _write_records(self, stop: asyncio.Event, *, once: bool) -> None:
        wait_s = _WAIT_S[0]
        while not stop.is_set():
            try:
                count = await self.step()
            except DatabaseGoneError as error:
                self._waits(error)
                await _wait(stop, wait_s)
                wait_s = min(_WAIT_S[1], wait_s * 2)
                continue
            wait_s = _WAIT_S[0]
            self._goes_on()
            if not count:
                if once:
                    break
                await _wait(stop, _IDLE_S)
        stop.set()
        self._tell(now=True)

    async def _move_payloads(self, stop: asyncio.Event, *, once: bool) -> None:
        assert self._payloads
        while not stop.is_set():
            try:
                await self._payloads.move()
                self.state.payloads_waiting = ""
            except PayloadError as error:
                if not self.state.payloads_waiting:
                    self._say(f"{error}; they wait")
                self.state.payloads_waiting = str(error)
            if once:
                break
            await _wait(stop, _WAIT_S[1] if self.state.payloads_waiting else _SAY_S)

    async def step(self) -> int:
        """Write what is there of each segment, the oldest first; return how many records that were.

        Raises:
            DatabaseGoneError: the database is gone; what is written, it knows itself.
        """
        if not self._ready:
            await migrating.prepare(self._database)
            await self._find_places()
            self._ready = True
        count = 0
        for path in segments(self._folder):
            try:
                count += await self._take_all(path)
            except FileNotFoundError:  # somebody has removed it
                self._places.pop(path.name, None)
            except DatabaseGoneError:
                self._ready = False  # a commit may have been done whose answer was lost
                raise
        self._tell()
        return count

    async def _take_all(self, path: Path) -> int:
        """Write batches as long as they are full: so the oldest segments make room first."""
        count = taken = await self._take(path)
        while taken == self._batch:
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
        self._refuse(segment, parsed.refused)
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
            self._refuse(segment, [(each, told(error)) for each in stretch.records])
            done = await batches.write(self._database, segment, stretch.begin, stretch.end, [], 1)
        self._places[segment] = done.position
        self.state.written += done.written
        self.state.duplicates += done.duplicates
        self.state.erased += len(done.erased)
        if done.written:
            self.state.last_written = time.time_ns()
        if self._payloads:
            await self._payloads.remove([name for row in done.erased if (name := row.values.get("payload"))])

    def _refuse(self, segment: str, refused: list[tuple[Packed, str]]) -> None:
        """Keep what no table can hold, with the reason; before its place is passed: twice after a kill, at worst."""
        new = [(packed, why) for packed, why in refused if (segment, packed.end) not in self._refused]
        if not new:
            return
        self._refused |= {(segment, packed.end) for packed, _ in new}
        self.state.refused += len(new)
        lines = (
            {"why": why, "segment": segment, "end": packed.end, "record": packed.content.hex()} for packed, why in new
        )
        with suppress(OSError), locked(self._folder / REFUSED_LOCK), _opened(self._folder / REFUSED) as kept:
            kept.writelines(f"{json.dumps(line)}\n" for line in lines)

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
        self._refused = {(segment, end) for segment, end in self._refused if segment != path.name}

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


def _opened(path: Path) -> TextIO:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "a")


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
