"""The peers: what is declared of them fits together, and what they serve is the release's graph, answered right."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks import results
from benchmarks.errors import MeasurementError
from benchmarks.peers import command, names, process, run, search, task
from benchmarks.peers.peer import PEERS, Peer
from benchmarks.peers.run import Measured, System
from benchmarks.peers.task import SHAPES
from benchmarks.reporting import measurements, page
from cli import progress
from cli.installing import locks, tool_environments
from contracts import golden, layout, manifest
from tests.workspace import Workspace

PROCESSES = (
    ("fastapi-inline", "workers"),
    ("fastapi-pool", "workers"),
    ("litserve", "workers_per_device"),
    ("litserve", "num_api_servers"),
    ("bentoml", "workers"),
    ("ray", "replicas"),
    ("mlserver", "parallel_workers"),
)
ENVIRONMENTS = layout.ROOT / "configs" / "environments"


def test_the_command_line_names_what_there_is() -> None:
    assert (*PEERS,) == names.PEERS and (*SHAPES,) == names.MODELS


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_each_peer_has_a_locked_environment_with_the_server_s_runtime(peer: Peer) -> None:
    assert peer.environment in tool_environments.names()
    found = locks.entries(ENVIRONMENTS / f"{peer.environment}.lock")
    assert all("--hash=sha256:" in entry for entry in found)
    pins = {entry.split()[0] for entry in found}
    server = {entry.split()[0] for entry in locks.entries(layout.ROOT / "deploy" / "server.lock")}
    for name in ("onnxruntime", "pillow", "tokenizers"):
        assert {pin for pin in pins if pin.startswith(f"{name}==")} == {
            pin for pin in server if pin.startswith(f"{name}==")
        }
    assert Path("configs/environments", f"{peer.environment}.in") in locks.OTHERS


def test_the_settings_that_are_kept_are_among_those_that_are_searched() -> None:
    known = json.loads(command.SETTINGS.read_text()) if command.SETTINGS.exists() else {}
    for model, peers in known.items():
        assert model in SHAPES
        for name, settings in peers.items():
            assert settings.keys() == PEERS[name].space.keys()
            assert all(value in PEERS[name].space[setting] for setting, value in settings.items())


def test_the_search_starts_with_a_process_a_core() -> None:
    cores = len(os.sched_getaffinity(0))
    found = {(name, PEERS[name].start[of]) for name, of in PROCESSES}
    assert found == {(name, cores) for name, _ in PROCESSES}
    for name, of in PROCESSES:
        values = PEERS[name].space[of]
        assert len({*values}) == len(values) and {1, 2} <= {*values}


def one_round(per_s: float) -> Measured:
    return Measured(per_s, 1.0, 1.0, 1.0, 1.0, cpu_us=1.0, generator_us=1.0, answers=10, different=1, load=0.0)


def test_systems_are_measured_in_turn_each_alone_and_one_that_fails_costs_no_figure_of_the_others(
    tmp_path: Path,
) -> None:
    (log := tmp_path / "log").write_text("it is broken\n")
    running: list[str] = []
    taken: list[tuple[str, int]] = []

    def system(name: str, fails_at: int | None = None) -> System:
        @contextmanager
        def turn() -> Iterator[None]:
            assert not running
            running.append(name)
            yield
            running.remove(name)

        def measure(connections: int, seconds: float) -> tuple[Measured, dict[int, int]]:
            assert running == [name] and seconds == 0.5
            taken.append((name, connections))
            if fails_at is not None and len([one for one in taken if one[0] == name]) > fails_at:
                running.remove(name)
                raise MeasurementError("a wrong answer")
            return one_round(100.0), {1000: 5, 2000: 5}

        return System(name, name, measure, {}, (1, 16), turn, log)

    systems = [system("a"), system("b", fails_at=4), system("c")]
    with progress.bar("", 9, hidden=True) as bar:
        run.run(systems, 3, 0.5, bar)
    assert [len(each.found[16]) for each in systems] == [3, 1, 3]
    assert systems[0].latency_us[16] == {1000: 15, 2000: 15}
    assert "round 2: a wrong answer" in systems[1].failed and "it is broken" in systems[1].failed
    assert not systems[0].failed and not systems[2].failed
    # Each is warmed up at most connections in each of its turns.
    assert [one for one in taken if one[0] == "a"] == [("a", 16), ("a", 1), ("a", 16)] * 3


def test_of_a_run_that_was_stopped_the_whole_rounds_are_left() -> None:
    def system(name: str, rounds: int, last: int, failed: str = "") -> System:
        found = {1: [one_round(1.0)] * rounds, 16: [one_round(1.0)] * last}
        return System(name, name, lambda *_: (one_round(1.0), {}), {}, (1, 16), failed=failed, found=found)

    systems = [system("a", 3, 3), system("b", 3, 2), system("c", 1, 0, "it failed"), system("d", 2, 2)]
    assert run.cut_to_whole_rounds(systems) == 2
    assert [{len(rounds) for rounds in each.found.values()} for each in (systems[0], systems[1])] == [{2}, {2}]
    assert run.cut_to_whole_rounds([system("a", 1, 0)]) == 0


def planted_task(shape: task.Shape, scratch: Path) -> task.Task:
    return task.Task(shape, scratch, scratch, "", ())


def failing(error: BaseException | None, at: int) -> list[System]:
    """Systems of which this project's raises the error in that round."""
    count = iter(range(1000))

    def ours(connections: int, seconds: float) -> tuple[Measured, dict[int, int]]:
        if error is not None and next(count) // 4 + 1 == at:  # a warm-up, and three numbers of connections
            raise error
        return one_round(1.0), {}

    def others(connections: int, seconds: float) -> tuple[Measured, dict[int, int]]:
        return one_round(2.0), {}

    return [System(run.LIMIT, "limit", others, {}, (1, 16, 64)), System(run.OURS, "ours", ours, {}, (1, 16, 64))]


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (MeasurementError("a wrong answer"), None),
        (SystemExit(143), SystemExit),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (AttributeError("a bug"), AttributeError),
    ],
)
def test_whole_rounds_are_kept_whatever_ends_a_run(
    error: BaseException, ends: type[BaseException] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    monkeypatch.setattr(command.released, "asked", lambda *_: None)
    monkeypatch.setattr(command.wrk, "described", dict)
    monkeypatch.setattr(task, "prepare", planted_task)
    made = iter([failing(error, 3), failing(None, 0), failing(error, 1)])
    monkeypatch.setattr(run, "serve", lambda *_: next(made))
    models = ["small", "text", "table"]
    options = argparse.Namespace(models=models, peers=[], rounds=4, seconds=1, search=False)
    with pytest.raises(ends) if ends else nullcontext():
        assert command.main(options) == 1
    found = measurements.read(measurements.newest("peers"))
    rounds = {one.task: len(one.rounds) for one in found.measurements}
    if ends:
        assert rounds == {"small": 2}
    else:
        assert rounds == {"small": 2, "text": 4}, "one model's failure costs no other"
        assert [one["task"] for one in found.told["failed"]] == ["small", "table"]
        assert "Small: the rest is left out: a wrong answer" in page.warnings(found)


def test_what_was_searched_is_kept_without_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path))
    monkeypatch.setattr(command.wrk, "described", dict)
    monkeypatch.setattr(task, "prepare", planted_task)
    monkeypatch.setattr(command, "SETTINGS", tmp_path / "settings.json")
    monkeypatch.setattr(search, "search", lambda *_: ({"workers": 1}, [search.Try({"workers": 1}, 5.0, 1.0)]))
    monkeypatch.setattr(run, "serve", lambda *_: failing(KeyboardInterrupt(), 1))
    options = argparse.Namespace(models=["large"], peers=["litserve"], rounds=2, seconds=1, search=True)
    with pytest.raises(KeyboardInterrupt):
        command.main(options)
    assert "No round was whole, and what was searched alone is kept" in capsys.readouterr().err
    [kept] = (tmp_path / "benchmarks").glob("peers-*.json")
    assert [one["system"] for one in results.read(kept)["searches"]] == ["litserve"]


