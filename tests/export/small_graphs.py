"""One small graph for each task, and for each shape that a batch cannot have: as files, with a spec and samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

BATCH = '{ name = "batch", min = 1, opt = 4, max = 8 }'
N = 60  # samples a group

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Brought:
    """A model as somebody brings it: a graph, a spec, and a file of samples for each length."""

    model: str
    graph: Path
    spec: Path
    samples: tuple[Path, ...]


def write(directory: Path, model: str) -> Brought:
    """Write one of MODELS into a folder of its own."""
    nodes, inputs, outputs, weights, spec, groups = MODELS[model]()
    folder = directory / model
    folder.mkdir()
    body = helper.make_graph(nodes, model, [_info(*i) for i in inputs], [_info(*o) for o in outputs], _weights(weights))
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, folder / "model.onnx")
    (folder / "spec.toml").write_text(f'model = "{model}"\n{spec}')
    files = []
    for number, arrays in enumerate(groups):
        files.append(folder / f"samples{number}.npz")
        np.savez(files[-1], **arrays)  # type: ignore[arg-type]  # numpy's stub: allow_pickle
    return Brought(model, folder / "model.onnx", folder / "spec.toml", tuple(files))


Info = tuple[str, int, list[str | int]]
Made = tuple[list[onnx.NodeProto], list[Info], list[Info], dict[str, NDArray[np.generic]], str, list[Arrays]]


def _classes() -> Made:
    w = _random(4, 3)
    x = _random(N, 4)
    spec = f"""labels = ["a", "b", "c"]
{_tensor("inputs", "x", "float32", f"{BATCH}, 4")}
{_tensor("outputs", "logits", "float32", f"{BATCH}, 3")}
[limits.fp32]
tolerance = {{ logits = 1e-4 }}
agreement = 1.0
accuracy_drop_points = 10
"""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    labels = (x @ w).argmax(axis=1)
    return nodes, [_x("batch", 4)], [_f("logits", "batch", 3)], {"w": w}, spec, [{"x": x, "labels": labels}]


def _characters() -> Made:
    """CTC, with samples of two lengths."""
    w, groups = _random(4, 5, scale=3.0), []
    for steps in (6, 9):
        x = _random(N, steps, 4)
        best, labels = (x @ w).argmax(axis=-1), np.full((N, steps), -1)
        for row, sequence in enumerate(best):
            kept = [int(b) for i, b in enumerate(sequence) if b and (i == 0 or b != sequence[i - 1])]
            labels[row, : len(kept)] = kept
        groups.append({"x": x, "labels": labels})
    steps_dim = '{ name = "steps", min = 4, opt = 6, max = 12 }'
    spec = f"""task = "ctc"
labels = ["", "a", "b", "c", "d"]
{_tensor("inputs", "x", "float32", f"{BATCH}, {steps_dim}, 4")}
{_tensor("outputs", "scores", "float32", f"{BATCH}, {steps_dim}, 5")}
[limits.fp32]
tolerance = {{ scores = 1e-4 }}
agreement = 1.0
drop = 10
"""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["scores"])]
    return nodes, [_x("batch", "steps", 4)], [_f("scores", "batch", "steps", 5)], {"w": w}, spec, groups


def _yes_or_no() -> Made:
    """One value a sample, of shape [batch]."""
    w = _random(4, 1)
    x = _random(N, 4)
    spec = f"""task = "binary"
threshold = 0.4
{_tensor("inputs", "x", "float32", f"{BATCH}, 4")}
{_tensor("outputs", "yes", "float32", BATCH)}
[limits.fp32]
tolerance = {{ yes = 1e-4 }}
agreement = 1.0
drop = 1
"""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
        helper.make_node("Reshape", ["p", "flat"], ["yes"]),
    ]
    labels = ((x @ w)[:, 0] + _random(N, scale=0.3) > 0).astype(np.int64)
    weights = {"w": w, "flat": np.array([-1])}
    return nodes, [_x("batch", 4)], [_f("yes", "batch")], weights, spec, [{"x": x, "labels": labels}]


def _price() -> Made:
    """Two inputs, one of them token ids of dynamic length, and a regression."""
    table, w = _random(50, 4), _random(8, 1)
    groups = []
    for tokens in (3, 7):
        a, ids = _random(N, 4), np.random.default_rng(tokens).integers(0, 50, (N, tokens))
        y = np.concatenate([a, table[ids].mean(axis=1)], axis=1) @ w
        groups.append({"a": a, "ids": ids, "labels": y + _random(N, 1, scale=0.1)})
    tokens_dim = '{ name = "tokens", min = 2, opt = 4, max = 8 }'
    spec = f"""task = "regression"
agree_within = 0.01
{_tensor("inputs", "a", "float32", f"{BATCH}, 4")}
{_tensor("inputs", "ids", "int64", f"{BATCH}, {tokens_dim}")}
{_tensor("outputs", "price", "float32", f"{BATCH}, 1")}
[limits.fp32]
tolerance = {{ price = 1e-4 }}
agreement = 1.0
drop = 0.001
"""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Concat", ["a", "mean"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "w"], ["price"]),
    ]
    inputs = [("a", TensorProto.FLOAT, ["batch", 4]), ("ids", TensorProto.INT64, ["batch", "tokens"])]
    return nodes, inputs, [_f("price", "batch", 1)], {"table": table, "w": w}, spec, groups


def _vectors() -> Made:
    w = _random(4, 3)
    x = np.repeat(_random(N // 4, 4), 4, axis=0) + _random(N, 4, scale=0.05)
    order = np.random.default_rng(1).permutation(N)
    spec = f"""task = "embedding"
