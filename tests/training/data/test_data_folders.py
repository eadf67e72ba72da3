"""A folder is replaced whole, or it is as it was: after an error, a kill, and beside another who replaces it."""

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import layout
from training.data.folders import filled, replaced


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    (made / "old").write_text("old")
    return made


def held(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_holds_what_was_written_and_nothing_of_before(folder: Path) -> None:
    with replaced(folder) as new:
        (new / "new").write_text("new")
        assert held(folder) == ["old"]
    assert held(folder) == ["new"]
    assert held(folder.parent) == [".data.lock", "data"]


def test_an_error_leaves_what_was_there(folder: Path) -> None:
    with pytest.raises(RuntimeError), replaced(folder) as new:
        (new / "new").write_text("new")
        raise RuntimeError
    assert held(folder) == ["old"]
    assert held(folder.parent) == [".data.lock", "data"]


@pytest.mark.parametrize("place", ["made.rename(folder)", "yield made"])
def test_what_is_killed_in_between_leaves_what_was_there_to_the_next(folder: Path, place: str, tmp_path: Path) -> None:
    """Killed before the new folder is complete, and between the two renames that put it in place."""
    source = (layout.ROOT / "training" / "data" / "folders.py").read_text()
    assert source.count(place) == 1
    killed = source.replace(place, f"__import__('os').kill(__import__('os').getpid(), 9); {place}")
    program = f"{killed}\nfrom pathlib import Path\nwith replaced(Path({str(folder)!r})) as new: (new / 'new').touch()"
    done = subprocess.run([sys.executable, "-c", program], cwd=layout.ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(RuntimeError), replaced(folder):
        assert held(folder) == ["old"]
        raise RuntimeError
    assert held(folder) == ["old"] and held(folder.parent) == [".data.lock", "data"]


def _replace(folder: Path, name: str) -> None:
    for _ in range(20):
        with replaced(folder) as new:
            (new / name).write_text(name)
            (new / f"{name}-too").write_text(name)


def test_two_who_replace_it_wait_for_each_other(folder: Path) -> None:
    others = [multiprocessing.get_context("fork").Process(target=_replace, args=(folder, name)) for name in "ab"]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0]
    assert held(folder) in (["a", "a-too"], ["b", "b-too"])


def test_files_are_put_beside_those_that_are_there_or_none_is(folder: Path) -> None:
    (folder.parent / ".data.made-killed").mkdir()
    with pytest.raises(RuntimeError), filled(folder) as new:
        (new / "new").touch()
        raise RuntimeError
    assert held(folder) == ["old"] and held(folder.parent) == [".data.lock", "data"]
    with filled(folder) as new:
        (new / "new").touch()
    assert held(folder) == ["new", "old"] and held(folder.parent) == [".data.lock", "data"]
