"""A backup is all of one moment, is noticed when it was changed, and becomes any of the databases again."""

import asyncio
import zipfile
from pathlib import Path

import pytest

from store import releases
from store.database import Database
from store.errors import BackupError
from store.keeping import erasure
from store.keeping.backup import Manifest, backup, check
from store.keeping.restoring import Restored, restore
from store.keys import Keys
from store.migrations import migrating
from store.payloads.moving import Payloads
from store.payloads.places import Folder
from tests.store.databases import PostgreSQL
from tests.store.given import event, label, prediction
from tests.store.records import asked, changed, in_store, spooled, written

NUMBERS = {
    "small": 1e-7,
    "whole": 5.0,
    "large": 1e300,
    "exact": 2**60,
    "text": "\u2028 ☃ \\u0000",
    "none": None,
    "no": -0.0,
}


def filled(url: str, folder: Path) -> None:
    records = [prediction(number, outputs={**NUMBERS, "number": number / 7}) for number in range(50)]
    spooled(folder / "spool", *records, label(1, "r1", {"a": [1, None]}), label(2, "r2", None), event(1, value=0.1))
    written(url, folder / "spool")

    async def more(database: Database) -> None:
        await Keys(database).create("web", ["*:infer"], {"requests": 5})
        await releases.judge(database, "boats", "7", "gate", passed=True, evidence={"p": 0.5})

    in_store(url, more)


def backed_up(url: str, path: Path) -> Manifest:
    return in_store(url, lambda database: backup(database, path))


def restored(path: Path, to: str, since: str | None = None) -> Restored:
    async def run() -> Restored:
        async with Database(to) as database, Database(since or to) as others:
            return await restore(path, database, erasures_of=others if since else None)

    return asyncio.run(run())


@pytest.fixture
def elsewhere(tmp_path: Path, postgres: PostgreSQL) -> dict[str, str]:
    return {"sqlite": f"sqlite:///{tmp_path / 'other.db'}", "postgresql": postgres.new()}


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
def test_either_database_becomes_either(url: str, to: str, elsewhere: dict[str, str], tmp_path: Path) -> None:
    filled(url, tmp_path)
    manifest = backed_up(url, tmp_path / "store.zip")
    assert manifest.tables["predictions"].rows == 50 and (tmp_path / "store.zip").stat().st_mode & 0o777 == 0o600
    done = restored(tmp_path / "store.zip", elsewhere[to])
    assert done.manifest == manifest and done.erased == 0
    assert backed_up(elsewhere[to], tmp_path / "again.zip").tables == manifest.tables
    written(elsewhere[to], spooled(tmp_path / "spool", prediction("new"), prediction(1)))
    assert asked(elsewhere[to], "SELECT count(*) FROM predictions") == [(51,)], "and it goes on"


def test_it_is_of_one_moment_while_others_write(url: str, tmp_path: Path) -> None:
    filled(url, tmp_path)
    spooled(tmp_path / "spool", *(prediction(f"x{number}") for number in range(3000)))

    async def play(database: Database) -> Manifest:
        from store.writing.writer import Writer

        writer = Writer(database, tmp_path / "spool", batch=50)
        _, manifest = await asyncio.gather(
            writer.run(asyncio.Event(), once=True), backup(database, tmp_path / "store.zip")
        )
        return manifest

    manifest = in_store(url, play)
    assert 50 <= manifest.tables["predictions"].rows < 3050
    restored(tmp_path / "store.zip", f"sqlite:///{tmp_path / 'other.db'}")
    sums = asked(f"sqlite:///{tmp_path / 'other.db'}", "SELECT sum(requests) FROM usage")
    assert sums == [(manifest.tables["predictions"].rows,)], "rows and sums are of one transaction"


def test_a_backup_that_was_changed_or_cut_is_refused_and_the_database_stays_empty(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    filled(url, tmp_path)
    backed_up(url, tmp_path / "store.zip")
    good = (tmp_path / "store.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "store.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    lines = members["predictions.jsonl"].splitlines(keepends=True)
    changes = {
        "a row less": {"predictions.jsonl": b"".join(lines[1:])},
        "a row twice": {"predictions.jsonl": b"".join([*lines, lines[0]])},
        "another status": {
            "predictions.jsonl": members["predictions.jsonl"].replace(b'"status":200', b'"status":500', 1)
        },
        "no table": {"predictions.jsonl": None},
        "no row": {"predictions.jsonl": b"[]\n"},
        "no manifest": {"manifest.json": None},
        "another manifest": {"manifest.json": b'{"format": 1, "tables": []}'},
        "a later format": {"manifest.json": members["manifest.json"].replace(b'"format": 1', b'"format": 2')},
    }
    for what, change in changes.items():
        path = tmp_path / f"{what}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**members, **change}.items():
                if content is not None:
                    archive.writestr(name, content)
        with pytest.raises(BackupError):
            check(path)
        with pytest.raises(BackupError):
            restored(path, f"sqlite:///{tmp_path / 'other.db'}")
    for cut in (0, 10, len(good) // 2, len(good) - 1):
        (tmp_path / "cut.zip").write_bytes(good[:cut])
        with pytest.raises(BackupError):
            check(tmp_path / "cut.zip")
    assert check(tmp_path / "store.zip").rows > 50
    restored(tmp_path / "store.zip", f"sqlite:///{tmp_path / 'other.db'}")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    filled(url, tmp_path)
    backed_up(url, tmp_path / "store.zip")
    with pytest.raises(BackupError, match="is there already"):
        backed_up(url, tmp_path / "store.zip")
    with pytest.raises(BackupError, match="is not empty"):
        restored(tmp_path / "store.zip", url)
    with pytest.raises(BackupError, match="has no tables of the store"):
        asyncio.run(_backup_of_nothing(tmp_path))
    assert not list(tmp_path.glob(".*")), "no half of a file is left"


async def _backup_of_nothing(folder: Path) -> None:
    async with Database(f"sqlite:///{folder / 'nothing.db'}") as database:
        await backup(database, folder / "nothing.zip")


def test_what_was_erased_since_is_erased_again(url: str, elsewhere: dict[str, str], tmp_path: Path) -> None:
    filled(url, tmp_path)
    backed_up(url, tmp_path / "store.zip")

    async def erase(database: Database) -> None:
        payloads = Payloads(tmp_path / "spool", Folder(tmp_path / "payloads"))
        await erasure.erase(database, payloads, tmp_path / "spool", "request", "r1")

    in_store(url, erase)
    done = restored(tmp_path / "store.zip", elsewhere["sqlite"], since=url)
    assert done.erased == 2, "a prediction and its label"
    assert asked(elsewhere["sqlite"], "SELECT count(*) FROM predictions") == [(49,)]
    assert asked(elsewhere["sqlite"], "SELECT id FROM labels") == [("l2",)]


def test_a_database_that_lost_a_row_on_the_way_is_noticed(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    url, to = f"sqlite:///{tmp_path / 'store.db'}", elsewhere["postgresql"]
    filled(url, tmp_path)
    backed_up(url, tmp_path / "store.zip")
    asyncio.run(_prepared(to))
    changed(to, "CREATE FUNCTION lose() RETURNS trigger AS $$ BEGIN RETURN NULL; END $$ LANGUAGE plpgsql")
    changed(to, "CREATE TRIGGER lose BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION lose()")
    with pytest.raises(BackupError, match=r"the table events in postgresql.* is not what was backed up"):
        restored(tmp_path / "store.zip", to)


async def _prepared(url: str) -> None:
    async with Database(url) as database:
        await migrating.prepare(database)
