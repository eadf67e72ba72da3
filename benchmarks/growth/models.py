"""More and more models in one server: what starting it takes, its memory, and what it answers to all in turn."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.growth.asked import CONNECTIONS, ask, serving
from contracts import golden
from contracts.golden import GoldenRequest

_CONFIG = """name: "{name}"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 8
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""


@dataclass(frozen=True)
class Models:
    """What so many models in one server gave."""

    size: int
    start_s: float  # of the whole command
    memory_mb: float
    per_s: float  # of all in turn
    p99_ms: float


def measure(place: Path, sizes: Sequence[int], seconds: float) -> Iterator[Models]:
    """Start a server with so many small networks, and ask all of them.

    Raises:
        MeasurementError: it does not start, or answers wrong.
    """
    for size in sizes:
        repository = place / "model_repository"
        shutil.rmtree(repository, ignore_errors=True)
        requests = [_write(repository, f"twice_{number}") for number in range(size)]
        with serving(repository, place / "server") as up:
            point = ask(up, size, requests, seconds, connections=CONNECTIONS)
            yield Models(size, up.seconds, point.memory_mb, point.per_s, point.p99_ms)


def _write(repository: Path, name: str) -> GoldenRequest:
    """Write a network that doubles four numbers; return its golden request."""
    import onnx
    from onnx import TensorProto, helper

    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(_CONFIG.format(name=name))
    x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, ["b", 4]) for each in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], name, [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), version / "model.onnx"
    )
    numbers = np.arange(4, dtype=np.float32)[None]
    request = GoldenRequest(name, {"x": numbers}, {"y": 2 * numbers})
    golden.write([request], version)
    return request
