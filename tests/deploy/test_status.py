"""`deploy status` tells what the server has done, and what it takes."""

import io
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from tritonclient import grpc

from contracts import layout
from deploy.running.status import WorkDone
from tests.conftest import RunningServer, Workspace, free_ports, port_options, wait_for
from tests.deploy.conftest import write_model
from tests.workspace import FAMILY, MODEL

# Says that it has begun, and goes on once it may.
GATE = """
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        here = Path(__file__).parent
        (here / "begun").touch()
        while not (here / "open").exists():
            time.sleep(0.01)
        return [pb_utils.InferenceResponse([self.answer(request)]) for request in requests]

    def answer(self, request):
        return pb_utils.Tensor("OUT", pb_utils.get_input_tensor_by_name(request, "IN").as_numpy())
"""
_ZEROS = 'inputs { key: "IN" value { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } }'
WARM_UP = f"""
model_warmup [
  {{ name: "full" batch_size: 4 count: 2 {_ZEROS} }},
  {{ name: "one" batch_size: 1 {_ZEROS} }}
]
"""


@dataclass(frozen=True)
class Small:
    """A server of `gate`, which batches what is waiting, `cached`, whose answers are kept, and `warmed`."""

    workspace: Workspace
    client: grpc.InferenceServerClient

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.workspace.must("deploy", "status", "--json")))

    def model(self, name: str) -> dict[str, Any]:
        return next(dict(model) for model in self.status()["models"] if model["name"] == name)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    workspace, ports = Workspace(tmp_path_factory.mktemp("status")), free_ports()
    write_model(workspace.repository, "gate", GATE, max_batch_size=4, more="dynamic_batching { }")
    write_model(workspace.repository, "cached", max_batch_size=4, more="response_cache { enable: true }")
    write_model(workspace.repository, "warmed", max_batch_size=4, more=WARM_UP)
    up = ("deploy", "up", "--detach", "--repository", workspace.repository, "--cache-mb", "1")
    workspace.must(*up, *port_options(ports))
    with grpc.InferenceServerClient(f"127.0.0.1:{ports[1]}") as client:
        yield Small(workspace, client)
    workspace.down()


def seconds(value: float) -> list[grpc.InferInput]:
    tensor = grpc.InferInput("IN", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.full((1, 1), value, np.float32))
    return [tensor]


def images(*encoded: bytes) -> list[grpc.InferInput]:
    tensor = grpc.InferInput("image", [len(encoded), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[image] for image in encoded], dtype=object))
    return [tensor]


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (28, 28)).save(stream, "png")
    return stream.getvalue()


def models_of(server: RunningServer) -> dict[str, dict[str, Any]]:
    status = json.loads(server.workspace.must("deploy", "status", "--json"))
    return {model["name"]: model for model in status["models"]}


