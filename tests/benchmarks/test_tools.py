"""The real perf_analyzer and the real Locust measure the real server."""

import json
import struct
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import MeasurementError
from benchmarks.serving import perf_analyzer
from benchmarks.workload import Workload
from clients.core.metadata import ModelMetadata
from contracts import layout
from contracts.golden import GoldenRequest
from tests.conftest import FAMILY, RunningServer, Workspace


def test_perf_analyzer_measures_both_protocols(server: RunningServer, examples: Path) -> None:
    done = server.workspace.run_here("benchmarks", "perf", "--concurrency", "1", "4", "--window", "0.5")
    assert done.returncode == 0, done.stderr
    assert "requests/s" in done.stdout
    measured = json.loads(done.stdout.splitlines()[-1])["measurements"]
    assert [(m["protocol"], m["concurrency"]) for m in measured] == [("grpc", 1), ("grpc", 4), ("http", 1), ("http", 4)]
    for m in measured:
        assert m["throughput_per_s"] > 0
        assert 0 < m["p50_ms"] <= m["p90_ms"] <= m["p95_ms"] <= m["p99_ms"]
        # Little's law, loosely: what is under way is throughput times latency.
        assert m["throughput_per_s"] * m["p50_ms"] / 1000 < 2 * m["concurrency"]


def test_perf_analyzer_without_a_server_says_so(workspace: Workspace) -> None:
    done = workspace.run_here("benchmarks", "perf")
    assert done.returncode == 1
    assert "error: no server is up" in done.stderr


def test_a_model_that_is_not_served_is_an_error(server: RunningServer) -> None:
    once = ("--model", "nope", "--protocol", "grpc", "--concurrency", "1")
    done = server.workspace.run_here("benchmarks", "perf", *once)
    assert done.returncode == 1
    assert "does not serve the model 'nope'" in done.stderr


def test_what_perf_analyzer_cannot_do_is_an_error_with_its_reason(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACTS_DIR", server.workspace.environment["ARTIFACTS_DIR"])  # where it is
    (tmp_path / "requests.json").write_text('{"data": [{}]}')
    with pytest.raises(MeasurementError, match=r"(?s)perf_analyzer failed at concurrency 1 over grpc.*nope"):
        tool = perf_analyzer.find()
        perf_analyzer.measure(tool, "nope", "grpc", server.grpc, 1, tmp_path / "requests.json", 100)


def test_requests_carry_the_images_themselves(tmp_path: Path) -> None:
    images = [b"\x89PNG one", b"the other"]
    requests = tuple(GoldenRequest("any", {"image": np.array([[image]], np.object_)}, {}) for image in images)
    sent = Workload(ModelMetadata("any", (), (), max_batch_size=8), requests, "images")
    written = json.loads(perf_analyzer.write_requests(sent, 100, (), tmp_path / "requests.json").read_text())
    assert written.keys() == {"data"}
    for request, image in zip(written["data"], images, strict=True):
        raw = b64decode(request["image"]["content"]["b64"])
        assert raw == struct.pack("<I", len(image)) + image
        assert request["image"]["shape"] == [1]


def test_locust_runs_headless_in_one_command_without_failures(server: RunningServer, examples: Path) -> None:
    done = server.workspace.run(
        "locust", "-f", str(layout.ROOT / "benchmarks" / "locustfile.py"), "--headless", "-u", "4", "-r", "4",
        "-t", "5s", "--json", "--host", f"http://{server.http}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [stats] = json.loads(done.stdout)
    assert stats["name"] == f"infer ({FAMILY})"
    assert stats["num_requests"] > 20
    assert stats["num_failures"] == 0
