"""The spool: quick, never in the way, and what it has taken is there, whatever becomes of its process."""

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts import layout
from store.spool import Spool, segments
from store.writing.segments import read

RECORD = {
    "kind": "prediction", "id": "a" * 32, "time": 1, "door": "raw", "key": "deadbeef", "model": "boats",
    "release": "7", "arm": "main", "rows": 1, "latency_ms": 3.2, "triton_ms": 2.2, "status": 200,
    "inputs": {"image": {"shape": [1, 28, 28], "bytes": 784}}, "outputs": {"label": "shoe", "score": 0.9},
    "payload": None,
}  # fmt: skip


def test_a_record_costs_some_microseconds(tmp_path: Path) -> None:
    spool, took = Spool(tmp_path), []
    for _ in range(5_000):
        started = time.thread_time_ns()
        spool.put(RECORD)
        took.append(time.thread_time_ns() - started)
    assert spool.written == 5_000 and not spool.lost
    assert statistics.median(took) < 15_000, "nanoseconds of CPU"


def test_it_knows_nothing_of_the_database() -> None:
    program = "import sys, store.spool; assert not {'sqlalchemy', 'alembic', 'asyncpg'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=layout.ROOT, check=True)


@pytest.mark.parametrize("record", [{"id": object()}, {"id": 1 << 70}, None])
def test_what_is_no_record_is_counted_and_raises_nothing(record: object, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(record)  # type: ignore[arg-type]  # that is the point
    assert (spool.written, spool.lost) == (0, 1) and spool.last_error


def test_a_folder_that_cannot_be_made_costs_records_and_no_request(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file" / "spool")
    for _ in range(3):
        spool.put(RECORD)
    assert spool.lost == 3 and "Not a directory" in spool.last_error


def test_a_full_spool_is_counted_and_takes_again_what_it_has_room_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=4_000, limit_bytes=8_000)
    for _ in range(40):
        spool.put(RECORD)
    assert spool.written < 40 and spool.lost == 40 - spool.written and "the spool is full" in spool.last_error
    for path in segments(tmp_path):
        path.unlink()  # it was written
    spool._look_at = 0  # a second later
    before = spool.written
    spool.put(RECORD)
    assert spool.written == before + 1


def test_a_disk_that_is_full_in_the_middle_of_a_record_leaves_no_half_of_it(tmp_path: Path) -> None:
    """The limit of a file's size does what a full disk does: a part is written."""
    program = (
        "import resource, signal, sys; from pathlib import Path; from store.spool import Spool\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "s = Spool(Path(sys.argv[1]))\n"
        "for _ in range(9): s.put({'id': 'x' * 190})\n"
        "print(s.written, s.lost, s.last_error, s._size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=layout.ROOT, capture_output=True, text=True, check=True
    )
    written, lost, *told, size = done.stdout.split()
    assert (int(written), int(lost)) == (4, 5) and told
    [segment] = segments(tmp_path)
    assert segment.stat().st_size == int(size)


def test_a_segment_that_somebody_removed_is_noticed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(RECORD)
    next(segments(tmp_path)).unlink()
    spool._look_at = 0  # a second later
    spool.put(RECORD)
    assert len(list(segments(tmp_path))) == 1


def test_a_fork_has_a_segment_of_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(RECORD)
    child = os.fork()
    if not child:
        spool.put(RECORD)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    spool.put(RECORD)
    sizes = [path.stat().st_size for path in segments(tmp_path)]
    assert len(sizes) == 2 and sizes[0] == 2 * sizes[1]


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.put(RECORD)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert next(segments(tmp_path / "spool")).stat().st_mode & 0o777 == 0o600


def test_a_segment_ends_by_its_age_also_where_nothing_comes(tmp_path: Path) -> None:
    spool, day = Spool(tmp_path), Spool(tmp_path / "old", segment_s=-1)
    for each in (spool, day):
        each.put({"a": 1})
        each._look_at = 0  # a second later
        each.put({"a": 2})
    assert len(list(segments(tmp_path))) == 1 and len(list(segments(tmp_path / "old"))) == 2
    for each in (spool, day):
        each.rest()
    finished = [[read(path, 0, 9).finished for path in segments(each.folder)] for each in (spool, day)]
    assert finished == [[False], [True, True]], "which nobody holds any more"
