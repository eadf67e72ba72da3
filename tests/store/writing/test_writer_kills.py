"""Whoever is killed at whatever moment, there is one record for each answer, and one is counted for each."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from contracts import layout
from store.spool import segments
from store.writing import state
from tests.conftest import wait_for
from tests.store.databases import PostgreSQL, postgresql
from tests.store.records import asked, written

ANSWERING = 3  # processes


class Site:
    """Processes that answer and one that writes, each of which is started again when it was killed."""

    def __init__(self, folder: Path, url: str, pause_s: float, *count: float) -> None:
        self.spool, self.answers, self.url = folder / "spool", folder / "answers", url
        self.options = (pause_s, *count)
        self.kills = 0
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for role in ("writer", *(f"a{number}" for number in range(ANSWERING))):
            self.start(role)

    def start(self, role: str) -> None:
        command = ["store", "write", "--batch", "200", "--spool", self.spool, "--store", self.url]
        if role != "writer":
            name = f"{role}x{self.kills}"
            command = ["tests.store.answering", self.spool, self.answers, name, *self.options]
        words = [sys.executable, "-m", *map(str, command)]
        self.running[role] = subprocess.Popen(words, cwd=layout.ROOT, stderr=subprocess.DEVNULL)

    def kill(self, role: str) -> None:
        process = self.running[role]
        if role == "writer":
            wait_for(lambda: state.read(self.spool).pid == process.pid, 60)  # it is at work
        assert process.poll() is None, f"{role} ended by itself"
        process.kill()
        process.wait()
        self.kills += 1
        self.start(role)

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def answered(self) -> list[str]:
        return self.answers.read_text().split()

    def progress(self) -> int:
        """How many records are written, as the writer says."""
        return state.read(self.spool).written


@contextmanager
def site(folder: Path, url: str, *options: float) -> Iterator[Site]:
    """A site where each process pauses for so long after an answer, and ends after so many, without end by default."""
    up = Site(folder, url, *options)
    try:
        wait_for(up.answers.exists, 60)
        yield up
    finally:
        up.end()


def hold(up: Site) -> None:
    """Records are answers: to the row, but for the one each process may have been killed in the middle of."""
    written(up.url, up.spool)
    assert not list(segments(up.spool)), "all of it is written"
    answered = up.answered()
    recorded = {row[0] for row in asked(up.url, "SELECT id FROM predictions")}
    assert len(answered) == len(set(answered)) > 1000
    assert not set(answered) - recorded, "nothing is lost"
    assert len(recorded - set(answered)) <= up.kills + ANSWERING
    counted = asked(up.url, "SELECT sum(requests), sum(rows) FROM usage")
    assert counted == [(len(recorded), 2 * len(recorded))], "nothing is counted twice"
    assert (up_state := state.read(up.spool)).duplicates == 0 and up_state.damaged <= up.kills + ANSWERING


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_with_sqlite(seconds: float, tmp_path: Path) -> None:
    dice = random.Random(seconds)
    with site(tmp_path, f"sqlite:///{tmp_path / 'store.db'}", 0.001) as up:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(dice.uniform(0.1, 1.0))
            up.kill(dice.choice(["writer", "writer", "a0", "a1", "a2"]))
    hold(up)


@pytest.mark.parametrize("seconds", [3, pytest.param(90, marks=pytest.mark.slow)])
def test_with_postgresql(seconds: float, tmp_path: Path) -> None:
    dice = random.Random(seconds)
    with postgresql() as server, site(tmp_path, server.new(), 0.001) as up:
        try:
            database_at = time.monotonic() + 1
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(dice.uniform(0.1, 1.0))
                up.kill(dice.choice(["writer", "a0", "a1"]))
                if time.monotonic() > database_at:
                    killed(server, dice.uniform(0.1, 2.0))
                    database_at = time.monotonic() + dice.uniform(2, 6)
        finally:
            up.end()
        hold(up)


@pytest.mark.slow
def test_a_million(tmp_path: Path) -> None:
    """The database is killed three times; the writer's memory stays what it is."""
    each = 1_000_000 // ANSWERING + 1
    with postgresql() as server, site(tmp_path, server.new(), 0.0003, each) as up:
        writer, sizes = psutil.Process(up.running["writer"].pid), []
        for part in range(1, 10):
            wait_for(lambda part=part: up.progress() > part * each * ANSWERING // 10, 600)
            sizes.append(writer.memory_info().rss)
            if part in (3, 5, 7):
                killed(server, 3)
        for role in set(up.running) - {"writer"}:
            assert up.running[role].wait(600) == 0
        up.end()
        hold(up)
        assert len(up.answered()) == each * ANSWERING
        assert max(sizes) - sizes[0] < 20 << 20, sizes


def killed(server: PostgreSQL, away_s: float) -> None:
    server.kill()
    time.sleep(away_s)
    server.start()