def once_counted(
    server: RunningServer, before: dict[str, dict[str, Any]], key: str, added: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """The models once `added` more are counted: Triton does that after it has answered."""
    wait_for(lambda: all(models_of(server)[name][key] >= before[name][key] + count for name, count in added.items()))
    return models_of(server)


def test_requests_failures_batches_and_times_are_counted(server: RunningServer) -> None:
    before = models_of(server)
    with grpc.InferenceServerClient(server.grpc) as client:
        for _ in range(5):
            client.infer(FAMILY, images(png(), png()))
        with pytest.raises(grpc.InferenceServerException, match="not a readable"):
            client.infer(FAMILY, images(b"no image"))
    once_counted(server, before, "failures", {FAMILY: 1})  # or the next test would meet them
    model = once_counted(server, before, "requests", {FAMILY: 5})[FAMILY]
    added = {key: model[key] - before[FAMILY][key] for key in ("requests", "failures", "rows")}
    assert added == {"requests": 5, "failures": 1, "rows": 11}
    assert sum(model["batches"].values()) == model["executions"]
    assert model["average_batch"] == model["rows"] / model["executions"]
    assert model["queue_ms"] >= 0 and model["compute_ms"] > 0 and model["pending"] == 0
    assert 0 < model["latency_ms"]["p50"] <= model["latency_ms"]["p95"] <= model["latency_ms"]["p99"]


def test_every_worker_and_the_server_show_what_they_take(server: RunningServer) -> None:
    status = json.loads(server.workspace.must("deploy", "status", "--json"))
    assert status["phase"] == "ready" and status["uptime_s"] > 0
    assert status["server_restarts"] == status["worker_restarts"] == 0
    assert status["triton"]["pid"] == status["pid"] == server.pid
    workers = {model["name"]: model["workers"] for model in status["models"]}
    assert all(workers.values())
    assert {w["pid"] for found in workers.values() for w in found} == {
        child.pid for child in psutil.Process(server.pid).children()
    }
    for usage in (status["triton"], *(worker for found in workers.values() for worker in found)):
        assert usage["rss_bytes"] >= usage["pss_bytes"] > 1_000_000 and usage["cpu_s"] > 0


def test_the_table_fits_a_narrow_page_and_has_a_row_a_model(server: RunningServer) -> None:
    shown = server.workspace.must("deploy", "status").splitlines()
    assert re.match(rf"ready  process {server.pid}, up \d", shown[0])
    rows = [line.split()[1:3] for line in shown if line.startswith("✓")]
    assert sorted(rows) == [[name, "1"] for name in sorted(models_of(server))]
    assert max(map(len, shown)) <= 100


def test_waiting_requests_show_and_the_batches_they_become(small: Small) -> None:
    gate, answers = small.workspace.served / "gate" / "1", list[object]()
    for number in range(5):
        small.client.async_infer("gate", seconds(0), lambda result, error: answers.append(error))
        if number == 0:
            wait_for((gate / "begun").exists)  # the others wait for it
    wait_for(lambda: small.model("gate")["pending"] == 4)
    (gate / "open").touch()
    wait_for(lambda: len(answers) == 5)
    wait_for(lambda: sum(small.model("gate")["batches"].values()) == 2)  # counted once it is answered
    after = small.model("gate")
    assert answers == [None] * 5
    assert (after["batches"], after["average_batch"], after["pending"]) == ({"1": 1, "4": 1}, 2.5, 0)
    assert after["queue_ms"] > 0


def test_the_warm_up_is_no_traffic(small: Small) -> None:
    keys = ("requests", "rows", "executions", "average_batch", "queue_ms", "compute_ms", "batches")
    assert [small.model("warmed")[key] for key in keys] == [0, 0, 0, None, None, None, {}]
    [counted] = small.client.get_inference_statistics("warmed", as_json=True)["model_stats"]
    assert int(counted["inference_count"]) == 9, "Triton counts it"
    small.client.infer("warmed", seconds(0))
    wait_for(lambda: small.model("warmed")["requests"] == 1)  # counted once it is answered
    after = small.model("warmed")
    assert (after["rows"], after["executions"], after["batches"]) == (1, 1, {"1": 1})


def test_cache_hits_and_misses_are_counted(small: Small) -> None:
    for _ in range(3):
        small.client.infer("cached", seconds(0))
    wait_for(lambda: small.model("cached")["requests"] == 3)  # counted once it is answered
    cached = small.model("cached")
    assert (cached["cache_hits"], cached["cache_misses"], cached["requests"], cached["rows"]) == (2, 1, 3, 1)
    assert "cached version 1: 2 of 3 from the cache" in small.workspace.must("deploy", "status")


def test_a_worker_that_was_replaced_is_counted(small: Small) -> None:
    [worker] = small.model("cached")["workers"]
    psutil.Process(worker["pid"]).kill()
    wait_for(lambda: small.status()["worker_restarts"] == 1)
    assert "1 of workers" in small.workspace.must("deploy", "status")


def test_watching_prints_a_line_a_look_until_ctrl_c(server: RunningServer) -> None:
    command = server.workspace.command("deploy", "status", "--watch")
    with subprocess.Popen(
        command,
        cwd=layout.ROOT,
        env=server.workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert all(line.startswith("ready") and f"{MODEL} 1 READY" in line for line in lines)
    assert " 0/s 0/s failed" in lines[1]
    assert process.returncode == 0 and stderr == ""


def test_watching_on_a_terminal_draws_the_table_anew(server: RunningServer) -> None:
    terminal, inside = pty.openpty()
    command = server.workspace.command("deploy", "status", "--watch")
    environment = {**server.workspace.environment, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command, cwd=layout.ROOT, env=environment, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
    ) as process:
        os.close(inside)
        drawn = ""
        while drawn.count(MODEL) < 3:
            drawn += _read(terminal)
        process.send_signal(signal.SIGINT)
        while more := _read(terminal):
            drawn += more
    assert process.returncode == 0
    assert "/s" in drawn and "\x1b[" in drawn and "Traceback" not in drawn
    assert drawn.rstrip().endswith("\x1b[?25h")  # the cursor is back


def _read(terminal: int) -> str:
    """What was drawn since; nothing once the other side is gone."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:
        return ""


def test_watching_ends_where_no_server_is_up(workspace: Workspace) -> None:
    done = workspace.run("deploy", "status", "--watch")
    assert (done.returncode, done.stdout) == (1, "No server is up.\n")


def test_what_was_done_since_is_all_of_it_once_a_version_is_loaded_anew() -> None:
    before, after = (
        WorkDone(requests=10, queue_s=1.5, rows=40, executions=10),
        WorkDone(requests=14, queue_s=3.5, rows=50, executions=12),
    )
    added = after.since(before)
    assert (added.requests, added.queue_ms, added.average_batch) == (4, 500, 5)
    assert before.since(after) == before
    assert WorkDone().average_batch is WorkDone().queue_ms is WorkDone().compute_ms is None
