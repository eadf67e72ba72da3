"""A soak: many requests through the gateway, its record written into PostgreSQL, which is killed and comes back.

Afterwards every answer must have its record, and every record its answer; nothing may have grown.
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import uvloop
from sqlalchemy import text

from benchmarks import own_server
from benchmarks.errors import MeasurementError
from benchmarks.gateway import asking, started
from benchmarks.gateway.asking import FEATURES, Load
from benchmarks.gateway.postgresql import PostgreSQL, postgresql
from benchmarks.gateway.started import Gateway
from cli.progress import Bar, bar
from store.database import Database
from store.writing import state
from store.writing.state import State

MODEL = "sum"
_CATCH_UP_S = 600.0  # for the records that waited for the database
_CONFIG = f"""
backend: "python"
max_batch_size: 4
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ {FEATURES} ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""
_CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()) for request in requests]

    def answer(self, given):
        if given[0, 0] < 0:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("below zero"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", given.sum(axis=1, keepdims=True))])
"""
_IDS = "SELECT sum(('x' || substr(id, 1, 15))::bit(60)::bigint), sum(('x' || right(id, 15))::bit(60)::bigint)"


@dataclass(frozen=True)
class Settings:
    """How much.

    Attributes:
        kills: Of the database, spread evenly over the requests.
        away_s: That it is gone, each time.
        limit: Of growth from the second quarter of the requests to the last, a share.
        look_s: Between two looks at the memory.
    """

    requests: int = 1_000_000
    kills: int = 3
    away_s: float = 5.0
    connections: int = 16
    limit: float = 0.05
    look_s: float = 0.5


@dataclass(frozen=True)
class Sample:
    """The processes at a moment; resident memory."""

    at_s: float
    answered: int
    written: int  # records, as the writer says, up to a second old
    gateway_mb: float
    writer_mb: float


@dataclass(frozen=True)
class Outage:
    """Of the database: when it was killed, and for how long it was gone."""

    at_s: float
    answered: int
    away_s: float


@dataclass(frozen=True)
class Stored:
    """What is in the database.

    Attributes:
        requests, rows: {(door, status): so many}.
        ids: As of Load.
        usage: Sums of requests, rows and failures.
    """

    requests: Mapping[tuple[str, int], int]
    rows: Mapping[tuple[str, int], int]
    ids: tuple[int, int]
    usage: tuple[int, int, int]


@dataclass
class Soak:
    """What was seen."""

    settings: Settings
    load: Load
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    samples: list[Sample] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    writers: set[int] = field(default_factory=set)  # processes
    seconds: float = 0.0  # until the last answer
    caught_up_s: float = 0.0  # after it, until the last record
    stored: Stored = Stored({}, {}, (0, 0), (0, 0, 0))
    writer: State = field(default_factory=State)

    @property
    def growth(self) -> dict[str, tuple[float, float]]:
        """{process: its memory in MB in the second quarter of the requests, and in the last}; medians."""
        total = self.load.total
        parts = [
            [sample for sample in self.samples if low * total <= sample.answered <= high * total]
            for low, high in ((0.25, 0.5), (0.75, 1))
        ]
        if not all(parts):
            return {}
        first, last = parts
        return {
            name: (median(getattr(s, f"{name}_mb") for s in first), median(getattr(s, f"{name}_mb") for s in last))
            for name in ("gateway", "writer")
        }

    @property
    def findings(self) -> list[str]:
        """What does not hold, in a line each."""
        load, stored, writer = self.load, self.stored, self.writer
        failed = sum(number for (_, status), number in load.answers.items() if status >= 400)
        wanted = load.answered, sum(load.rows.values()), failed
        return [
            *([f"{load.broken:,} requests got no answer"] if load.broken else ()),
            *(f"{number:,} answers of the {door} door: {status}" for (door, status), number in load.wrong.items()),
            *_differences("records", load.answers, stored.requests),
            *_differences("rows of records", load.rows, stored.rows),
            *(["the records are others than the answers, by their ids"] if load.ids != stored.ids else ()),
            *([f"usage has {stored.usage}, and not {wanted}"] if stored.usage != wanted else ()),
            *(
                f"the writer counts {number:,} {what} records"
                for what in ("duplicates", "refused", "damaged")
                if (number := getattr(writer, what))
            ),
            *([f"the writer was started {len(self.writers)} times"] if len(self.writers) > 1 else ()),
            *([] if len(self.outages) == self.settings.kills else [f"{len(self.outages)} kills of the database"]),
            *(
                f"the {name} grew from {first:.1f} to {last:.1f} MB, by more than {self.settings.limit:.0%}"
                for name, (first, last) in self.growth.items()
                if last > first * (1 + self.settings.limit)
            ),
            *([] if self.growth else ["too short to see whether anything grows"]),
        ]


def run(settings: Settings) -> Soak:
    """Start all of it, send the requests, and compare answers and records.

    Raises:
        MeasurementError, DeployError: something does not start, or does not answer any more.
    """
    with ExitStack() as opened:
        server = opened.enter_context(postgresql())
        url = server.new()
        up = opened.enter_context(own_server.serving_python_models({MODEL: (_CONFIG, _CODE)}))
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        # A million lines of a log would take room, and nothing else.
        gateway = opened.enter_context(
            started.gateway(folder, [up.http], started.NEVER_MET, store__url=url, seen__access_log="false")
        )
        shown = opened.enter_context(bar("soaking", settings.requests, "requests"))
        soak = Soak(settings, Load(asking.mixture(MODEL, gateway.authorization), settings.requests))
        uvloop.run(_soak(soak, gateway, server, url, shown))
    return soak


async def _soak(soak: Soak, gateway: Gateway, server: PostgreSQL, url: str, shown: Bar) -> None:
    began = time.monotonic()
    watching = asyncio.create_task(_watch(soak, gateway, began, shown))
    killing = asyncio.create_task(_kill(soak, server, began, shown))
    try:
        await asking.ask(soak.load, gateway.port, soak.settings.connections)
        soak.seconds = time.monotonic() - began
        await killing
        async with Database(url) as database:
            await _caught_up(soak, database, gateway)
            soak.caught_up_s = time.monotonic() - began - soak.seconds
            soak.stored = await _stored(database)
    finally:
        for task in (watching, killing):
            task.cancel()
    await asyncio.sleep(1.5)  # in which the writer says what it has done
    soak.writer = state.read(gateway.spool)


async def _watch(soak: Soak, gateway: Gateway, began: float, shown: Bar) -> None:
    while True:
        writer = gateway.writer()
        if writer is not None:
            soak.writers.add(writer.pid)
            sizes = [process.memory_info().rss / 1e6 for process in (gateway.process, writer)]
            answered, written = soak.load.answered, state.read(gateway.spool).written
            soak.samples.append(Sample(time.monotonic() - began, answered, written, *sizes))
            shown.reach(answered)
        await asyncio.sleep(soak.settings.look_s)


async def _kill(soak: Soak, server: PostgreSQL, began: float, shown: Bar) -> None:
    settings = soak.settings
    for number in range(1, settings.kills + 1):
        while soak.load.answered < settings.requests * number / (settings.kills + 1):
            await asyncio.sleep(0.05)
        killed, answered = time.monotonic(), soak.load.answered
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(settings.away_s)
        await asyncio.to_thread(server.start)
        soak.outages.append(Outage(killed - began, answered, time.monotonic() - killed))
        shown.say(f"PostgreSQL killed after {answered:,} answers, back {time.monotonic() - killed:.1f} s later")


async def _caught_up(soak: Soak, database: Database, gateway: Gateway) -> None:
    """Wait until there are as many records as answers, or nothing more comes."""
    until = time.monotonic() + _CATCH_UP_S
    while time.monotonic() < until:
        async with database.reading() as connection:
            found = await connection.scalar(text("SELECT count(*) FROM predictions"))
        if found is not None and found >= soak.load.answered:
            return
        if not gateway.process.is_running():
            raise MeasurementError("the gateway has ended", note=gateway.log.read_text()[-2000:])
        await asyncio.sleep(0.5)


async def _stored(database: Database) -> Stored:
    by_kind = "SELECT door, status, count(*), sum(rows) FROM predictions GROUP BY door, status"
    usage = "SELECT sum(requests), sum(rows), sum(failed) FROM usage"
    async with database.reading() as connection:
        kinds = (await connection.execute(text(by_kind))).all()
        first, last = (await connection.execute(text(f"{_IDS} FROM predictions"))).one()
        requests, rows, failed = (await connection.execute(text(usage))).one()
    return Stored(
        {(door, status): int(number) for door, status, number, _ in kinds},
        {(door, status): int(number) for door, status, _, number in kinds},
        (int(first or 0), int(last or 0)),
        (int(requests or 0), int(rows or 0), int(failed or 0)),
    )


def _differences(
    what: str, answered: Mapping[tuple[str, int], int], stored: Mapping[tuple[str, int], int]
) -> list[str]:
    pairs = {kind: (stored.get(kind, 0), answered.get(kind, 0)) for kind in sorted({*answered, *stored})}
    return [
        f"{door} door, {status}: {found:,} {what}, and {wanted:,} answered"
        for (door, status), (found, wanted) in pairs.items()
        if found != wanted
    ]