agree_within = 1e-4
{_tensor("inputs", "x", "float32", f"{BATCH}, 4")}
{_tensor("outputs", "vector", "float32", f"{BATCH}, 3")}
[limits.fp32]
tolerance = {{ vector = 1e-4 }}
agreement = 1.0
drop = 10
"""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["vector"])]
    samples = {"x": x[order], "labels": np.repeat(np.arange(N // 4), 4)[order]}
    return nodes, [_x("batch", 4)], [_f("vector", "batch", 3)], {"w": w}, spec, [samples]


def _numbers() -> Made:
    spec = f"""task = "values"
{_tensor("inputs", "x", "float32", f"{BATCH}, 4")}
{_tensor("outputs", "y", "float32", f"{BATCH}, 4")}
[limits.fp32]
tolerance = {{ y = {{ largest = 1e-4, mean = 1e-5, p99 = 1e-4, relative = 1e-4 }} }}
"""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    return nodes, [_x("batch", 4)], [_f("y", "batch", 4)], {}, spec, [{"x": _random(N, 4)}]


def _voice() -> Made:
    """A recurrent step: a scalar rate and a state go in, the state comes out; a batch of one is baked in."""
    frames = '{ name = "frames", min = 2, opt = 4, max = 8 }'
    spec = f"""task = "values"
batch = false
{_tensor("inputs", "sound", "float32", f"1, {frames}")}
{_tensor("inputs", "state", "float32", "2, 1, 3")}
{_tensor("inputs", "rate", "int64", "")}
{_tensor("outputs", "speech", "float32", f"1, {frames}")}
{_tensor("outputs", "next_state", "float32", "2, 1, 3")}
{_tensor("outputs", "loudness", "float32", "")}
[limits.fp32]
tolerance = {{ speech = 1e-4, next_state = 1e-4, loudness = 1e-4 }}
"""
    nodes = [
        helper.make_node("Cast", ["rate"], ["hertz"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sound", "hertz"], ["scaled"]),
        helper.make_node("ReduceMean", ["state"], ["memory"], keepdims=0),
        helper.make_node("Add", ["scaled", "memory"], ["speech"]),
        helper.make_node("ReduceMean", ["scaled"], ["loudness"], keepdims=0),
        helper.make_node("Add", ["state", "loudness"], ["next_state"]),
    ]
    inputs: list[Info] = [
        ("sound", TensorProto.FLOAT, [1, "frames"]), ("state", TensorProto.FLOAT, [2, 1, 3]),
        ("rate", TensorProto.INT64, []),
    ]  # fmt: skip
    outputs = [_f("speech", 1, "frames"), _f("next_state", 2, 1, 3), _f("loudness")]
    groups = [
        {
            "sound": _random(N, 1, frames),
            "state": _random(N, 2, 1, 3),
            "rate": np.random.default_rng(frames).integers(1, 4, N),
        }
        for frames in (3, 6)
    ]
    return nodes, inputs, outputs, {}, spec, groups


def _boxes() -> Made:
    """As many rows as the data has: what is left after a threshold."""
    spec = f"""task = "values"
batch = false
tensorrt = false
{_tensor("inputs", "boxes", "float32", "10, 4")}
{_tensor("outputs", "kept", "float32", '{ name = "rows", min = 0, opt = 5, max = 10 }, 4')}
[limits.fp32]
tolerance = {{ kept = 1e-4 }}
"""
    nodes = [
        helper.make_node("ReduceMax", ["boxes"], ["best"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["best", "limit"], ["good"]),
        helper.make_node("Compress", ["boxes", "good"], ["kept"], axis=0),
    ]
    inputs: list[Info] = [("boxes", TensorProto.FLOAT, [10, 4])]
    weights = {"limit": np.array(1.0, np.float32)}
    return nodes, inputs, [_f("kept", "rows", 4)], weights, spec, [{"boxes": _random(N, 10, 4)}]


MODELS: Mapping[str, Callable[[], Made]] = {
    "classes": _classes,
    "characters": _characters,
    "yes_or_no": _yes_or_no,
    "price": _price,
    "vectors": _vectors,
    "numbers": _numbers,
    "voice": _voice,
    "boxes": _boxes,
}


def _random(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(sum(shape)).normal(size=shape) * scale).astype(np.float32)


def _tensor(kind: str, name: str, dtype: str, shape: str) -> str:
    return f'[[{kind}]]\nname = "{name}"\ndtype = "{dtype}"\nshape = [{shape}]\n'


def _x(*dims: str | int) -> Info:
    return "x", TensorProto.FLOAT, [*dims]


def _f(name: str, *dims: str | int) -> Info:
    return name, TensorProto.FLOAT, [*dims]


def _info(name: str, kind: int, dims: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def _weights(arrays: Mapping[str, NDArray[np.generic]]) -> list[TensorProto]:
    return [numpy_helper.from_array(values, name) for name, values in arrays.items()]
