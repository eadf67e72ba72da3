"""A version appears whole or not at all."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from contracts import layout, repository
from contracts.errors import PublishError


def publish(model: Path, content: str = "weights") -> int:
    with repository.new_version(model) as staged:
        (staged.directory / "model.onnx").write_text(content)
        (staged.directory / "manifest.json").write_text("{}")
    return staged.version


def in_another_process(
    model: Path, body: str, preamble: str = "", block: str = "repository.new_version(model) as staged"
) -> "subprocess.Popen[str]":
    program = f"""
import resource, sys, time
from pathlib import Path
from contracts import repository
{preamble}
model = Path({str(model)!r})
with {block}:
{textwrap.indent(textwrap.dedent(body), "    ")}
"""
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=layout.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_versions_only_grow(tmp_path: Path) -> None:
    assert repository.versions(tmp_path) == []
    assert [publish(tmp_path), publish(tmp_path)] == [1, 2]
    (tmp_path / "10").mkdir()
    assert publish(tmp_path) == 11
    assert repository.versions(tmp_path) == [1, 2, 10, 11]


def seen_by_a_server(model: Path) -> list[int]:
    return sorted(int(path.name) for path in model.iterdir() if path.name.isdecimal())


def test_a_parked_version_is_no_longer_seen_and_its_number_is_not_given_again(tmp_path: Path) -> None:
    publish(tmp_path), publish(tmp_path, "second")
    with repository.locked(tmp_path):
        repository.park(tmp_path, 2)
    assert (repository.versions(tmp_path), repository.parked(tmp_path)) == ([1], [2])
    assert publish(tmp_path) == 3
    with repository.locked(tmp_path):
        repository.restore(tmp_path, 2)
    assert (repository.versions(tmp_path), repository.parked(tmp_path)) == ([1, 2, 3], [])
    assert (repository.directory(tmp_path, 2) / "model.onnx").read_text() == "second"


def test_a_version_that_proved_itself_is_the_newest_for_good(tmp_path: Path) -> None:
    for _ in range(4):
        publish(tmp_path)
    with repository.locked(tmp_path):
        repository.park(tmp_path, 3)
        repository.make_newest(tmp_path, 3)
        assert (repository.versions(tmp_path), repository.parked(tmp_path)) == ([1, 2, 3], [4])
        repository.make_newest(tmp_path, 1)
        assert (repository.versions(tmp_path), repository.parked(tmp_path)) == ([1], [2, 3, 4])
    assert seen_by_a_server(tmp_path) == [1]


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("version", [1, 2])
def test_where_that_does_not_go_nothing_changes(
    tmp_path: Path, version: int, error: type[BaseException], at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        publish(tmp_path)
    with repository.locked(tmp_path):
        repository.park(tmp_path, 2)
        moves = interrupted(monkeypatch, at, error)
        with pytest.raises(error):
            repository.make_newest(tmp_path, version)
    assert len(moves) > at
    assert (repository.versions(tmp_path), repository.parked(tmp_path)) == ([1, 3, 4], [2])
    assert seen_by_a_server(tmp_path) == [1, 3, 4]


@pytest.mark.parametrize(("version", "before"), [(1, 4), (2, 4), (3, 4), (5, 4)])
def test_killed_at_any_moment_the_newest_is_the_one_asked_for_or_the_one_before(
    tmp_path: Path, version: int, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest: list[int] = []
    for _ in range(5):
        publish(tmp_path)
    with repository.locked(tmp_path):
        for parked in (2, 5):
            repository.park(tmp_path, parked)
        move = repository._move

        def seen(source: Path, target: Path) -> None:
            move(source, target)
            newest.append(seen_by_a_server(tmp_path)[-1])

        monkeypatch.setattr(repository, "_move", seen)
        repository.make_newest(tmp_path, version)
    assert set(newest) <= {before, version} and newest[-1] == version


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int, error: type[BaseException]) -> list[Path]:
    """Have a rename fail, the first being 0; the list of those that were asked for."""
    move, moves = repository._move, list[Path]()

    def fails_once(source: Path, target: Path) -> None:
        moves.append(source)
        if len(moves) == at + 1:
            raise error
        move(source, target)

    monkeypatch.setattr(repository, "_move", fails_once)
    return moves


def test_links_that_a_command_of_before_left_behind_are_removed(tmp_path: Path) -> None:
    publish(tmp_path), publish(tmp_path, "never proven")
    with repository.locked(tmp_path):
        repository.park(tmp_path, 2)
    (tmp_path / "2").symlink_to(".parked-2")
    assert (repository.versions(tmp_path), repository.parked(tmp_path)) == ([1], [2])
    repository.remove_stale_links(tmp_path)
    assert seen_by_a_server(tmp_path) == [1]


def test_a_version_that_somebody_keeps_elsewhere_is_a_version(tmp_path: Path) -> None:
    model, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    model.mkdir(), elsewhere.mkdir()
    (model / "7").symlink_to(elsewhere)
    repository.remove_stale_links(model)
    assert repository.versions(model) == [7]
    assert publish(model) == 8


def test_an_error_while_filling_publishes_nothing(tmp_path: Path) -> None:
    publish(tmp_path, "first")
    with pytest.raises(ZeroDivisionError), repository.new_version(tmp_path) as staged:
        (staged.directory / "model.onnx").write_text("half")
        raise ZeroDivisionError
    assert repository.versions(tmp_path) == [1]
    assert not list(tmp_path.glob(".staging-*"))
    assert (tmp_path / "1" / "model.onnx").read_text() == "first"


def test_a_killed_publisher_leaves_nothing_a_reader_sees_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    publish(tmp_path, "first")
    body = """
    (staged.directory / "model.onnx").write_text("half")
    print("filling", flush=True)
    time.sleep(60)
    """
    with in_another_process(tmp_path, body) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "filling\n"
        victim.send_signal(signal.SIGKILL)
    assert repository.versions(tmp_path) == [1]
    assert list(tmp_path.glob(".staging-*")), "the kill came too late to test anything"
    assert publish(tmp_path) == 2
    assert not list(tmp_path.glob(".staging-*"))


def test_a_write_that_the_disk_refuses_publishes_nothing_and_says_so(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow, as it does on a full disk."""
    publish(tmp_path, "first")
    preamble = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    with in_another_process(
        tmp_path, '(staged.directory / "model.onnx").write_bytes(bytes(1_000_000))', preamble
    ) as child:
        _, stderr = child.communicate(timeout=60)
    assert child.returncode != 0
    assert "PublishError: could not publish" in stderr
    assert "nothing was published" in stderr
    assert repository.versions(tmp_path) == [1]
    assert not list(tmp_path.glob(".staging-*"))


