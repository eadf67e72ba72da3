"""What is too old goes, all else stays, in steps that nobody waits for, and the file becomes smaller."""

import asyncio
import time
from pathlib import Path

import pytest

from store.database import Database
from store.keeping import retention
from store.keeping.retention import Policy, Removed
from store.payloads.moving import Payloads
from store.payloads.places import Folder
from store.spool import Spool, segments
from store.writing.writer import Writer
from tests.store.given import DAY_NS, event, label, prediction
from tests.store.records import asked, in_store, spooled, statements, written

NOW = time.time_ns()


def payloads(folder: Path) -> Payloads:
    return Payloads(folder / "spool", Folder(folder / "payloads"))


def retained(url: str, folder: Path, policy: Policy) -> Removed:
    async def play(database: Database) -> Removed:
        expected = await retention.overdue(database, payloads(folder), policy, NOW)
        removed = await retention.retain(database, payloads(folder), folder / "spool", policy, NOW)
        assert removed == expected, "what a dry run said"
        assert await retention.retain(database, payloads(folder), folder / "spool", policy, NOW) == Removed()
        return removed

    return in_store(url, play)


def test_what_is_too_old_goes_and_nothing_else(url: str, tmp_path: Path) -> None:
    old, new = NOW - 10 * DAY_NS, NOW - 8 * DAY_NS
    spooled(
        tmp_path / "spool", prediction(1, time=old), prediction(2, time=new), event(1, time=new, received=old),
        event(2, time=0, received=new),
        label(1, "r1", 1, time=0, received=old), label(2, "r2", 1, time=0, received=new),
    )  # fmt: skip
    written(url, tmp_path / "spool")
    assert retained(url, tmp_path, Policy(predictions=9)) == Removed(predictions=1)
    assert asked(url, "SELECT id FROM predictions") == [("r2",)]
    assert len(asked(url, "SELECT id FROM labels")) == len(asked(url, "SELECT id FROM events")) == 2
    assert retained(url, tmp_path, Policy(labels=9, events=9, usage=9)) == Removed(labels=1, events=1, usage=1)
    assert asked(url, "SELECT id FROM labels") == [("l2",)] and asked(url, "SELECT id FROM events") == [("e2",)]
    assert asked(url, "SELECT requests FROM usage") == [(1,)]


def test_many_rows_go_in_steps_and_the_file_shrinks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    records = [prediction(number, time=NOW - DAY_NS * 100) for number in range(12_000)]
    written(url, spooled(tmp_path / "spool", *records, prediction("new")))
    before = (tmp_path / "store.db").stat().st_size

    async def play(database: Database) -> list[str]:
        with statements(database) as heard:
            await retention.retain(database, payloads(tmp_path), tmp_path / "spool", Policy(predictions=30), NOW)
        return heard

    deletes = [each for each in in_store(url, play) if "DELETE FROM predictions" in each]
    assert len(deletes) == 4, "5,000 each, and the last finds nothing"
    assert asked(url, "SELECT count(*) FROM predictions") == [(1,)]
    assert (tmp_path / "store.db").stat().st_size < before / 5


def test_others_write_meanwhile(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNK", 500)
    written(url, spooled(tmp_path / "spool", *(prediction(number, time=1) for number in range(8_000))))

    async def play(database: Database) -> int:
        removing = asyncio.create_task(
            retention.retain(database, payloads(tmp_path), tmp_path / "spool", Policy(predictions=1), NOW)
        )
        done = 0
        while not removing.done():
            async with database.writing() as connection:
                done += 1
                new = f"INSERT INTO erasures (subject, until, at) VALUES ('{done}', 1, 1)"
                await connection.exec_driver_sql(new)
        await removing
        return done

    assert in_store(url, play) > 3


def test_whole_inputs_go_with_their_predictions_or_before_them(url: str, tmp_path: Path) -> None:
    names = ["boats/1970-01-05/r1", "boats/1970-01-06/r2", "other/1970-01-04/lost"]
    for name in names:
        Folder(tmp_path / "payloads").write(name, b"x")
    (tmp_path / "spool" / "payloads" / "boats" / "1970-01-01").mkdir(parents=True)
    (tmp_path / "spool" / "payloads" / "boats" / "1970-01-01" / "r0").write_bytes(b"it waits")
    records = [prediction(number, time=(number + 3) * DAY_NS, payload=names[number - 1]) for number in (1, 2)]
    written(url, spooled(tmp_path / "spool", *records))
    policy = Policy(payloads=(NOW // DAY_NS - 5))

    async def play(database: Database) -> Removed:
        return await retention.retain(database, payloads(tmp_path), tmp_path / "spool", policy, NOW)

    assert in_store(url, play) == Removed(payloads=3)
    assert list(Folder(tmp_path / "payloads").names()) == [names[1]]
    assert asked(url, "SELECT id, payload FROM predictions ORDER BY id") == [("r1", None), ("r2", names[1])]


def test_a_segment_that_is_still_written_to_is_not_read_again(url: str, tmp_path: Path) -> None:
    """Where there is hardly any traffic one is there for weeks, and what went of it must not come back."""
    folder = tmp_path / "spool"
    spool = Spool(folder)
    for number in (1, 2, 3):
        spool.put(prediction(number, time=NOW - 35 * DAY_NS))
    (segment,) = segments(folder)
    segment.rename(folder / f"{NOW - 40 * DAY_NS:020d}{segment.name[20:]}")  # its lock is held

    async def play(database: Database) -> None:
        writer = Writer(database, folder)
        assert await writer.step() == 3
        removed = await retention.retain(database, payloads(tmp_path), folder, Policy(predictions=30), NOW)
        assert removed == Removed(predictions=3)
        spool.put(prediction(4))
        assert await writer.step() == 1
        assert await Writer(database, folder).step() == 0, "nor by one that begins"

    in_store(url, play)
    assert asked(url, "SELECT id FROM predictions") == [("r4",)]
    assert asked(url, "SELECT sum(requests) FROM usage") == [(4,)]
