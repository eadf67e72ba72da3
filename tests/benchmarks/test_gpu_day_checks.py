"""What the steps of a GPU day look at, as far as it can be looked at without a GPU: the same code, on a CPU."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tritonclient.http import InferInput

from benchmarks.gpu_day import graph_log
from benchmarks.gpu_day.checks import (
    answers,
    cuda_memory,
    gpu_timing,
    machine,
    network,
    offline,
    plans,
    reload,
    servers,
)
from benchmarks.gpu_day.checks.gpu_timing import Ways
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError
from benchmarks.gpu_day.serving import Serving
from contracts import manifest
from contracts.golden import GoldenRequest
from contracts.samples import Batch
from deploy.running import logs
from export.proof.plan_runner import LAUNCHES, PlanRunner
from export.proof.runners import Runner
from tests.conftest import FAMILY, MODEL, RunningServer
from tests.export import modules
from tests.small_releases import release_of

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
I1129 11:00:00.000001 1 instance_state.cc:4024] "captured CUDA graph for network_0_0, batch size 1"
I1129 11:00:00.000002 1 instance_state.cc:4024] "captured CUDA graph for network_0_0, batch size 16"
I1129 11:00:00.000003 1 instance_state.cc:4024] "captured CUDA graph for network_0_1, batch size 1"
W1129 11:00:00.000004 1 instance_state.cc:3919] "unable to record CUDA graph for network_0_1"
E1129 11:00:00.000005 1 instance_state.cc:3997] "unable to instantiate CUDA graph for network_0_1: invalid"
I1129 11:00:00.000006 1 instance_state.cc:211] "Created instance network_0_0 on GPU 0 with stream priority 0"
I1129 11:00:01.000001 1 instance_state.cc:1324] "Context with profile default [0] is launching CUDA graph for \
network_0_0"
I1129 11:00:01.000002 1 instance_state.cc:1350] "Context with profile default [0] is being executed for \
network_0_1"
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
    first, second = "network_0_0", "network_0_1"
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
    made = Day(tmp_path / "day", "cpu", (FAMILY,), requests=200)
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


def test_a_server_that_opens_no_cuda_memory_skips_the_step(server: RunningServer, day: Day) -> None:
    here = Serving(day, server.workspace.root / "artifacts", server.http, server.grpc, "")
    handle = {"raw_handle": {"b64": base64.b64encode(bytes(64)).decode()}, "device_id": 0, "byte_size": 4}
    with pytest.raises(SkippedError, match="the server does not register CUDA memory"):
        cuda_memory._post(here, "register", handle)


def test_rows_of_golden_requests_are_put_together_and_repeated() -> None:
    def request(values: list[float]) -> GoldenRequest:
        x = np.array(values, np.float32)[:, None]
        return GoldenRequest("net", {"x": x}, {"y": x * 2}, {"y": 0.5})

    release = offline.Served(Path(), release_of(()), (request([1.0]), request([2.0, 3.0])))
    made = release.of_rows(5)
    assert made is not None and made.inputs["x"].ravel().tolist() == [1, 2, 3, 1, 2]
    assert made.answers["y"].ravel().tolist() == [2, 4, 6, 2, 4] and made.tolerance == {"y": 0.5}
    assert (
        offline.sizes(64) == [1, 2, 5, 16, 17, 63, 64] and offline.sizes(8) == [1, 2, 5, 8] and offline.sizes(0) == [1]
    )


@pytest.mark.heavy
def test_the_network_is_timed_at_every_batch_and_precision(
    module: Day, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def three_ways(harness: Callable[[], Any], compute: Callable[[], Any]) -> Ways:
        [given], [computed] = harness().values(), compute()
        assert np.abs(given - computed.float().numpy()).max() < 1e-6
        return Ways(1.0, 0.5, None if len(given) == 8 else 0.25)

    monkeypatch.setattr(gpu_timing, "three_ways", three_ways)
    network.timing(module, record)
    rows = [(row["precision"], row["rows"], row["harness over graph"]) for row in record.figures["times"]]
    assert rows == [(p, size, 2.0 if size == 8 else 4.0) for p in ("fp32", "fp16") for size in (1, 4, 8)]
    assert failed(record) == ["the network could be captured as a CUDA graph"]


class FakePlan(PlanRunner):
    """A plan that gives what another runner does, in half a millisecond of the GPU's."""

    def __init__(self, run: Runner) -> None:
        self.how, self._run = LAUNCHES, run

    def __call__(self, batch: Batch) -> Batch:
        return self._run(batch)

    def gpu_ms(self, batch: Batch) -> float:
        return 0.5


def test_a_plan_is_timed_on_the_gpu_alone_too(served: Day, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    real = offline.runner

    @contextmanager
    def a_plan(day: Day, release: offline.Served) -> Iterator[FakePlan]:
        with real(day, release) as run:
            yield FakePlan(run)

    monkeypatch.setattr(offline, "runner", a_plan)
    plans.timing(served, record)
    assert {row["on the GPU ms"] for row in record.figures["times"]} == {0.5}
    assert failed(record) == ["every batch could be captured as a CUDA graph"]


def test_inputs_in_cuda_memory_are_asked_with_beside_those_in_the_request(
    served: Day, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[NDArray[Any]] = []

    @contextmanager
    def region(server: Serving, values: NDArray[Any]) -> Iterator[None]:
        kept.append(values)
        yield

    class Input(InferInput):  # type: ignore[misc]  # tritonclient
        def set_shared_memory(self, region_name: str, byte_size: int) -> None:
            assert byte_size == kept[0].nbytes
            self.set_data_from_numpy(kept[0])

    monkeypatch.setattr(cuda_memory, "serving", answers.serving)
    monkeypatch.setattr(cuda_memory, "region", region)
    monkeypatch.setattr(cuda_memory, "InferInput", Input)
    monkeypatch.setattr(cuda_memory, "_ROUND_TRIPS", 3)
    cuda_memory.look(served, record)
    assert [row["input"] for row in record.figures["round_trips"]] == ["in the request", "in CUDA memory"]
    assert len(record.checks) == 2 and failed(record) == []
