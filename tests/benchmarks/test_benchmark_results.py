"""What a result file says of where its figures come from."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.errors import MeasurementError
from benchmarks.results import Began
from contracts import layout


def test_a_result_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    began = Began.now()
    path = results.write("some", {"figures": [1, 2], "versions": [3]}, began, {"wrk": "4.1.0"})
    found = results.read(path)
    origin = found["origin"]
    assert (found["schema"], found["what"], found["figures"]) == (results.SCHEMA, "some", [1, 2])
    assert found["versions"] == [3], "a figure may be called as what the origin has"
    assert origin["machine"]["cores"] == len(os.sched_getaffinity(0)) and origin["machine"]["cpu"]
    assert origin["load_before"] == list(began.load) and len(origin["load_after"]) == 3
    assert origin["versions"]["wrk"] == "4.1.0" and origin["began"] <= origin["ended"]
    assert origin["commit"] is None or len(origin["commit"]) == 40
    assert origin["dirty"] in (True, False, None)


def test_figures_are_of_the_commit_that_they_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour later somebody may have committed, or begun to change something."""
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path / "artifacts"))
    monkeypatch.setattr(layout, "ROOT", tmp_path)

    def git(*arguments: str) -> str:
        named = ("-c", "user.name=n", "-c", "user.email=e@localhost", "-C", str(tmp_path))
        return subprocess.run(["git", *named, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    first, began = git("rev-parse", "HEAD"), Began.now()
    (tmp_path / "file").write_text("two")
    git("commit", "-am", "two")
    (tmp_path / "file").write_text("three")
    origin = results.read(results.write("some", {}, began))["origin"]
    assert (origin["commit"], origin["dirty"]) == (first, False)
    origin = results.read(results.write("other", {}))["origin"]
    assert (origin["commit"], origin["dirty"]) == (git("rev-parse", "HEAD"), True)


def test_what_is_kept_leaves_the_summary_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    summary = {"figures": [1], "versions": {"wrk": "4.1.0"}}
    results.keep("some", summary)
    assert (
        json.loads(capsys.readouterr().out.splitlines()[-1])
        == summary
        == {"figures": [1], "versions": {"wrk": "4.1.0"}}
    )


def test_a_number_that_json_has_not_is_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No percentile of no answers: what Python would write as NaN, other languages do not read."""
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    record = results.keep("some", {"figures": [{"p99_ms": float("nan")}, (float("inf"), 1.0)]})
    for text in (record.read_text(), capsys.readouterr().out.splitlines()[-1]):
        assert json.loads(text)["figures"] == [{"p99_ms": None}, [None, 1.0]]


def test_figures_are_not_lost_with_the_room_on_a_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", "/proc")  # where nobody makes a folder
    with pytest.raises(OSError, match="No such file"):
        results.write("some", {"figures": [1, 2]})
    assert json.loads(capsys.readouterr().out)["figures"] == [1, 2]


def test_a_file_in_a_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(MeasurementError, match="cannot be a folder"):
            results.made(folder)


def test_a_result_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"nothing\.json is no result: .*No such file"):
        results.read(tmp_path / "nothing.json")
