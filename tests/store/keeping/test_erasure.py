"""What was erased is nowhere: not in rows, not in the file, not in whole inputs, and it does not come back."""

import time
from pathlib import Path

from store.database import Database
from store.keeping import erasure
from store.keeping.erasure import Erased, Kind
from store.payloads.moving import Payloads
from store.payloads.places import Folder
from store.payloads.samples import Samples
from store.spool import Spool
from tests.store.given import DAY_NS, event, label, prediction
from tests.store.records import asked, in_store, spooled, written


def payloads(folder: Path) -> Payloads:
    return Payloads(folder / "spool", Folder(folder / "payloads"))


def erased(url: str, folder: Path, kind: Kind, name: str) -> Erased:
    async def play(database: Database) -> Erased:
        return await erasure.erase(database, payloads(folder), folder / "spool", kind, name)

    return in_store(url, play)


def test_a_request_is_gone_with_all_that_was_said_of_it(url: str, tmp_path: Path) -> None:
    Folder(tmp_path / "payloads").write("boats/2026-11-30/r1", b"x")
    spooled(
        tmp_path / "spool", prediction(1, payload="boats/2026-11-30/r1"), prediction(2), label(1, "r1", 1),
        label(2, "r2", 1), event(1, request="r1"), event(2, request="r2"), event(3),
    )  # fmt: skip
    written(url, tmp_path / "spool")
    assert erased(url, tmp_path, "request", "r1") == Erased(predictions=1, labels=1, events=1, payloads=1)
    assert erased(url, tmp_path, "request", "r1") == Erased(), "again it is no error"
    left = [asked(url, f"SELECT id FROM {table} ORDER BY id") for table in ("predictions", "labels", "events")]
    assert left == [[("r2",)], [("l2",)], [("e2",), ("e3",)]]
    assert not list(Folder(tmp_path / "payloads").names())
    assert asked(url, "SELECT requests FROM usage") == [(2,)], "what was used stays"


def test_what_is_on_its_way_does_not_come_back(url: str, tmp_path: Path) -> None:
    samples = Samples(tmp_path / "spool", rate=1)
    waiting = samples.keep("boats", "r1", time.time_ns(), b"inputs")
    spooled(tmp_path / "spool", prediction(1, payload=waiting), label(1, "r1", 1), prediction(2))
    erased(url, tmp_path, "request", "r1")
    assert written(url, tmp_path / "spool", payloads=payloads(tmp_path)).state.erased == 2
    assert asked(url, "SELECT id FROM predictions") == [("r2",)] and asked(url, "SELECT id FROM labels") == []
    assert not list(Folder(tmp_path / "payloads").names())
    written(url, spooled(tmp_path / "spool", label(2, "r1", 1)))
    assert asked(url, "SELECT id FROM labels") == []


def test_a_key_is_gone_up_to_now_and_may_go_on(url: str, tmp_path: Path) -> None:
    waiting = Spool(tmp_path / "later")
    waiting.put(prediction("late", key="web"))  # it was made before, and comes after
    spooled(tmp_path / "spool", prediction(1), prediction(2, key="mobile"), label(1, "r2", 1), event(1))
    written(url, tmp_path / "spool")
    assert erased(url, tmp_path, "key", "web") == Erased(predictions=1, labels=1, events=1)
    waiting.put(prediction("new", key="web"))
    waiting.close()
    assert written(url, tmp_path / "later").state.erased == 1
    assert sorted(asked(url, "SELECT id FROM predictions")) == [("r2",), ("rnew",)]


def test_nothing_of_it_is_left_in_the_file(tmp_path: Path) -> None:
    """SQLite by itself leaves what was deleted in free pages, and in its log."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    records = [prediction(number, inputs={"text": f"secret-of-{number}."}) for number in range(300)]
    written(url, spooled(tmp_path / "spool", *records))
    assert b"secret-of-17." in everything(tmp_path)
    erased(url, tmp_path, "request", "r17")
    assert b"secret-of-17." not in everything(tmp_path) and b"secret-of-18." in everything(tmp_path)
    assert b"r17\0" not in everything(tmp_path)


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_records_that_were_refused_are_erased_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    bad = [prediction(1, rows="no"), prediction(2, rows="no", key="other"), label(1, "r1", 1, time="no")]
    written(url, spooled(tmp_path / "spool", *bad))
    assert erased(url, tmp_path, "request", "r1").refused == 2
    assert erased(url, tmp_path, "key", "web").refused == 0
    assert erased(url, tmp_path, "key", "other").refused == 1
    assert (tmp_path / "spool" / "refused.jsonl").read_text() == ""


def test_what_a_caller_says_of_the_time_keeps_nothing_and_loses_nothing(url: str, tmp_path: Path) -> None:
    future, past = time.time_ns() + 170 * 365 * DAY_NS, DAY_NS
    came = {"received": time.time_ns()}
    records = label(1, "r1", 1, time=future, **came), event(1, time=future, **came)
    written(url, spooled(tmp_path / "spool", *records))
    assert erased(url, tmp_path, "key", "web") == Erased(labels=1, events=1)
    later = {"received": time.time_ns()}
    records = (
        label(2, "r1", 1, time=past, **later),
        event(2, time=past, **later),
        label(3, "r1", 1, time=future, **came),
    )
    assert written(url, spooled(tmp_path / "spool", *records)).state.erased == 1
    assert asked(url, "SELECT id FROM labels") == [("l2",)] and asked(url, "SELECT id FROM events") == [("e2",)]

    async def play(database: Database) -> int:
        return await erasure.reapply(database, database)  # as after a backup is restored

    assert in_store(url, play) == 0
