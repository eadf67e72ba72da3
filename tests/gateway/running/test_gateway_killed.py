"""A gateway that is killed at whatever moment has left a record of every answer; one that cannot write any says so."""

import json
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.gateway import whole
from tests.gateway.tritons import Running
from tests.gateway.whole import Whole
from tests.store.records import asked, written

CALLERS = 8
IMAGE = b"\4\0\0\0boot"
HEADER = json.dumps(
    {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 8}}]}
).encode()


pytestmark = pytest.mark.heavy


def ask_on(running: Whole, key: str, answered: list[str]) -> None:
    """Ask until the gateway is gone; keep the ids of whole answers."""
    connection = HTTPConnection("127.0.0.1", running.port, timeout=10)
    headers = {"Authorization": f"Bearer {key}", "Inference-Header-Content-Length": str(len(HEADER))}
    try:
        while True:
            connection.request("POST", "/v2/models/labels/infer", HEADER + IMAGE, headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 200
            answered.append(response.headers["x-request-id"])
    except (OSError, HTTPException):
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("after", [200, 701, 1302])
def test_every_answer_of_a_gateway_that_was_killed_has_its_record(
    typed_triton: Running, tmp_path: Path, after: int
) -> None:
    with whole.up(tmp_path / "g", typed_triton.address, options=("--without-writer",)) as running:
        answered: list[str] = []
        key = running.admin()
        callers = [threading.Thread(target=ask_on, args=(running, key, answered)) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        while len(answered) < after:
            time.sleep(0.001)
        running.process.kill()
        for caller in callers:
            caller.join()
    store = f"sqlite:///{tmp_path}/g/artifacts/store/store.db"
    written(store, tmp_path / "g" / "artifacts" / "store" / "spool")
    recorded = {row[0] for row in asked(store, "SELECT id FROM predictions")}
    assert not set(answered) - recorded, "nothing is lost"
    assert len(recorded - set(answered)) <= CALLERS  # those that were about to be answered


def test_records_that_are_lost_cost_no_request_and_are_counted(typed_triton: Running, tmp_path: Path) -> None:
    """As on a disk that is full, or one that only reads."""
    (tmp_path / "spool").write_text("no folder")
    options = ("--without-writer",)
    with whole.up(tmp_path / "g", typed_triton.address, options=options, record__spool=str(tmp_path / "spool")) as up:
        for _ in range(3):
            assert up.ask("POST", "/v1/models/labels/predict", {"rows": [{"image": "boot"}]}).status == 200
        deadline = time.monotonic() + 10
        while "gateway_records_lost_total 3.0" not in (said := up.ask("GET", "/metrics").body.decode()):
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
