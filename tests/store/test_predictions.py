"""What is read of the store: pages that miss nothing, labels that hold, and how many statements it takes."""

import asyncio
from pathlib import Path

import pytest

from store import labels, predictions, releases, usage
from store.database import Database
from store.errors import UnknownError
from store.predictions import Wanted
from tests.store.given import event, label, prediction
from tests.store.records import in_store, spooled, statements, written


def filled(url: str, folder: Path, *records: dict[str, object]) -> None:
    assert written(url, spooled(folder / "spool", *records)).state.written == len(records)


def test_pages_have_everything_once_also_where_times_are_equal_and_more_comes(url: str, tmp_path: Path) -> None:
    filled(url, tmp_path, *(prediction(f"{number:02d}", time=number // 4) for number in range(25)))

    async def read(database: Database) -> list[str]:
        found, after = [], None
        while True:
            page = await predictions.page(database, Wanted(), after=after, limit=7)
            found += [row.id for row in page.rows]
            if (after := page.next) is None:
                return found
            async with database.writing() as connection:  # meanwhile
                await connection.exec_driver_sql(f"DELETE FROM predictions WHERE id = 'r{len(found) % 3:02d}'")

    found = in_store(url, read)
    assert found[:21] == [f"r{number:02d}" for number in reversed(range(4, 25))] and len(found) == len(set(found))


@pytest.mark.parametrize("count", [1, 50])
def test_a_page_with_labels_takes_two_statements_however_long_it_is(url: str, count: int, tmp_path: Path) -> None:
    records = [
        record
        for number in range(count)
        for record in (
            prediction(number),
            label(2 * number, f"r{number}", "a"),
            label(2 * number + 1, f"r{number}", "b"),
        )
    ]
    filled(url, tmp_path, *records)

    async def read(database: Database) -> tuple[int, int, int, int]:
        with statements(database) as page_heard:
            page = await predictions.page(database, Wanted(), limit=count)
        assert len(page.rows) == count and all(row.labels for row in page.rows)
        with statements(database) as story_heard:
            await predictions.story(database, "r0")
        with statements(database) as usage_heard:
            await usage.totals(database)
        with statements(database) as release_heard:
            await releases.of(database)
        return tuple(map(len, (page_heard, story_heard, usage_heard, release_heard)))  # type: ignore[return-value]

    assert in_store(url, read) == (2, 3, 1, 2)


def test_only_what_is_wanted_is_there(url: str, tmp_path: Path) -> None:
    filled(
        url, tmp_path, prediction(1, model="other"), prediction(2, key="mobile"), prediction(3, status=503),
        prediction(4, release="8", arm="canary"), prediction(5, time=10), prediction(6, time=20), label(1, "r6", 1),
    )  # fmt: skip

    async def read(database: Database, **wanted: object) -> set[str]:
        page = await predictions.page(database, Wanted(**wanted))  # type: ignore[arg-type]
        return {row.id for row in page.rows}

    for wanted, expected in (
        ({"model": "other"}, {"r1"}), ({"key": "mobile"}, {"r2"}), ({"failed": True}, {"r3"}),
        ({"release": "8", "arm": "canary"}, {"r4"}), ({"until": 20}, {"r5"}),
        ({"since": 10, "until": 21}, {"r5", "r6"}),
        ({"labelled": True}, {"r6"}), ({"labelled": False, "until": 100}, {"r5"}), ({"model": "' OR 1=1"}, set()),
    ):  # fmt: skip
        assert in_store(url, lambda database, wanted=wanted: read(database, **wanted)) == expected, wanted


@pytest.mark.parametrize("after", ["", "x", "1", "1-", f"{1 << 64}-r1"])
def test_what_is_no_place_is_an_error_in_words(after: str, url: str) -> None:
    with pytest.raises(UnknownError, match="is no place"):
        in_store(url, lambda database: predictions.page(database, Wanted(), after=after))


def test_the_newest_label_holds_in_whatever_order_they_come_and_history_keeps_all(url: str, tmp_path: Path) -> None:
    filled(
        url, tmp_path, label(1, "late", "corrected", time=20), label(2, "late", "first", time=10),
        label(3, "late", 0.5, name="score", time=5), label(4, "gone", "x", time=1), label(5, "gone", None, time=2),
        prediction("x", id="late"), prediction("y", id="gone"), label(6, "nobody", "z", time=3, received=4),
    )  # fmt: skip
    assert written(url, spooled(tmp_path / "spool", label(1, "late", "corrected", time=20))).state.duplicates == 1

    async def read(database: Database) -> None:
        held = {row.id: row.labels for row in (await predictions.page(database, Wanted())).rows}
        assert held == {"late": {"label": "corrected", "score": 0.5}, "gone": {}}
        assert [each.value for each in await labels.history(database, "late", "label")] == ["corrected", "first"]
        story = await predictions.story(database, "gone")
        assert story.prediction and not story.prediction.labels and len(story.labels) == 2
        count, [waiting] = await labels.unmatched(database, before=5)
        assert (count, waiting.request) == (1, "nobody")
        assert await labels.unmatched(database, before=4) == (0, [])
        assert (await predictions.story(database, "nobody")).prediction is None

    in_store(url, read)


def test_of_a_request_all_is_known_or_it_is_said_that_nothing_is(url: str, tmp_path: Path) -> None:
    filled(url, tmp_path, prediction(1), event(1, request="r1", value=2.0), event(2, request="r2"))

    async def read(database: Database) -> None:
        story = await predictions.story(database, "r1")
        assert [each.id for each in story.events] == ["e1"]
        with pytest.raises(UnknownError, match="nothing is known of the request 'r9'"):
            await predictions.story(database, "r9")

    in_store(url, read)


def test_usage_is_summed_as_asked(url: str, tmp_path: Path) -> None:
    day = 86_400_000_000_000
    filled(url, tmp_path, *(prediction(number, time=number // 2 * day, model="ab"[number % 2]) for number in range(8)))

    async def read(database: Database) -> None:
        assert [(each.day, each.requests, each.rows) for each in await usage.totals(database, by=["day"])] == [
            (f"1970-01-0{number}", 2, 4) for number in range(1, 5)
        ]
        [total] = await usage.totals(database, by=[], since="1970-01-02", until="1970-01-03")
        assert total.requests == 4 and total.key is None
        assert await usage.totals(database, by=[], key="nobody") == []

    in_store(url, read)


def test_releases_keep_their_verdicts(url: str) -> None:
    async def play(database: Database) -> None:
        await releases.note(database, "boats", "1", "sha256:a")
        await releases.note(database, "boats", "1", "another")
        await releases.note(database, "boats", "2")
        await releases.judge(database, "boats", "2", "canary", passed=False, against="1", evidence={"p": 0.01})
        await asyncio.sleep(0.01)
        await releases.judge(database, "boats", "2", "canary", passed=True)
        second, first = await releases.of(database, "boats")
        assert first.digest == "sha256:a" and not first.verdicts
        assert [each.passed for each in second.verdicts] == [True, False]
        assert await releases.of(database, "other") == []

    in_store(url, play)
