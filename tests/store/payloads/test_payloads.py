"""Whole inputs of a sample: chosen alike by everybody, kept without a wait, brought to a folder or to S3."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from store.database import Database
from store.errors import PayloadError
from store.payloads.moving import Payloads
from store.payloads.places import Bucket, Folder, Place, place_of
from store.payloads.samples import Samples, files
from store.writing.writer import Writer
from tests import object_store
from tests.object_store import BUCKET, KEY, ObjectStore
from tests.store.given import prediction
from tests.store.records import asked, in_store, spooled

NOW = time.time_ns()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store.running(tmp_path_factory.mktemp("s3")) as store:
        yield store
        for process in psutil.Process().children():
            if process.name() == "weed":  # which takes ten seconds to end by itself
                process.kill()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        return place_of(str(tmp_path / "payloads"))
    store: ObjectStore = request.getfixturevalue("s3")
    for name, value in {**KEY, "AWS_ENDPOINT_URL": store.address, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    return place_of(f"s3://{BUCKET}/{tmp_path.name}")


def test_the_sample_is_the_share_that_was_asked_for_and_the_same_everywhere(tmp_path: Path) -> None:
    one, other = Samples(tmp_path, 0.1, {"faces": 0, "tiny": 1}), Samples(tmp_path, 0.1)
    chosen = [name for name in map(str, range(20_000)) if one.chosen("boats", name)]
    assert 1700 < len(chosen) < 2300
    assert all(other.chosen("boats", name) for name in chosen)
    assert not any(one.chosen("faces", name) for name in chosen) and one.chosen("tiny", "7")
    assert not any(Samples(tmp_path).chosen("boats", name) for name in chosen), "off by default"


def test_they_come_to_their_place_and_are_read_from_wherever_they_are(place: Place, tmp_path: Path) -> None:
    samples, payloads = Samples(tmp_path / "spool", 1), Payloads(tmp_path / "spool", place)
    content = bytes(range(256)) * 100

    async def play() -> None:
        names = [samples.keep("boats", f"r{number}", NOW, content) for number in range(3)]
        assert all(names) and samples.kept == 3
        assert await payloads.read(str(names[0])) == content, "it waits"
        assert await payloads.move() == 3 and await payloads.move() == 0
        assert not list(files(tmp_path / "spool" / "payloads"))
        assert await payloads.read(str(names[0])) == content
        assert sorted(place.names()) == sorted(map(str, names))
        assert await payloads.before("2020-01-01") == [] and len(await payloads.before("2999-01-01")) == 3
        assert await payloads.remove([str(names[0]), "../../etc/passwd", "never/2026-01-01/there"]) == 2
        with pytest.raises(PayloadError, match="there are no inputs"):
            await payloads.read(str(names[0]))

    asyncio.run(play())


@pytest.mark.parametrize(("model", "name"), [("../x", "r1"), ("boats", "../r1"), ("boats", ""), ("a b", "r1")])
def test_no_name_leads_out_of_the_folder(model: str, name: str, tmp_path: Path) -> None:
    samples = Samples(tmp_path / "spool", 1)
    assert samples.keep(model, name, NOW, b"x") is None and samples.lost == 1
    assert not list(files(tmp_path))


def test_a_full_disk_or_spool_costs_the_sample_and_no_request(tmp_path: Path) -> None:
    small = Samples(tmp_path / "spool", 1, limit_bytes=1000)
    assert small.keep("boats", "r1", NOW, b"x" * 600) and not small.keep("boats", "r2", NOW, b"x" * 600)
    full = Samples(tmp_path / "other", 1, free_bytes=1 << 60)
    assert not full.keep("boats", "r1", NOW, b"x") and (small.lost, full.lost) == (1, 1)
    (tmp_path / "file").touch()
    assert not Samples(tmp_path / "file", 1).keep("boats", "r1", NOW, b"x")


def test_a_place_that_is_gone_holds_up_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "payloads").touch()  # where the folder should be
    samples = Samples(tmp_path / "spool", 1)
    name = samples.keep("boats", "r1", NOW, b"inputs")
    spooled(tmp_path / "spool", prediction(1, payload=name))
    url, said = f"sqlite:///{tmp_path / 'store.db'}", list[str]()

    async def play(database: Database) -> None:
        payloads = Payloads(tmp_path / "spool", Folder(tmp_path / "payloads"))
        writer = Writer(database, tmp_path / "spool", payloads=payloads, say=said.append)
        await writer.run(asyncio.Event(), once=True)
        assert writer.state.written == 1 and "cannot be reached" in writer.state.payloads_waiting and len(said) == 1
        (tmp_path / "payloads").unlink()
        await Writer(database, tmp_path / "spool", payloads=payloads).run(asyncio.Event(), once=True)
        assert await payloads.read(str(name)) == b"inputs"

    in_store(url, play)
    assert asked(url, "SELECT payload FROM predictions") == [(name,)]
    assert (tmp_path / "payloads" / str(name)).read_bytes() == b"inputs"


def test_inputs_that_are_erased_on_their_way_do_not_arrive(tmp_path: Path) -> None:
    samples = Samples(tmp_path / "spool", 1)
    assert samples.keep("boats", "r1", NOW, b"inputs")

    class Slow(Folder):
        def write(self, name: str, content: bytes) -> None:
            super().write(name, content)
            asyncio.run(Payloads(tmp_path / "spool", self).remove([name]))  # somebody erases them at this moment
            super().write(name, content)

    asyncio.run(Payloads(tmp_path / "spool", Slow(tmp_path / "payloads")).move())
    assert not list(files(tmp_path))


def test_an_s3_that_does_not_let_us_in_is_an_error_in_words(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = {**KEY, "AWS_SECRET_ACCESS_KEY": "wrong", "AWS_ENDPOINT_URL": s3.address, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    Samples(tmp_path, 1).keep("boats", "r1", NOW, b"x")
    with pytest.raises(PayloadError, match=r"cannot be reached.*SignatureDoesNotMatch"):
        asyncio.run(Payloads(tmp_path, Bucket(BUCKET, "x")).move())
    assert len(list(files(tmp_path))) == 1, "it waits"


def test_what_is_no_place_is_refused_in_words() -> None:
    for wrong in ("s3://", "gs://bucket", "file://relative"):
        with pytest.raises(PayloadError, match="is no place for inputs"):
            place_of(wrong)
