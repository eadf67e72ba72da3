"""Real Tritons that are frozen under load (SIGSTOP), and go on: who is answered, who is told, and what is left."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest

from tests.conftest import wait_for
from tests.deploy.conftest import write_model
from tests.gateway import tritons, typed_models, whole
from tests.gateway.tritons import Running
from tests.gateway.whole import Whole
from tests.store.records import asked, written

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(600)]

DEADLINES_S = (1.0, 5.0, None)
KNOWN_S = 2.75  # after which it is known that one is silent; as much again for a machine that has other work
IMAGE = b"\4\0\0\0boot"
BIG = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        made = np.arange(2_500_000, dtype=np.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", made)]) for _ in requests]
"""


@dataclass(frozen=True)
class Got:
    """What a caller with this deadline got; when it asked, on the monotonic clock."""

    deadline_s: float | None
    at: float
    took_s: float
    status: int
    retry_after: str | None
    size: int


def header(name: str, datatype: str, shape: list[int], size: int) -> bytes:
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "OUT", "parameters": {"binary_data": True}}]}).encode()


LABELS = json.dumps(
    {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 8}}]}
).encode()


def ask(port: int, deadline_s: float | None, model: str = "labels", said: bytes = LABELS, body: bytes = IMAGE) -> Got:
    headers = {"Inference-Header-Content-Length": str(len(said))}
    if deadline_s is not None:
        headers["Request-Timeout-Ms"] = str(int(deadline_s * 1000))
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    began, status, retry_after, size = time.monotonic(), 0, None, 0
    try:
        connection.request("POST", f"/v2/models/{model}/infer", said + body, headers)
        response = connection.getresponse()
        status, retry_after = response.status, response.headers.get("Retry-After")
        with suppress(HTTPException):
            size = len(response.read())
    finally:
        connection.close()
    return Got(deadline_s, began, time.monotonic() - began, status, retry_after, size)


@contextmanager
def served(folder: Path, count: int) -> Iterator[tuple[list[Running], Whole]]:
    with ExitStack() as stack:
        servers = []
        for number in range(count):
            models = typed_models.repository(folder / f"models{number}")
            write_model(models, "big", BIG)
            config = models / "big" / "config.pbtxt"
            config.write_text(
                config.read_text().replace(
                    '"OUT" data_type: TYPE_FP32 dims: [ 1 ]', '"OUT" data_type: TYPE_FP32 dims: [ -1 ]'
                )
            )
            servers.append(stack.enter_context(tritons.triton(models)))
        addresses = [server.address for server in servers]
        more = {"keys__required": "false", "limits__drain_s": "2"}
        yield servers, stack.enter_context(whole.up(folder / "g", *addresses, options=(), **more))


@contextmanager
def callers(port: int) -> Iterator[list[Got]]:
    """Three of each deadline, who ask again and again."""
    got: list[Got] = []
    stop = threading.Event()

    def ask_on(deadline_s: float | None) -> None:
        while not stop.is_set():
            got.append(ask(port, deadline_s))
            time.sleep(0.02)

    threads = [threading.Thread(target=ask_on, args=(each,)) for each in DEADLINES_S for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(got) > 50, 30)
        yield got
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def nothing_is_held(running: Whole, port_of: list[Running]) -> None:
    """No place and, but for those that are idle for a moment, no connection."""

    def places() -> set[str]:
        said = running.ask("GET", "/metrics", key="").body.decode()
        return set(re.findall(r"gateway_(?:in_flight|waiting)\{[^}]*\} (\S+)", said))

    wait_for(lambda: places() == {"0.0"}, 15)
    ports = {server.address.port for server in port_of}

    def connected() -> list[object]:
        connections = psutil.Process(running.process.pid).net_connections("tcp")
        return [each for each in connections if each.raddr and each.raddr.port in ports]

    wait_for(lambda: not connected(), 15)


