"""A server that crashed, hangs or lost a worker is up again; one that cannot be kept up says so, and is tried again."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from deploy.keeping.supervisor import Patience, Supervisor
from deploy.running import server, workers
from deploy.triton.control import ModelVersion
from deploy.triton.settings import ADMIN_HEADER, Settings
from tests.conftest import Workspace, free_ports, port_options, wait_for

pytestmark = pytest.mark.heavy


def status(workspace: Workspace) -> dict[str, Any]:
    return dict(json.loads(workspace.run("deploy", "status", "--json").stdout))


def state(workspace: Workspace) -> dict[str, Any]:
    return dict(json.loads((workspace.root / "artifacts" / "server" / "server.json").read_text()))


def infer(address: str, seconds: float) -> float:
    """The sleeper's answer: twice the seconds."""
    with triton.InferenceServerClient(address, network_timeout=30) as client:
        tensor = triton.InferInput("IN", [1], "FP32")
        tensor.set_data_from_numpy(np.array([seconds], dtype=np.float32))
        return float(client.infer("sleeper", [tensor]).as_numpy("OUT")[0])


def answers(address: str, seconds: float) -> bool:
    try:
        return infer(address, seconds) == 2 * seconds
    except (OSError, HTTPException, InferenceServerException):
        return False


def begun(workspace: Workspace) -> Path:
    """Is there once the sleeper works on a request."""
    return workspace.served / "sleeper" / "begun"


@pytest.fixture
def up(sleeper: Workspace) -> Iterator[Workspace]:
    ports = port_options(free_ports())
    sleeper.must("deploy", "up", "--detach", "--repository", sleeper.repository, "--longest-pause", "2", *ports)
    yield sleeper
    sleeper.down()  # and nothing is left running: see tests/conftest.py


def test_a_killed_worker_is_replaced_and_the_server_stays(up: Workspace) -> None:
    """Triton itself would answer 500 for ever, and call itself ready."""
    before = state(up)
    [worker] = workers.find(before["shared_memory"])
    worker.kill()
    wait_for(lambda: state(up)["worker_restarts"] == 1)
    assert infer(status(up)["http"], 0.25) == 0.5
    assert state(up)["triton"] == before["triton"]
    assert len(workers.find(before["shared_memory"])) == 1
    shutil.copytree(up.repository / "sleeper" / "1", up.repository / "sleeper" / "2")
    up.must("deploy", "reload")
    for worker in workers.find(before["shared_memory"]):  # before anybody has looked at all processes again
        worker.kill()
    wait_for(lambda: state(up)["worker_restarts"] == 2)
    assert infer(status(up)["http"], 0.25) == 0.5


