"""Spool to database: all of it, once, in both databases, and nothing stops for a record that is none."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import layout
from store.database import Database
from store.spool import Spool, segments
from store.writing import state
from store.writing.writer import Writer
from tests.store.given import event, label, prediction
from tests.store.records import asked, changed, in_store, spooled, statements, written


def test_every_kind_arrives_as_it_was(url: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    told = prediction(1, triton_ms=None, time=5, outputs={"scores": [0.1, 0.9], "text": "ä \u2028 ☃"})
    for record in (
        told, label(1, "r1", "shoe", time=7), event(1, value=9.5, request="r1", data={"a": [1]}, time=8),
        {"kind": "release", "model": "boats", "release": "7", "digest": "sha256:1", "time": 9},
        {"kind": "usage", "key": "web", "model": "boats", "requests": 3, "rows": 4, "failed": 3, "time": 10},
    ):  # fmt: skip
        spool.put(record)
    spool.close()
    assert written(url, tmp_path / "spool").state.written == 5
    [found] = asked(url, "SELECT * FROM predictions")
    row = dict(zip(("id", "time", "door", "key", "model", "release", "arm", "rows", "latency_ms"), found, strict=False))
    assert row == {name: told[name] for name in row} and found[9] is None and found[10] == 200
    as_json = found[12] if isinstance(found[12], dict) else json.loads(found[12])
    assert as_json == told["outputs"]
    assert asked(url, "SELECT id, request, name, time, received FROM labels") == [("l1", "r1", "label", 7, 7)]
    assert asked(url, "SELECT id, name, value, request, entity FROM events") == [("e1", "conversion", 9.5, "r1", None)]
    assert asked(url, "SELECT release, digest, first_seen FROM releases") == [("7", "sha256:1", 9)]
    assert asked(url, "SELECT * FROM usage") == [("web", "1970-01-01", "boats", 4, 6, 3)]
    assert not list(segments(tmp_path / "spool")), "what is written is removed"
    assert asked(url, "SELECT * FROM places") == []


def test_what_is_there_twice_is_written_and_counted_once(url: str, tmp_path: Path) -> None:
    first, again = Spool(tmp_path / "spool"), Spool(tmp_path / "spool")
    for _ in range(2):
        first.put(prediction(1, status=503))
        again.put(prediction(1, status=503))
    first.put(prediction(2, key=None))
    first.close(), again.close()
    assert (done := written(url, tmp_path / "spool").state).written == 2 and done.duplicates == 3
    assert sorted(asked(url, "SELECT key, requests, rows, failed FROM usage")) == [("", 1, 2, 0), ("web", 1, 2, 1)]


def test_statements_are_no_longer_for_more_records(url: str, tmp_path: Path) -> None:
    """A driver keeps those that it has prepared, and each number of rows is another one: a writer grew by them."""

    async def longest(count: int) -> int:
        folder = spooled(tmp_path / str(count), *(prediction(f"{count} {number}") for number in range(count)))
        async with Database(url) as database:
            with statements(database) as heard:
                assert await Writer(database, folder).step() == count
            return max(map(len, heard))

    assert asyncio.run(longest(950)) == asyncio.run(longest(150)) > asyncio.run(longest(50))


def test_a_record_that_no_table_can_hold_is_kept_apart_with_the_reason_and_stops_nothing(
    url: str, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool")
    bad = [
        {"kind": "wish"}, {"a": 1}, prediction("x" * 64), prediction("a\0b"), prediction(3, time=1 << 63),
        prediction(4, rows=None), prediction(5, latency_ms=float("nan")), prediction(6, status="200"),
        prediction(7, model="\0"),
    ]  # fmt: skip
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    bad.append(prediction(8, inputs={"deep": deep}))
    for number, record in enumerate(bad):
        spool.put(record)
        spool.put(prediction(f"good{number}", outputs={"score": float("nan"), "text": "a\0b", "raw": b"123"}))
    spool.close()
    done = written(url, tmp_path / "spool").state
    assert (done.written, done.refused, spool.lost) == (len(bad), len(bad), 0)
    kept = [json.loads(line)["why"] for line in (tmp_path / "spool" / "refused.jsonl").read_text().splitlines()]
    assert len(kept) == len(bad) and "there is no kind 'wish'" in kept and any("latency_ms" in why for why in kept)
    [found] = asked(url, "SELECT outputs FROM predictions WHERE id = 'rgood0'")
    outputs = found[0] if isinstance(found[0], dict) else json.loads(found[0])
    assert outputs == {"score": "NaN", "text": "a\ufffdb", "raw": "3 bytes"}


def test_what_the_database_itself_refuses_is_found_among_the_others(url: str, tmp_path: Path) -> None:
    written(url, tmp_path / "spool")  # it has its tables
    words = "CREATE TRIGGER no BEFORE INSERT ON predictions WHEN NEW.model = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END"
    if url.startswith("postgresql"):
        words = "ALTER TABLE predictions ADD CONSTRAINT no CHECK (model <> 'bad')"
    changed(url, words)
    spool = Spool(tmp_path / "spool")
    for number in range(100):
        spool.put(prediction(number, model="bad" if number in (13, 14, 77) else "good"))
    spool.close()
    done = written(url, tmp_path / "spool").state
    assert (done.written, done.refused) == (97, 3)
    assert asked(url, "SELECT requests FROM usage WHERE key = 'web' AND model = 'good'") == [(97,)]


def test_one_process_writes_from_a_spool(tmp_path: Path) -> None:
    with state.only_writer(tmp_path / "spool"):
        assert state.is_written(tmp_path / "spool")
        command = [sys.executable, "-m", "store", "write", "--once", "--spool", str(tmp_path / "spool"),
                   "--store", f"sqlite:///{tmp_path / 'store.db'}"]  # fmt: skip
        done = subprocess.run(command, cwd=layout.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "another process writes from" in done.stderr and "Traceback" not in done.stderr
    assert not state.is_written(tmp_path / "spool")


@pytest.mark.parametrize("left", ["{", "[]", '{"written": 3, "of_a_later_version": 1}'])
def test_what_a_former_writer_left_of_itself_is_no_hindrance(left: str, tmp_path: Path) -> None:
    (tmp_path / "writer.json").write_text(left)
    assert state.read(tmp_path).written in (0, 3)


def test_a_stop_waits_for_one_batch_alone(url: str, tmp_path: Path) -> None:
    """However much is there: it waits for the next start."""
    spool = Spool(tmp_path / "spool")
    for number in range(40):
        spool.put(prediction(number))
    spool.close()

    async def stopped(database: Database) -> Writer:
        writer, stop = Writer(database, tmp_path / "spool", batch=10), asyncio.Event()
        take = writer._take

        async def taken(path: Path) -> int:
            stop.set()
            return await take(path)

        writer._take = taken  # type: ignore[method-assign]
        await writer.run(stop)
        return writer

    assert in_store(url, stopped).state.written == 10
    assert written(url, tmp_path / "spool").state.written == 40, "in both together"