def test_a_model_directory_that_is_not_there_is_a_publish_error(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="nothing was published"):
        publish(tmp_path / "no" / "such" / "model")


def test_readers_never_see_a_partial_version(tmp_path: Path) -> None:
    partial: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for version in repository.versions(tmp_path):
                if {p.name for p in (tmp_path / str(version)).iterdir()} != {"model.onnx", "manifest.json"}:
                    partial.append(version)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        publish(tmp_path)
    done.set()
    reader.join()
    assert not partial


def test_two_publishers_at_once_get_two_versions(tmp_path: Path) -> None:
    body = """
    (staged.directory / "model.onnx").write_text(str(staged.version))
    time.sleep(0.3)
    """
    children = [in_another_process(tmp_path, body) for _ in range(2)]
    time.sleep(0.1)
    for child in children:
        with child:
            _, stderr = child.communicate(timeout=60)
            assert child.returncode == 0, stderr
    assert repository.versions(tmp_path) == [1, 2]
    assert [(tmp_path / v / "model.onnx").read_text() for v in "12"] == ["1", "2"]


def test_a_removed_version_is_gone_in_one_step_and_its_number_is_not_given_again(tmp_path: Path) -> None:
    for _ in range(3):
        publish(tmp_path)
    with repository.locked(tmp_path):
        repository.park(tmp_path, 2)
        assert repository.remove(tmp_path, 1) and repository.remove(tmp_path, 2)
    assert (repository.versions(tmp_path), repository.parked(tmp_path)) == ([3], [])
    assert {path.name for path in tmp_path.iterdir()} == {"3", ".publish.lock"}
    assert publish(tmp_path) == 4


def test_what_somebody_holds_is_not_removed_until_they_end(tmp_path: Path) -> None:
    """Also while it is parked, and when they are killed."""
    publish(tmp_path), publish(tmp_path)
    body = 'print("held", flush=True); time.sleep(60)'
    with in_another_process(tmp_path, body, block='repository.held(model / "1")') as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "held\n"
        with repository.locked(tmp_path), repository.held(tmp_path / "1"):
            repository.park(tmp_path, 1)
            assert repository.is_held(tmp_path / ".parked-1")
            assert not repository.remove(tmp_path, 1)
        assert repository.parked(tmp_path) == [1] and not repository.is_held(tmp_path / "2")
        server.kill()
    with repository.locked(tmp_path):
        assert repository.remove(tmp_path, 1)
    assert (repository.versions(tmp_path), repository.parked(tmp_path)) == ([2], [])


def test_what_an_interrupted_removal_leaves_behind_is_removed_by_the_next_publisher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path), publish(tmp_path)

    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as meanwhile, pytest.raises(KeyboardInterrupt), repository.locked(tmp_path):
        meanwhile.setattr("shutil.rmtree", interrupted)
        repository.remove(tmp_path, 1)
    assert repository.versions(tmp_path) == [2] and (tmp_path / ".removed-1").is_dir()
    assert publish(tmp_path) == 3
    assert not (tmp_path / ".removed-1").exists()
