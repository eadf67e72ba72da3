"""TensorRT-RTX in the place of TensorRT, and onnxruntime in the place of a GPU: `--target tensorrt` without either.

What is compiled is compiled by TensorRT-RTX, which has the same interface and needs no GPU. The plan that it gives gets
TensorRT's header; it is run by onnxruntime, from the graph that it was built from, as fast as a test says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import onnx
import pytest
import tensorrt_rtx

from contracts.engines.plans import SERVER_TENSORRT
from contracts.samples import Batch
from contracts.spec import ModelSpec
from export import prove_engine
from export.precision import fp16
from export.proof import engine
from export.proof.plan_runner import GRAPH
from export.proof.runners import memory_runner
from export.release import choose

# What a graph takes on the GPU, by its file's name.
MILLISECONDS: Mapping[str, float] = {
    "fp32": 0.04,
    "bf16": 0.03,
    "fp16": 0.03,
    "int8": 0.025,
    "int8-fp16": 0.02,
    "fp8-fp16": 0.015,
}


@dataclass
class Gpu:
    """The GPU that a test pretends to have, and what was built on it."""

    name: str = "NVIDIA H100 80GB HBM3"
    capability: tuple[int, int] = (9, 0)
    tensorrt: str = SERVER_TENSORRT
    graphs: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)  # {plan: its graph's file and content}
    levels: list[str] = field(default_factory=list)  # of hardware compatibility, as they were asked for

    def builder(self, log: Any) -> Any:
        """Return a builder that compiles with TensorRT-RTX, and gives a plan with TensorRT's header."""
        real = tensorrt_rtx.Builder(log)

        def build(network: Any, config: Any) -> bytes | None:
            self.levels.append(config.hardware_compatibility_level.name)
            plan = real.build_serialized_network(network, config.real)
            if plan is None:
                return None
            header = b"ftrt" + bytes(20) + bytes(int(part) for part in self.tensorrt.split("."))
            return header + self.levels[-1].encode() + bytes(plan)[28:]

        return SimpleNamespace(
            build_serialized_network=build,
            create_builder_config=lambda: Config(real.create_builder_config()),
            create_network=real.create_network,
            create_optimization_profile=real.create_optimization_profile,
        )


class Config:
    """TensorRT-RTX's configuration, with a level of hardware compatibility, of which that has one alone."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.hardware_compatibility_level = tensorrt_rtx.HardwareCompatibilityLevel.NONE

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Let the exports of this process find a TensorRT and a GPU."""
    import torch

    gpu = Gpu()
    library = SimpleNamespace(**{n: getattr(tensorrt_rtx, n) for n in dir(tensorrt_rtx) if not n.startswith("__")})
    library.Builder, library.__version__ = gpu.builder, SERVER_TENSORRT
    load, build = engine.load, engine.build

    def remembered(graph: Path, spec: ModelSpec, options: engine.BuildOptions) -> engine.BuiltEngine:
        built = build(graph, spec, options)
        gpu.graphs[built.plan] = graph.stem, graph.read_bytes()
        return built

    class Runner:
        how = GRAPH

        def __init__(self, plan: bytes, spec: ModelSpec) -> None:
            self.name, graph = gpu.graphs[plan]
            # As a GPU would round it. onnxruntime fuses Q/DQ pairs around FP16 into something else on a CPU.
            model = fp16.simulate_fp16(onnx.load_from_string(graph))
            self.run = memory_runner(model, [tensor.name for tensor in spec.outputs], fused=False)

        def __call__(self, batch: Batch) -> Batch:
            return self.run(batch)

        def gpu_ms(self, batch: Batch) -> float:
            return MILLISECONDS[self.name]

        def inspect(self) -> str:
            return '{"Layers": []}'

        def __enter__(self) -> Self:
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            pass

    monkeypatch.setattr(engine, "load", lambda name: library if name == "tensorrt" else load(name))
    monkeypatch.setattr(engine, "library_version", lambda: gpu.tensorrt)
    monkeypatch.setattr(engine, "build", remembered)
    for module in (prove_engine, choose):
        monkeypatch.setattr(module, "PlanRunner", Runner)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)  # as ModelOpt, which then computes FP8 there
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: gpu.name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu.capability)
    return gpu
