"""What a step made is used again for the same inputs, whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import layout
from export.cache import Cache
from tests.conftest import wait_for

# Makes the step in the folder that it is given: a half first, the rest when the other file is there.
PROGRAM = """
import sys, time
from pathlib import Path
from export.cache import Cache

folder, started, go_on = map(Path, sys.argv[1:])

def make(place):
    (place / "graph").write_text("half")
    started.touch()
    while not go_on.exists():
        time.sleep(0.01)
    (place / "graph").write_text("whole")

place, cached = Cache(folder, {}).step("fp32", make, source="abc")
print((place / "graph").read_text(), cached)
"""


@pytest.fixture
def made() -> list[Path]:
    """Where `make` was called."""
    return []


@pytest.fixture
def make(made: list[Path]) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        made.append(place)
        (place / "graph").write_text(f"number {len(made)}")

    return write


def test_the_same_inputs_are_not_made_again(tmp_path: Path, make: Callable[[Path], None], made: list[Path]) -> None:
    place, cached = Cache(tmp_path, {"torch": "2"}).step("fp32", make, source="abc", batch=8)
    assert not cached
    assert Cache(tmp_path, {"torch": "2"}).step("fp32", make, batch=8, source="abc") == (place, True)
    assert (place / "graph").read_text() == "number 1" and len(made) == 1


@pytest.mark.parametrize(
    ("tools", "name", "inputs"),
    [
        ({"torch": "3"}, "fp32", {"source": "abc"}),
        ({"torch": "2"}, "fp16", {"source": "abc"}),
        ({"torch": "2"}, "fp32", {"source": "abd"}),
        ({"torch": "2"}, "fp32", {"source": "abc", "batch": 8}),
    ],
    ids=["another tool", "another step", "another input", "one more input"],
)
def test_whatever_else_differs_is_made_and_leaves_the_first_alone(
    tmp_path: Path, make: Callable[[Path], None], tools: dict[str, str], name: str, inputs: dict[str, object]
) -> None:
    first, _ = Cache(tmp_path, {"torch": "2"}).step("fp32", make, source="abc")
    place, cached = Cache(tmp_path, tools).step(name, make, **inputs)
    assert (place / "graph").read_text() == "number 2" and not cached
    assert (first / "graph").read_text() == "number 1"


def test_force_makes_every_step_anew_but_once(tmp_path: Path, make: Callable[[Path], None], made: list[Path]) -> None:
    Cache(tmp_path, {}).step("fp32", make, source="abc")
    forced = Cache(tmp_path, {}, force=True)
    assert [forced.step("fp32", make, source="abc")[1] for _ in range(2)] == [False, True]
    assert len(made) == 2


def test_a_step_that_fails_leaves_nothing(tmp_path: Path, make: Callable[[Path], None]) -> None:
    def fail(place: Path) -> None:
        make(place)
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        Cache(tmp_path, {}).step("fp32", fail, source="abc")
    assert not list(tmp_path.iterdir())
    assert not Cache(tmp_path, {}).step("fp32", make, source="abc")[1]


def start(folder: Path, started: Path, go_on: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, folder, started, go_on]
    process = subprocess.Popen(command, cwd=layout.ROOT, stdout=subprocess.PIPE, text=True)
    wait_for(started.exists)
    return process


def test_a_killed_export_leaves_no_step_that_is_taken_for_whole(tmp_path: Path, make: Callable[[Path], None]) -> None:
    with start(tmp_path / "cache", tmp_path / "started", tmp_path / "never") as killed:
        killed.send_signal(signal.SIGKILL)
    place, cached = Cache(tmp_path / "cache", {}).step("fp32", make, source="abc")
    assert not cached and (place / "graph").read_text() == "number 1"


def test_two_exports_at_once_both_get_a_whole_step(tmp_path: Path) -> None:
    both = [start(tmp_path / "cache", tmp_path / f"started-{i}", tmp_path / "go on") for i in range(2)]
    (tmp_path / "go on").touch()
    assert [process.communicate(timeout=30)[0] for process in both] == ["whole False\n"] * 2
    [place] = (tmp_path / "cache").iterdir()
    assert (place / "graph").read_text() == "whole"


def test_what_no_export_has_used_for_two_weeks_is_removed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    cache = Cache(tmp_path, {})
    old, used = (cache.step("fp32", make, source=source)[0] for source in ("old", "used"))
    new, _ = cache.step("fp32", make, source="new")
    abandoned = tmp_path / ".fp32-0123.99"  # by an export that was killed
    abandoned.mkdir()
    for place in (old, used, abandoned):
        os.utime(place, (time.time() - 15 * 86400,) * 2)
    cache.step("fp32", make, source="used")
    cache.prune()
    assert set(tmp_path.iterdir()) == {used, new}
