"""What the steps of a GPU day look at, as far as it can be looked at without a GPU: the same code, on a CPU."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu_day import graph_log
from benchmarks.gpu_day.checks import answers, machine, network, offline, plans, reload, servers
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError
from benchmarks.gpu_day.serving import Serving
from contracts import manifest
from deploy.running import logs
from tests.conftest import MODEL, RunningServer
from tests.export import modules

NETWORK = """
model = "net"
task = "values"
[[inputs]]
name = "x"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 4, max = 8 }, 4]
[[outputs]]
name = "y"
dtype = "float32"
shape = [{ name = "batch", min = 1, opt = 4, max = 8 }, 2]
[limits.fp32]
tolerance = { y = 1e-5 }
[limits.fp16]
tolerance = { y = 0.01 }
"""
# The sentences of tensorrt_backend r26.07 in the form of Triton's log.
LOG = """\
I1129 11:00:00.000001 1 instance_state.cc:4024] "captured CUDA graph for fashion_classifier_0_0, batch size 1"
I1129 11:00:00.000002 1 instance_state.cc:4024] "captured CUDA graph for fashion_classifier_0_0, batch size 16"
I1129 11:00:00.000003 1 instance_state.cc:4024] "captured CUDA graph for fashion_classifier_0_1, batch size 1"
W1129 11:00:00.000004 1 instance_state.cc:3919] "unable to record CUDA graph for fashion_classifier_0_1"
E1129 11:00:00.000005 1 instance_state.cc:3997] "unable to instantiate CUDA graph for fashion_classifier_0_1: invalid"
I1129 11:00:00.000006 1 instance_state.cc:211] "Created instance fashion_classifier_0_0 on GPU 0 with stream priority 0"
I1129 11:00:01.000001 1 instance_state.cc:1324] "Context with profile default [0] is launching CUDA graph for \
fashion_classifier_0_0"
I1129 11:00:01.000002 1 instance_state.cc:1350] "Context with profile default [0] is being executed for \
fashion_classifier_0_1"
I1129 11:00:01.000003 1 http_server.cc:4729] "HTTP request: 2 /v2/models/is launching CUDA graph for nobody/infer"
"""
METRICS = """\
# HELP nv_gpu_memory_used_bytes GPU used memory, in bytes
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1500000000.000000
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.250000
nv_energy_consumption{gpu_uuid="GPU-1"} 1234.5
nv_inference_count{model="m",version="1"} 3
"""


def moved(request: Any) -> Any:
    """The request with answers that are not right."""
    return replace(request, answers={name: values + 0.1 for name, values in request.answers.items()})


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "found.json")


def failed(record: Record) -> list[str]:
    return [check.name for check in record.checks if not check.passed]


def test_tritons_log_tells_which_graphs_were_captured_and_launched(tmp_path: Path) -> None:
    kept: list[Mapping[str, Any]] = []
    logs.record(io.BytesIO(LOG.encode()), tmp_path / "triton.jsonl", kept.append)
    found = graph_log.read(kept)
    first, second = "fashion_classifier_0_0", "fashion_classifier_0_1"
    assert found.captured == {(first, 1): 1, (first, 16): 1, (second, 1): 1}
    assert found.instances == [first, second] and found.batches == [1, 16]
    assert (found.launched, found.executed) == (1, 1)
    assert [said.partition(" for")[0] for said in found.failures] == [
        "unable to record CUDA graph", "unable to instantiate CUDA graph",
    ]  # fmt: skip


def test_tritons_metrics_of_gpus_are_read() -> None:
    assert [(row["name"], row["gpu"], row["value"]) for row in servers.gauges(METRICS)] == [
        ("nv_gpu_memory_used_bytes", "GPU-1", 1.5e9), ("nv_gpu_utilization", "GPU-1", 0.25),
        ("nv_energy_consumption", "GPU-1", 1234.5),
    ]  # fmt: skip
    assert servers.memory_of_gpus(METRICS) == {"GPU-1": 1500}


def test_a_plan_is_made_one_of_another_tensorrt() -> None:
    plan = b"ftrt" + bytes(20) + bytes([11, 1, 0, 106]) + b"rest"
    other = reload.of_another_tensorrt(plan)
    assert [*other[24:28]] == [10, 1, 0, 106]
    assert len(other) == len(plan) and other[:24] == plan[:24] and other[25:] == plan[25:]


def test_graphs_are_switched_off_in_the_bundle_alone(release: Path, tmp_path: Path) -> None:
    served = offline.Served(release, manifest.read(release), ())
    copied = tmp_path / "release" / MODEL
    copied.mkdir(parents=True)
    (copied / "config.pbtxt").write_text((release / "release" / MODEL / "config.pbtxt").read_text())
    assert reload.without_graphs(tmp_path, served)
    assert "graphs: false" in (copied / "config.pbtxt").read_text()
    assert not reload.without_graphs(tmp_path, served)
    assert "graphs: true" in (release / "release" / MODEL / "config.pbtxt").read_text()


def test_the_machine_is_described_without_a_gpu(day: Day, record: Record) -> None:
    machine.look(day, record)
    assert record.figures["packages"]["torch"] and record.figures["cpus"]
    assert record.figures["tritonserver"]
    assert record.checks == [] or record.figures["gpus"]


@pytest.fixture
def day(tmp_path: Path) -> Day:
    made = Day(tmp_path / "day", "cpu", ("fashion",), requests=200)
    made.write()
    return made


@pytest.fixture
def served(server: RunningServer, day: Day, monkeypatch: pytest.MonkeyPatch) -> Day:
    """A day that has published what the session's server serves, which stands for the servers of its steps."""
    day.work.mkdir()
    day.repository.symlink_to(server.workspace.repository)

    @contextmanager
    def serving(day: Day, name: str, *options: str) -> Iterator[Serving]:
        yield Serving(day, server.workspace.root / "artifacts", server.http, server.grpc, "")

    for module in (answers, plans):
        monkeypatch.setattr(module, "serving", serving)
    monkeypatch.setattr(answers, "_REPEATS", 3)
    monkeypatch.setattr(plans, "_CALLS", 3)
    return day