def records_are_answers(folder: Path, got: list[Got]) -> None:
    store = f"sqlite:///{folder}/g/artifacts/store/store.db"
    written(store, folder / "g" / "artifacts" / "store" / "spool")
    counted = dict(asked(store, "SELECT status, count(*) FROM predictions GROUP BY status"))
    assert counted == {status: sum(each.status == status for each in got) for status in {each.status for each in got}}


def test_with_two_who_can_wait_three_seconds_is_answered(tmp_path: Path) -> None:
    with served(tmp_path, 2) as (servers, running):
        with callers(running.port) as got:
            frozen_at = time.monotonic()
            servers[0].process.send_signal(signal.SIGSTOP)
            time.sleep(12)
            servers[0].process.send_signal(signal.SIGCONT)
            wait_for(lambda: "is asked again" in (tmp_path / "g" / "gateway.log").read_text(), 20)
            time.sleep(2)
        nothing_is_held(running, servers)
    failed = [each for each in got if each.status != 200]
    assert {(each.status, each.deadline_s) for each in failed} <= {(504, 1.0)}
    assert all(each.at < frozen_at + 2 * KNOWN_S for each in failed), "nobody is sent there once it is known"
    assert len(failed) <= 12
    records_are_answers(tmp_path, got)


@pytest.mark.parametrize("frozen_s", [5.0, 60.0])
def test_with_one_everybody_is_told_in_time_and_who_can_wait_is_answered(tmp_path: Path, frozen_s: float) -> None:
    with served(tmp_path, 1) as (servers, running):
        with callers(running.port) as got:
            frozen_at = time.monotonic()
            servers[0].process.send_signal(signal.SIGSTOP)
            ready = HTTPConnection("127.0.0.1", running.port, timeout=30)

            def report() -> dict[str, str]:
                ready.request("GET", "/v2/health/ready")
                return dict(json.loads(ready.getresponse().read()))

            wait_for(lambda: report()["triton"] == "down", 15)
            assert report()["gateway"] == "ready"
            time.sleep(max(0.0, frozen_at + frozen_s - time.monotonic()))
            servers[0].process.send_signal(signal.SIGCONT)
            wait_for(lambda: report()["triton"] == "up", 15)
            time.sleep(3)
            late = [each for each in got if each.at > time.monotonic() - 1]
            ready.close()
        assert late and {each.status for each in late} == {200}
        nothing_is_held(running, servers)
    for each in got:
        assert each.status in (200, 503, 504)
        assert each.status != 503 or each.retry_after == "1"
    beyond_s = sorted(each.took_s - (each.deadline_s or 30.0) for each in got)
    assert beyond_s[len(got) * 19 // 20] < 1.0 and beyond_s[-1] < 10.0  # a busy machine's callers are late to read
    if frozen_s < 20:
        assert {each.status for each in got if each.deadline_s is None} == {200}
    assert all(each.at < frozen_at + 2 * KNOWN_S for each in got if each.status == 504)
    records_are_answers(tmp_path, got)


@pytest.mark.parametrize("goes_on", [True, False])
def test_an_answer_of_ten_megabytes_goes_on_or_is_broken_off(tmp_path: Path, goes_on: bool) -> None:
    said, got = header("IN", "FP32", [1], 4), list[Got]()
    with served(tmp_path, 1) as (servers, running):
        assert ask(running.port, None, "big", said, b"\0\0\0\0").size > 10_000_000
        threads = [
            threading.Thread(target=lambda: got.append(ask(running.port, 4.0, "big", said, b"\0\0\0\0")))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
        servers[0].process.send_signal(signal.SIGSTOP)
        time.sleep(2.5 if goes_on else 16)
        servers[0].process.send_signal(signal.SIGCONT)
        for thread in threads:
            thread.join()
        assert all(each.took_s < 4 + 10 + 3 for each in got)  # what has begun has ten seconds more
        assert {each.status for each in got} <= ({200} if goes_on else {200, 503, 504})
        if goes_on:
            assert {each.size > 10_000_000 for each in got} == {True}
        wait_for(lambda: ask(running.port, 5.0, "big", said, b"\0\0\0\0").status == 200, 30)
        nothing_is_held(running, servers)