def test_a_worker_that_dies_as_soon_as_the_server_is_ready_is_replaced(
    sleeper: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the supervisor's first look: on a busy machine that is a second later."""
    monkeypatch.setenv("ARTIFACTS_DIR", str(sleeper.root / "artifacts"))
    said: list[str] = []
    too_late = threading.Timer(60, os.kill, [os.getpid(), signal.SIGINT])  # it would wait for ever

    def kill(up: server.Server, _: list[ModelVersion]) -> None:
        [worker] = workers.find(up.state.shared_memory)
        worker.kill()
        wait_for(lambda: worker.status() == psutil.STATUS_ZOMBIE)  # Triton does not reap it
        too_late.start()

    def say(line: str) -> None:
        said.append(line)
        if line.endswith("it was replaced"):
            raise SystemExit

    http, grpc, metrics = free_ports()
    settings = Settings(sleeper.repository, http_port=http, grpc_port=grpc, metrics_port=metrics)
    with pytest.raises(SystemExit):
        Supervisor(settings, Patience(), say).run(kill)
    too_late.cancel()
    assert said[-1] == "a worker of sleeper version 1 died; it was replaced"


def test_a_worker_that_a_reload_replaced_is_not_taken_for_dead(up: Workspace) -> None:
    key = (up.root / "artifacts" / "server" / "admin.key").read_text().strip()
    [old] = workers.find(state(up)["shared_memory"])
    os.utime(up.served / "sleeper" / "1")
    with triton.InferenceServerClient(status(up)["http"]) as client:
        client.load_model("sleeper", headers={ADMIN_HEADER: key})
        wait_for(lambda: not old.is_running())
        [new] = workers.find(state(up)["shared_memory"])
        client.unload_model("sleeper", headers={ADMIN_HEADER: key})
        wait_for(lambda: not new.is_running())
    time.sleep(1)  # five looks of the supervisor
    assert state(up)["worker_restarts"] == 0
    assert not workers.find(state(up)["shared_memory"])


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_crashed_or_hangs_is_restarted(up: Workspace, sent: signal.Signals) -> None:
    before = state(up)
    psutil.Process(before["triton"]["pid"]).send_signal(sent)
    wait_for(lambda: state(up)["server_restarts"] == 1 and state(up)["phase"] == "ready")
    assert state(up)["triton"] != before["triton"]
    assert infer(status(up)["http"], 0.25) == 0.5
    wait_for(lambda: not psutil.pid_exists(before["triton"]["pid"]))
    assert not workers.find(before["shared_memory"])


def test_one_that_keeps_crashing_is_tried_again_and_again_loudly(up: Workspace) -> None:
    """Four crashes in a row are a loop: the pager hears of it, `status` too, and it comes back all the same."""
    for crash in range(1, 5):
        psutil.Process(state(up)["triton"]["pid"]).kill()
        if crash == 4:
            wait_for(lambda: state(up)["phase"] == "crash loop")
            shown = up.run("deploy", "status")
            assert shown.returncode == 1 and shown.stdout.startswith("crash loop")
        wait_for(lambda crash=crash: state(up)["server_restarts"] == crash)  # type: ignore[misc]
        wait_for(lambda: state(up)["phase"] == "ready")
    assert infer(status(up)["http"], 0.25) == 0.5
    assert status(up)["server_restarts"] == 4
    log = [json.loads(line) for line in up.must("deploy", "logs", "--lines", "500", "--json").splitlines()]
    told = [record["message"] for record in log if record["level"] == "fatal"]
    assert told == [
        "tritonserver was killed by SIGKILL; 4 times in a row: it goes on trying, the next time in 2 s",
    ]


def test_a_restarted_server_does_not_serve_a_file_that_changed_until_it_is_mended(up: Workspace) -> None:
    model = up.repository / "sleeper" / "1" / "model.py"
    good = model.read_text()
    model.write_text("a model it is not")
    psutil.Process(state(up)["triton"]["pid"]).kill()
    said = up.root / "artifacts" / "server" / "up.log"
    wait_for(lambda: "the restarted server is not ready: nothing is left to serve:" in said.read_text())
    assert "sleeper version 1: Internal: SyntaxError: invalid syntax (model.py, line 1)" in said.read_text()
    assert up.run("deploy", "status").returncode == 1
    model.write_text(good)
    wait_for(lambda: state(up)["phase"] == "ready")
    assert infer(status(up)["http"], 0.25) == 0.5


def test_nothing_runs_on_when_the_keeper_is_killed(up: Workspace) -> None:
    psutil.Process(state(up)["supervisor"]["pid"]).kill()
    wait_for(lambda: not psutil.pid_exists(state(up)["triton"]["pid"]))
    assert up.run("deploy", "status").returncode == 1


def test_down_lets_accepted_requests_finish(up: Workspace) -> None:
    answer: list[float] = []
    address = status(up)["http"]
    request = threading.Thread(target=lambda: answer.append(infer(address, 3)))
    request.start()
    wait_for(begun(up).exists)
    up.must("deploy", "down")
    request.join()
    assert answer == [6]


def test_what_does_not_finish_in_the_drain_time_is_cut(sleeper: Workspace) -> None:
    ports = port_options(free_ports())
    sleeper.must("deploy", "up", "--detach", "--repository", sleeper.repository, "--drain", "1", *ports)
    address = status(sleeper)["http"]
    request = threading.Thread(target=answers, args=(address, 60))
    request.start()
    wait_for(begun(sleeper).exists)
    sleeper.must("deploy", "down")
    request.join(timeout=15)
    assert not request.is_alive()
