"""One model never harms another: what loads is served, and what does not is left out, by name and with its reason."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.conftest import Workspace, free_ports, port_options, wait_for
from tests.deploy import bad_models
from tests.deploy.bad_models import Bad
from tests.deploy.conftest import write_model

pytestmark = pytest.mark.heavy

_GOOD = ("good", "fine", "sound", "steady", "well")
_RESTART_S = 10.0


@dataclass(frozen=True)
class Up:
    """A server over good models and bad ones."""

    workspace: Workspace
    done: "CompletedProcess[str]"  # `up --detach`

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.workspace.root / "artifacts" / "server" / "server.json").read_text()))

    def status(self) -> tuple[int, dict[str, Any]]:
        done = self.workspace.run("deploy", "status", "--json")
        return done.returncode, json.loads(done.stdout)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.record()['http_port']}"

    def ready(self) -> bool:
        """What `/v2/health/ready` says."""
        with triton.InferenceServerClient(self.address) as client:
            return bool(client.is_server_ready())

    def answers(self, model: str, value: float = 1) -> bool:
        with triton.InferenceServerClient(self.address, network_timeout=10) as client:
            tensor = triton.InferInput("IN", [1], "FP32")
            tensor.set_data_from_numpy(np.array([value], dtype=np.float32))
            try:
                return bool(client.infer(model, [tensor]).as_numpy("OUT")[0] == 2 * value)
            except (OSError, HTTPException, InferenceServerException):
                return False

    def left_out(self) -> dict[str, str]:
        """{model: why}, of what failed."""
        _, status = self.status()
        return {group["name"]: group["reason"] for group in status["left_out"] if group["failed"]}


@pytest.fixture
def bring_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    workspace = Workspace(tmp_path)

    def started(bad: dict[str, Bad], *options: str) -> Up:
        for name in _GOOD:
            write_model(workspace.repository, name)
        for name, model in bad.items():
            model.write(workspace.repository, name)
        up = ("deploy", "up", "--detach", "--repository", workspace.repository, "--drain", "3")
        return Up(workspace, workspace.run(*up, *port_options(free_ports()), *options))

    yield started
    workspace.down()


def serves_all_but(up: Up, bad: dict[str, Bad]) -> None:
    """The good are served, the bad are named with their reasons, and everybody says so."""
    assert up.done.returncode == 3, up.done.stderr
    assert f"WITHOUT {', '.join(sorted(bad))}" in up.done.stdout
    assert all(up.answers(model) for model in _GOOD)
    assert up.ready()
    code, status = up.status()
    assert code == 3 and status["ready"] and status["phase"] == "ready"
    assert sorted(up.left_out()) == sorted(bad)
    for name, model in bad.items():
        assert model.reason in up.left_out()[name]
        assert f"{name} is not served: " in up.done.stdout
        assert model.reason in up.done.stdout


def heals(up: Up, *mended: str, removed: tuple[str, ...] = ()) -> None:
    """What was mended is served by a reload and what was removed is no longer missed, by the same server."""
    before = up.record()["triton"]
    for name in mended:
        bad_models.mend(up.workspace.repository, name)
        up.workspace.must("deploy", "reload", name)
        assert up.answers(name)
    for name in removed:
        shutil.rmtree(up.workspace.repository / name)
    code, status = up.status()
    assert (code, status["ready"], up.left_out()) == (0, True, {})
    assert up.ready() and up.record()["triton"] == before


def test_what_does_not_load_is_left_out_by_name_and_heals_without_a_restart(bring_up: Callable[..., Up]) -> None:
    up = bring_up({**bad_models.FAIL, "talkative": bad_models.SAY})
    serves_all_but(up, bad_models.FAIL)
    restarts = up.record()["server_restarts"]
    assert restarts <= 2
    assert up.answers("talkative", -1), "it has printed what a crashing server does"
    shown = re.sub(r"\s+", " ", up.workspace.run("deploy", "status").stdout)
    assert "missing_import is not served: version 1: No module named 'no_such_module'" in shown
    refused = up.workspace.run("deploy", "reload", "raises")
    assert refused.returncode == 1 and "no weights" in refused.stderr
    wait_for(up.ready, timeout_s=10)
    bad_models.FAIL["missing_import"].write(up.workspace.repository, "by_hand")
    assert up.workspace.run("deploy", "reload", "by_hand").returncode == 1
    assert up.ready() and "No module named 'no_such_module'" in up.left_out()["by_hand"]
    bad_models.FAIL["typo"].write(up.workspace.repository, "mistyped")
    refused = up.workspace.run("deploy", "reload", "mistyped")
    assert str(up.workspace.repository / "mistyped" / "config.pbtxt") in refused.stderr
    shutil.rmtree(up.workspace.repository / "mistyped")
    heals(
        up, "by_hand", "missing_dims", "missing_import", "raises", removed=("typo", "wrong_dtype", "segfault", "abort")
    )
    time.sleep(1.5)  # a supervisor that believed those words would have killed it by now
    assert up.answers("talkative") and up.record()["server_restarts"] == restarts


def test_one_that_crashes_the_server_is_found_within_two_restarts(bring_up: Callable[..., Up]) -> None:
    bad = {"empty_agents": bad_models.CRASH["empty_agents"]}
    up = bring_up(bad)
    serves_all_but(up, bad)
    assert up.record()["server_restarts"] <= 2
    heals(up, "empty_agents")


def test_one_that_hangs_is_ended_and_left_out(bring_up: Callable[..., Up]) -> None:
    bad = {"endless": bad_models.HANG}
    up = bring_up(bad, "--load-timeout", "4")
    serves_all_but(up, bad)
    assert up.record()["server_restarts"] <= 2
    heals(up, removed=("endless",))


def test_strict_is_all_or_nothing(bring_up: Callable[..., Up]) -> None:
    done = bring_up({"raises": bad_models.FAIL["raises"]}, "--strict").done
    assert done.returncode == 1
    assert (
        "error: not every model loaded:\n  raises version 1: Internal: ValueError: no weights (1/model.py, line 8)\n"
        in done.stderr
    )


def test_one_whose_workers_die_again_and_again_is_left_out_for_a_while(bring_up: Callable[..., Up]) -> None:
    up = bring_up({"poisoned": bad_models.CRASH_LATER}, "--longest-pause", "8")
    assert up.done.returncode == 0
    before = up.record()["triton"]
    for deaths in range(1, 4):
        assert not up.answers("poisoned", -1)
        wait_for(lambda deaths=deaths: up.record()["worker_restarts"] == deaths)  # type: ignore[misc]
        assert up.answers("poisoned")
    assert not up.answers("poisoned", -1)
    wait_for(lambda: "poisoned" in up.record()["left_out"])
    assert "its workers died 4 times in a row" in up.left_out()["poisoned"]
    wait_for(lambda: up.status()[0] == 3 and up.ready())
    assert all(up.answers(model) for model in _GOOD)
    wait_for(lambda: up.answers("poisoned"))
    wait_for(lambda: up.status()[0] == 0)
    assert up.record()["triton"] == before


def test_one_that_eats_memory_dies_alone(bring_up: Callable[..., Up]) -> None:
    up = bring_up({"eater": bad_models.EAT_LATER}, "--memory", "1G")
    assert up.done.returncode == 0, up.done.stderr
    before, limit = up.record()["triton"], up.record()["memory"]
    assert "1,024 MiB" in limit and limit in " ".join(up.workspace.must("deploy", "status").split())
    assert not up.answers("eater", -1)
    if "cgroup /" in limit:  # else Python refuses it, and nobody dies
        wait_for(lambda: up.record()["worker_restarts"] == 1)
    wait_for(lambda: up.answers("eater"))
    assert all(up.answers(model) for model in _GOOD)
    assert up.record()["triton"] == before


@contextmanager
def under_load(up: Up) -> Iterator[list[tuple[float, bool]]]:
    """Ask the good models all the time; note when, and whether they answered."""
    import threading

    noted: list[tuple[float, bool]] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            noted.append((time.monotonic(), all(up.answers(model) for model in _GOOD)))
            time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield noted
    finally:
        ended.set()
        thread.join()


def longest_outage_s(noted: list[tuple[float, bool]]) -> float:
    longest, since = 0.0, None
    for at, answered in noted:
        since = None if answered else since or at
        longest = max(longest, at - since) if since else longest
    return longest


BY_HAND = {**bad_models.CRASH, "endless": bad_models.HANG, "eats": bad_models.EAT, **bad_models.FAIL}


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HAND)
def test_one_published_by_hand_before_a_crash_costs_the_others_no_more(bring_up: Callable[..., Up], name: str) -> None:
    """It is put there while a server runs, which is then killed: as bad as its restart can be."""
    up = bring_up({}, "--load-timeout", "15", "--memory", "1G")
    assert up.done.returncode == 0, up.done.stderr
    BY_HAND[name].write(up.workspace.repository, name)
    with under_load(up) as noted:
        psutil.Process(up.record()["triton"]["pid"]).kill()
        wait_for(lambda: up.record()["phase"] == "ready" and name in up.record()["left_out"])
        wait_for(lambda: up.ready() and all(up.answers(model) for model in _GOOD))
    assert longest_outage_s(noted) < _RESTART_S
    assert up.record()["server_restarts"] <= 1 + 2
    assert up.status()[0] == 3
    if reason := BY_HAND[name].reason:
        assert reason in up.left_out()[name]
    heals(up, name)
