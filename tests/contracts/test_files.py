"""Locks and files that appear whole, in a folder in which somebody has prepared what we would stumble over."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from contracts import layout, repository
from contracts.files import locks, whole
from deploy.served import held
from deploy.triton import environment, settings, state
from deploy.triton.state import Process, Running

VALUABLE = "what an attacker may not write and we may"
Lock = Callable[[Path], AbstractContextManager[object]]


def in_artifacts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "server").mkdir(0o755)
    monkeypatch.setattr(layout, "artifacts", lambda: folder)


@pytest.fixture
def valuable(tmp_path: Path) -> Path:
    file = tmp_path / "valuable"
    file.write_text(VALUABLE)
    return file


@pytest.mark.parametrize("name", ["publish", "up", "served", "environment"])
def test_a_lock_follows_no_link_and_truncates_nothing(
    tmp_path: Path, valuable: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_artifacts(tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "HOME", tmp_path / "home")

    def hold() -> None:
        if name == "served":
            held.make(tmp_path, "*.none")
            return
        lock = {"publish": lambda: repository.locked(tmp_path), "up": state.locked, "environment": environment._alone}
        with lock[name]():
            pass

    places = {"publish": ".publish.lock", "up": "server/up.lock", "served": ".lock", "environment": "home.lock"}
    place = tmp_path / places[name]
    place.symlink_to(valuable)
    with pytest.raises(OSError, match="symbolic link"):
        hold()
    assert valuable.read_text() == VALUABLE
    place.unlink()
    place.hardlink_to(valuable)
    hold()
    assert valuable.read_text() == VALUABLE
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(OSError, match="no plain file"):
        hold()
    place.unlink()
    hold()
    assert place.stat().st_mode & 0o007 == 0, "who may open it may hold it for ever"


def test_a_lock_is_waited_for_and_comes_back_when_its_process_is_killed(tmp_path: Path) -> None:
    code = f"""
import pathlib, sys, time
from contracts.files import locks
with locks.locked(pathlib.Path({str(tmp_path / "lock")!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=layout.ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        mine = subprocess.Popen([sys.executable, "-c", code], cwd=layout.ROOT, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            mine.wait(0.5)
        process.kill()
    with mine:
        assert mine.stdout is not None and mine.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), locks.locked(tmp_path / "lock", wait=False):
            raise AssertionError("two have it")
        mine.kill()
    with locks.locked(tmp_path / "lock"):
        pass


def test_what_is_written_follows_no_link_that_was_prepared(
    tmp_path: Path, valuable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not under the name that an earlier version would have used, which has the process's number."""
    in_artifacts(tmp_path, monkeypatch)
    server = tmp_path / "server"
    for name in ("server.json", f"server.json.{os.getpid()}", f"admin.key.{os.getpid()}"):
        (server / name).symlink_to(valuable)
    me = Process.of(os.getpid())
    state.record(Running(me, me, "ready", "127.0.0.1", 1, 2, 3, "models", "served", None, "", 1))
    monkeypatch.delenv("ADMIN_KEY", raising=False)
    assert settings.admin_key(None) != VALUABLE
    assert valuable.read_text() == VALUABLE
    assert (found := state.recorded()) is not None and found.http_port == 1
    assert not [path for path in server.iterdir() if path.name.startswith(".")], "nothing is left behind"


def test_what_fails_halfway_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        whole.write(file, "\ud800")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_nobody_can_prepare_the_folder_that_a_version_is_filled_in(tmp_path: Path, valuable: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    model = tmp_path / "model"
    model.mkdir()
    (model / ".staging-1").symlink_to(stranger)
    names = set()
    for _ in range(2):
        with repository.new_version(model) as staged:
            names.add(staged.directory.name.rpartition("-")[2])
            (staged.directory / "model.onnx").write_text("graph")
    assert repository.versions(model) == [1, 2]
    assert not list(stranger.iterdir())
    assert len(names) == 2 and all(len(name) == 16 for name in names)
