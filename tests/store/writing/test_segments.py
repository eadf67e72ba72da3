"""What is read of a segment, whatever was done to it: all whole records, and nothing else."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest

from store.spool import MOST_BYTES, Spool, segments
from store.writing.segments import read


def filled(folder: Path, count: int, **other: object) -> tuple[Spool, Path]:
    spool = Spool(folder)
    for number in range(count):
        spool.put({"id": number, **other})
    return spool, next(segments(folder))


def ids(path: Path, begin: int = 0, most: int = 10**6) -> list[int]:
    """All of a segment that nobody appends to."""
    found: list[int] = []
    while True:
        stretch = read(path, begin, most)
        found += [msgpack.unpackb(each.content)["id"] for each in stretch.records]
        if stretch.finished:
            return found
        assert stretch.end > begin, "it goes on"
        begin = stretch.end


def test_a_segment_is_finished_when_nobody_appends_to_it_and_all_was_read(tmp_path: Path) -> None:
    spool, path = filled(tmp_path, 10)
    first = read(path, 0, 4)
    assert len(first.records) == 4 and not first.finished
    rest = read(path, first.end, 100)
    assert len(rest.records) == 6 and rest.end == path.stat().st_size and not rest.finished, "it is still held"
    spool.close()
    assert read(path, rest.end, 100).finished


def test_half_a_record_is_waited_for_while_somebody_writes_and_passed_over_when_nobody_does(tmp_path: Path) -> None:
    spool, path = filled(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-1])
    stretch = read(path, 0, 100)
    assert (len(stretch.records), stretch.damaged, stretch.finished) == (2, 0, False)
    spool.close()
    stretch = read(path, 0, 100)
    assert (len(stretch.records), stretch.damaged, stretch.finished) == (2, 1, True)


def test_a_record_that_is_read_as_it_is_written_is_whole_or_waited_for(tmp_path: Path) -> None:
    """A file grows a page at a time: who reads meanwhile sees a part of a record."""
    spool, count = Spool(tmp_path, segment_bytes=1 << 30), 600
    spool.put({"id": 0})

    def write() -> None:
        for number in range(1, count):
            spool.put({"id": number, "text": "x" * 200_000})
        spool.close()

    [path], begin, found, damaged, finished = segments(tmp_path), 0, 0, 0, False
    with ThreadPoolExecutor(1) as other:
        writing = other.submit(write)
        while not finished:
            stretch = read(path, begin, 10**6)
            begin, finished = stretch.end, stretch.finished
            found, damaged = found + len(stretch.records), damaged + stretch.damaged
    assert not writing.result() and not spool.lost
    path.unlink()  # 120 MB
    assert (found, damaged) == (count, 0)


@pytest.mark.parametrize("held", [True, False])
def test_a_damaged_record_costs_none_but_itself(held: bool, tmp_path: Path) -> None:
    spool, path = filled(tmp_path, 200, text="x" * 50)
    content = bytearray(path.read_bytes())
    size = len(content) // 200
    content[100 * size + 5] ^= 0xFF  # its length
    content[150 * size + 30] ^= 0xFF  # in the middle of it
    path.write_bytes(content)
    if not held:
        spool.close()
    stretch = read(path, 0, 1000)
    assert len(stretch.records) == 198 and stretch.damaged == 2 and stretch.finished is not held


def test_whatever_a_bad_disk_does_it_ends_and_reads_no_record_that_was_not_written(tmp_path: Path) -> None:
    spool, path = filled(tmp_path, 50, text="y" * 40)
    spool.close()
    good, dice = path.read_bytes(), random.Random(7)
    for _ in range(200):
        bad = bytearray(good)
        for _ in range(dice.randrange(1, 20)):
            at = dice.randrange(len(bad))
            bad[at : at + dice.randrange(9)] = dice.randbytes(dice.randrange(9))
        path.write_bytes(bad)
        found = ids(path)
        assert found == sorted(set(found)) and set(found) <= set(range(50))


def test_large_records_are_read_stretch_by_stretch(tmp_path: Path) -> None:
    spool, path = filled(tmp_path, 15, inputs=b"z" * (MOST_BYTES - 100))
    spool.close()
    assert ids(path) == list(range(15))


def test_a_summary_that_is_too_large_is_left_out_and_its_record_is_kept(tmp_path: Path) -> None:
    spool, path = filled(tmp_path, 1, inputs="w" * MOST_BYTES)
    [record] = read(path, 0, 1).records
    assert msgpack.unpackb(record.content) == {"id": 0, "inputs": None, "outputs": None, "cut": True}
    spool.put({"id": 1, "key": "w" * MOST_BYTES})
    assert spool.lost == 1
