"""The steps of a GPU day that need a GPU, over servers, drivers and GPUs that say what they are told to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu_day.checks import (
    answers,
    cuda_memory,
    gpu_timing,
    graphs,
    machine,
    offline,
    reload,
    servers,
)
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError, StepError
from benchmarks.gpu_day.serving import Serving
from contracts import manifest, repository
from deploy.devices import driver
from deploy.devices.driver import Driver, Gpu
from tests.benchmarks.test_gpu_day_checks import METRICS, failed
from tests.conftest import FAMILY
from tests.small_releases import published, release_of


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "found.json")


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(tmp_path / "day", "gpu", (FAMILY,))


@dataclass(frozen=True)
class FakeServer:
    """A server as a step sees it, that says what it is told to."""

    logs: list[list[Mapping[str, Any]]] = field(default_factory=list)
    metrics: str = ""
    reload: tuple[int, str] = (0, "")

    def log(self) -> list[Mapping[str, Any]]:
        return self.logs.pop(0)

    def get_metrics(self) -> str:
        return self.metrics

    def deploy(self, *arguments: str) -> tuple[int, str]:
        return self.reload

    @contextmanager
    def serving(self, day: Day, name: str, *options: str) -> Iterator["FakeServer"]:
        yield self


def said(*messages: str) -> list[Mapping[str, Any]]:
    return [{"message": message} for message in messages]


def captured(*instances: str, batches: tuple[int, ...] = (1, 16, 64)) -> list[Mapping[str, Any]]:
    return said(*(f"captured CUDA graph for {i}, batch size {batch}" for i in instances for batch in batches))


LAUNCHED = "Context with profile default [0] is launching CUDA graph for net_0_0"
EXECUTED = "Context with profile default [0] is being executed for net_0_0"


@pytest.mark.parametrize(
    ("loaded", "asked", "wrong"),
    [
        (captured("net_0_0", "net_0_1"), said(LAUNCHED, LAUNCHED), []),
        (captured("net_0_0", batches=(1, 16)), said(LAUNCHED), ["every graph was captured, in every instance"]),
        ([], said(EXECUTED), ["every graph was captured, in every instance", "every request launched a graph"]),
        (captured("net_0_0"), said(LAUNCHED, EXECUTED), ["every request launched a graph"]),
        (captured("net_0_0"), said(LAUNCHED, "unable to start CUDA graph for net_0_1: busy"), ["no capture failed"]),
    ],
)
def test_graphs_are_held_to_the_configuration(
    release: Path,
    day: Day,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    loaded: list[Mapping[str, Any]],
    asked: list[Mapping[str, Any]],
    wrong: list[str],
) -> None:
    fake = FakeServer(logs=[loaded, [*loaded, *asked]])
    monkeypatch.setattr(graphs, "serving", fake.serving)
    monkeypatch.setattr(offline, "served", lambda day: offline.Served(release, manifest.read(release), ()))
    monkeypatch.setattr(answers, "requests", lambda server, release: {1: None, 16: None})
    monkeypatch.setattr(answers, "one_at_a_time", lambda server, asked: None)
    graphs.look(day, record)
    assert failed(record) == wrong


@pytest.mark.parametrize(
    ("code", "told", "wrong"),
    [
        (1, "net version 2 was built by TensorRT 10.1.0.106, and the server has 11.1.0.106", []),
        (1, "it did not load", ["and says which TensorRT"]),
        (0, "net: version 1 → 2", ["the reload refuses it", "and says which TensorRT"]),
    ],
)
def test_a_plan_of_another_tensorrt_has_to_be_refused_and_is_removed_again(
    tmp_path: Path, day: Day, record: Record, monkeypatch: pytest.MonkeyPatch, code: int, told: str, wrong: list[str]
) -> None:
    first = published(tmp_path, 1)
    (first / "model.plan").write_bytes(b"ftrt" + bytes(20) + bytes([11, 1, 0, 106]))
    manifest.write(replace(manifest.read(first), files=manifest.files_of(first)), first)
    fake = FakeServer(reload=(code, told))
    monkeypatch.setattr(reload, "serving", fake.serving)
    monkeypatch.setattr(offline, "served", lambda day: offline.Served(first, manifest.read(first), ()))
    monkeypatch.setattr(answers, "requests", lambda server, release: {})
    monkeypatch.setattr(answers, "one_at_a_time", lambda server, asked: answers.Alone())
    reload.wrong_plan(day, record)
    assert failed(record) == wrong
    assert repository.versions(first.parent) == [1]


def test_a_gauge_that_a_gpu_lacks_is_named(day: Day, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "serving", FakeServer(metrics=METRICS).serving)
    servers.metrics(day, record)
    assert failed(record) == ["nv_gpu_memory_total_bytes", "nv_gpu_power_usage"]


def test_the_plan_is_the_one_of_the_first_gpu_that_cuda_sees(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = offline.Served(release, manifest.read(release), ())
    hopper, ada = (Gpu(i, "a GPU", f"GPU-{i}", cc, 1 << 30) for i, cc in enumerate(("9.0", "8.9")))
    monkeypatch.setattr(driver, "ask", lambda: Driver("580.1", "13.0", (hopper, ada)))
    with pytest.raises(StepError, match=r"no plan for the first GPU: model.sm90.plan is not there"):
        offline.plan(served)
    monkeypatch.setattr(driver, "ask", lambda: None)
    with pytest.raises(StepError, match="no GPU is visible"):
        offline.plan(served)


class FakeEvent:
    """An event of a GPU on which everything between two events takes 40 ms."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""

    def elapsed_time(self, end: "FakeEvent") -> float:
        return 40.0