def test_an_environment_that_lacks_something_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (python := tmp_path / "python").write_text("#!/bin/sh\necho no package >&2; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(tool_environments, "programs", lambda name: tmp_path)
    with pytest.raises(MeasurementError, match=r"the environment of LitServe is damaged\n.*no package"):
        process.versions(PEERS["litserve"])


def test_what_others_take_of_the_machine_is_told() -> None:
    def measure(connections: int, seconds: float) -> tuple[Measured, dict[int, int]]:
        time.sleep(seconds)
        return one_round(100.0), {}

    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        system = System("ours", "ours", measure, {}, (1,))
        system.once(0.5)
    finally:
        for each in busy:
            each.kill()
            each.wait()
    [[one]] = system.found.values()
    assert one.others > 0.5
    assert "shares of the limit are not to be trusted" in run.neighbours([system])


def test_without_this_project_there_is_nothing_to_compare() -> None:
    def measure(connections: int, seconds: float) -> tuple[Measured, dict[int, int]]:
        raise MeasurementError("a wrong answer")

    with progress.bar("", 1, hidden=True) as bar, pytest.raises(MeasurementError, match="a wrong answer"):
        run.run([System("ours", "ours", measure, {}, (1,))], 1, 0.5, bar)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((30, 60, 45), {"fast": True, "batch": 64}),  # fast is better, then 64, then 4 is not
        ((0, 0, 0), {"fast": False, "batch": 16}),
    ],
)
def test_a_search_keeps_what_answers_more_and_goes_on_from_there(
    values: tuple[int, ...], told: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[dict[str, object]] = []

    def answers(peer: Peer, settings: dict[str, object], *_: object) -> search.Try:
        tried.append(settings)
        per_s = 20 + values[0] * bool(settings["fast"]) + values[1] * (settings["batch"] == 64)
        return search.Try(settings, per_s, 1.0)

    monkeypatch.setattr(search, "_try", answers)
    monkeypatch.setattr(search, "Generator", lambda *_: None)
    space = {"fast": (False, True), "batch": (16, 64, 4)}
    peer = replace(PEERS["litserve"], space=space)
    found, tries = search.search(peer, cast(task.Task, SimpleNamespace(questions=())), tmp_path, 1.0, lambda _: None)
    assert found == told
    assert [one.settings for one in tries] == tried and tried[0] == {"fast": False, "batch": 16}
    assert {"fast": told["fast"], "batch": 4} in tried, "what was found is gone on from"


@pytest.mark.slow
@pytest.mark.heavy
def test_a_peer_and_the_limits_are_measured_beside_this_project(
    release: Path, released: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_REPOSITORY", str(released.repository))
    options = ("--models", "small", "--peers", "fastapi-inline", "fastapi-pool", "--rounds", "2", "--seconds", "1")
    done = released.run_apart("benchmarks", "peers", *options)
    assert done.returncode == 0, done.stderr
    [path] = (released.root / "artifacts" / "benchmarks").glob("peers-*.json")
    found = measurements.read(path)
    served = {"ours", "nothing", "fastapi-inline", "fastapi-pool"}
    assert {(one.system, one.connections) for one in found.measurements} == {
        *((system, connections) for system in served for connections in (1, 16, 64)),
        *(("in-process", connections) for connections in (1, 64)),
    }
    for one in found.measurements:
        assert len(one.rounds) == 2 and all(figure > 0 for figure in one.figures("per_s") + one.figures("cpu_us"))
        assert one.system == "in-process" or sum(one.latency_us.values()) == sum(one.figures("answers"))
    [told] = results.read(path)["tasks"]
    assert told["graph_sha256"] == manifest.sha256(release / "model.onnx")
    assert told["requests"] == 4 and len(golden.read(release)) > 0
    ready = task.prepare(SHAPES["small"], tmp_path)
    assert len(ready.questions) == 4
