"""The peers: what is declared of them fits together, and what they serve is the release's graph, answered right."""

import json
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.peers import command, names, task
from benchmarks.peers.peer import PEERS, Peer
from benchmarks.peers.task import SHAPES
from benchmarks.reporting import measurements
from cli.installing import locks, tool_environments
from contracts import golden, layout, manifest
from tests.workspace import Workspace

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


@pytest.mark.slow
@pytest.mark.heavy
def test_a_peer_and_the_limits_are_measured_beside_this_project(
    release: Path, released: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert told["requests"] == 16 and len(golden.read(release)) > 0
    monkeypatch.setenv("MODEL_REPOSITORY", str(released.repository))
    ready = task.prepare(SHAPES["small"], tmp_path)
    assert len(ready.questions) == 16