class FakeGraph:
    """A graph that remembers how often it was replayed."""

    replayed = 0

    def replay(self) -> None:
        FakeGraph.replayed += 1


@pytest.mark.parametrize("captured", [True, False])
def test_a_computation_is_timed_three_ways_or_two_where_it_cannot_be_captured(
    monkeypatch: pytest.MonkeyPatch, captured: bool
) -> None:
    @contextmanager
    def capturing(graph: FakeGraph, stream: object) -> Iterator[None]:
        if not captured:
            raise RuntimeError("operation not permitted when stream is capturing")
        yield

    monkeypatch.setattr(FakeGraph, "replayed", 0)
    fakes = {"Stream": object, "stream": lambda stream: nullcontext(), "Event": FakeEvent, "CUDAGraph": FakeGraph}
    for name, fake in {**fakes, "graph": capturing}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    computed: list[int] = []
    ways = gpu_timing.three_ways(lambda: None, lambda: computed.append(1))
    assert ways.launched_ms == 40 / 20 and ways.graph_ms == (40 / 20 if captured else None)
    assert len(computed) == 55 * 20 + captured and FakeGraph.replayed == 55 * 20 * captured
    assert ways.harness_over_graph == pytest.approx(ways.harness_ms / 2)


@pytest.mark.parametrize("refused", [None, "cudaIpcGetMemHandle"])
def test_cuda_memory_is_registered_as_long_as_it_is_there(
    day: Day, monkeypatch: pytest.MonkeyPatch, refused: str | None
) -> None:
    done: list[str] = []

    class FakeRuntime:
        def __getattr__(self, name: str) -> Any:
            def call(*given: Any) -> Any:
                done.append(name)
                return b"not supported" if name == "cudaGetErrorString" else 801 * (name == refused)

            return call

    monkeypatch.setattr(cuda_memory, "_runtime", FakeRuntime)
    posted = lambda server, verb, body: done.append(f"{verb} {body.get('byte_size', '')}")  # noqa: E731
    monkeypatch.setattr(cuda_memory, "_post", posted)
    here, values = Serving(day, Path(), "", "", ""), np.zeros((2, 3), np.float32)
    begun = ["cudaMalloc", "cudaMemcpy", "cudaIpcGetMemHandle"]
    if refused:
        with pytest.raises(SkippedError, match="cudaIpcGetMemHandle failed: not supported"):
            cuda_memory.region(here, values).__enter__()
        assert done == [*begun, "cudaGetErrorString", "cudaFree"]
    else:
        with cuda_memory.region(here, values):
            done.append("asked")
        assert done == [*begun, "register 24", "asked", "unregister ", "cudaFree"]


def test_a_gpu_that_is_busy_or_that_pytorch_does_not_see_is_found(
    day: Day, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    h100 = Gpu(0, "NVIDIA H100", "GPU-0", "9.0", 80 << 30, ("MIG-1", "MIG-2"))
    monkeypatch.setattr(driver, "ask", lambda: Driver("550.1", "12.4", (h100,)))
    monkeypatch.setattr(machine, "_in_use", lambda: [{"name": "NVIDIA H100", "used MB": 900, "busy %": 40}])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine.look(day, record)
    assert record.figures["gpus"][0]["MIG"] == "2 slices" and record.figures["driver_cuda"] == "12.4"
    assert failed(record) == [
        "driver and GPUs run CUDA 13 and TensorRT 11",
        "nothing else computes on the GPU, or its times are not ours",
        "PyTorch sees a GPU",
    ]


def test_what_is_served_is_computed_offline_by_its_plan(
    tmp_path: Path, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "model.sm90.plan"
    plan.write_bytes(b"a plan")
    monkeypatch.setattr(offline, "plan", lambda release: plan)
    monkeypatch.setattr(offline, "context", lambda day: SimpleNamespace(source=SimpleNamespace(spec="its spec")))
    monkeypatch.setattr(offline, "PlanRunner", lambda content, spec: nullcontext((content, spec)))
    release = offline.Served(tmp_path, release_of(()), ())
    with offline.runner(day, release) as run:
        assert run == (b"a plan", "its spec")
