"""What people call Triton with works through the raw door as it is: with a key, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from benchmarks.serving import perf_analyzer
from clients import Client, TransportOptions
from clients.errors import AccessDeniedError, OverloadedError
from deploy.neighbours import direct
from tests.gateway.served import FEW, KEY, Gateway, gateway
from tests.gateway.tritons import Running

PIXELS = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
WORDS = np.array([[b"one"], [b""]], np.object_)


@pytest.fixture(scope="module")
def door(triton: Running) -> Iterator[Gateway]:
    with gateway(triton.address) as running:
        yield running


@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient(door: Gateway, binary_out: bool) -> None:
    client = triton_http.InferenceServerClient(door.address)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("pixels", headers=dict(KEY))
    assert client.get_server_metadata(headers=dict(KEY))["name"] == "triton"
    assert client.get_model_metadata("pixels", headers=dict(KEY))["inputs"][0]["name"] == "IN"
    assert client.get_model_config("pixels", headers=dict(KEY))["max_batch_size"] == 8
    for model, values, kind in (("pixels", PIXELS, "UINT8"), ("words", WORDS, "BYTES")):
        given = triton_http.InferInput("IN", list(values.shape), kind)
        given.set_data_from_numpy(values)
        outputs = [triton_http.InferRequestedOutput("OUT", binary_data=binary_out)]
        result = client.infer(
            model, [given], outputs=outputs, headers=dict(KEY), request_id="7", timeout=5_000_000, priority=2
        )
        assert result.get_response()["id"] == "7"
        answer = result.as_numpy("OUT")
        assert answer.shape == values.shape and [
            bytes(str(a), "utf-8") if isinstance(a, str) else a for a in answer.flat
        ] == list(values.flat)
    assert client.get_inference_statistics("pixels", headers=dict(KEY))["model_stats"][0]["name"] == "pixels"
    with pytest.raises(InferenceServerException, match="not open"):
        client.load_model("pixels", headers=dict(KEY))
    with pytest.raises(InferenceServerException, match="key"):
        client.infer("pixels", [given])
    client.close()


def test_our_clients(door: Gateway) -> None:
    with Client(f"http://{door.address}", transport=TransportOptions(headers=KEY)) as client:
        assert (client.infer("pixels", {"IN": PIXELS})["OUT"] == PIXELS).all()
    with Client(f"http://{door.address}") as client, pytest.raises(AccessDeniedError):
        client.infer("pixels", {"IN": PIXELS})
    door.keyring.spent.clear()
    with Client(f"http://{door.address}", transport=TransportOptions(headers=FEW)) as client:
        for _ in range(3):
            client.infer("pixels", {"IN": PIXELS})
        with pytest.raises(OverloadedError):
            client.infer("pixels", {"IN": PIXELS}, timeout_s=0.5)


@pytest.mark.slow
def test_perf_analyzer(door: Gateway, tmp_path: Path) -> None:
    """As the benchmarks call it, with a key more."""
    tool = perf_analyzer.find()
    command = [str(tool.executable), "-m", "words", "-i", "http", "-u", door.address, "--string-length", "5"]
    command += ["-H", f"Authorization:{KEY['Authorization']}", "--shape", "IN:1", "-b", "2", "-p", "500", "-s", "999"]
    environment = {**direct.environment(os.environ), **tool.environment}
    before = door.settled()
    done = subprocess.run(
        [*command, "-f", str(tmp_path / "table.csv")],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "table.csv").read_text().count("\n") >= 2
    assert door.settled() > before + 10
    assert {record["status"] for record in door.records[before:]} == {200}


@pytest.mark.slow
def test_locust(door: Gateway, tmp_path: Path) -> None:
    locustfile = tmp_path / "locustfile.py"
    locustfile.write_text(
        "from locust import FastHttpUser, task\n"
        "from tests.deploy.echoes import LENGTH, PIXELS\n"
        "HEADER = PIXELS.header()\n"
        "class Caller(FastHttpUser):\n"
        "    @task\n"
        "    def ask(self):\n"
        f"        headers = {{LENGTH: str(len(HEADER)), 'Authorization': {KEY['Authorization']!r}}}\n"
        "        body = HEADER + PIXELS.content\n"
        "        with self.client.post(PIXELS.path, body, headers=headers, catch_response=True) as said:\n"
        "            if not said.content.endswith(PIXELS.content):\n"
        "                said.failure('no echo')\n"
    )
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "-u", "4", "-r", "4", "-t", "3s"]
    command += ["--host", f"http://{door.address}", "--only-summary"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