def test_answers_are_what_the_release_gives_offline_at_every_batch(served: Day, record: Record) -> None:
    answers.look(served, record)
    assert [row["rows"] for row in record.figures["alone"]] == [1, 2, 5, 16, 17, 63, 64]
    assert record.figures["triton"] == "2.51.0"
    [load] = record.figures["in_company"]
    assert load["answers"] == 200 and load["rows"] > 200 and load["same bits as offline"] > 0
    # onnxruntime may add in another order than with the threads of the server: then it says how far.
    assert failed(record) in ([], ["one request at a time: bit for bit what it gives offline"])


def test_an_answer_of_another_release_is_found(served: Day, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def another(day: Day, release: offline.Served) -> Iterator[Any]:
        yield lambda inputs: {"probabilities": np.zeros((len(inputs["pixels"]), 10), np.float32)}

    monkeypatch.setattr(offline, "runner", another)
    real = offline.Served.of_rows
    monkeypatch.setattr(offline.Served, "of_rows", lambda self, rows: moved(real(self, rows)))
    answers.look(served, record)
    assert failed(record) == [
        "one request at a time: bit for bit what it gives offline",
        "in company: 200 answers within the golden tolerance",
    ]


def test_a_plan_is_timed_beside_tritons_own_statistics(served: Day, record: Record) -> None:
    plans.timing(served, record)
    assert [row["rows"] for row in record.figures["times"]] == [1, 2, 5, 16, 17, 63, 64]
    for row in record.figures["times"]:
        assert row["harness ms"] > 0 and 0 < row["Triton's infer ms"] < row["request ms"] * 3
        assert row["on the GPU ms"] is None


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Day:
    """A day for a module of plain PyTorch."""
    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path / "artifacts"))
    torch.manual_seed(0)
    torch.save(modules.Net().eval().state_dict(), tmp_path / "weights.pt")
    samples = modules.save(tmp_path, x=modules.floats(modules.BATCH, 4))
    (tmp_path / "spec.toml").write_text(NETWORK)
    weights, spec = str(tmp_path / "weights.pt"), str(tmp_path / "spec.toml")
    export = ("--torch", "tests.export.modules:Net", "--weights", weights, "--inputs", str(samples), "--spec", spec)
    return Day(tmp_path / "day", "cpu", export)


@pytest.mark.heavy
def test_fp32_and_fp16_of_the_network_are_held_to_the_limits_and_to_the_emulation(
    module: Day, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.fp32(module, record)
    network.fp16(module, record)
    assert failed(record) == []
    assert "from our emulation: largest difference of y" in {check.name for check in record.checks}
    assert 0 < record.figures["fp16_from_the_reference"][0]["largest"] < 0.01
    assert record.figures["fp32_from_the_reference"][0]["largest"] < 1e-5


@pytest.mark.heavy
def test_a_gpu_that_computes_something_else_is_found(
    module: Day, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = network._runner

    def off(*given: Any) -> Any:
        run = real(*given)
        return lambda batch: {name: values * 1.1 for name, values in run(batch).items()}

    monkeypatch.setattr(network, "_runner", off)
    network.fp32(module, record)
    assert "largest difference of y" in failed(record)


@pytest.mark.heavy
def test_what_has_no_module_is_skipped_by_name(tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.export import small_graphs

    monkeypatch.setenv("ARTIFACTS_DIR", str(tmp_path / "artifacts"))
    brought = small_graphs.write(tmp_path, "classes")
    export = ("--onnx", str(brought.graph), "--spec", str(brought.spec), "--inputs", *map(str, brought.samples))
    with pytest.raises(SkippedError, match="no PyTorch module"):
        network.fp32(Day(tmp_path / "day", "cpu", export), record)
