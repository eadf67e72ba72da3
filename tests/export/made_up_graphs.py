"""Graphs that nobody would draw: a seed decides operators, shapes, types, opset, names, and where the batch is.

Each comes with a spec and samples, as a stranger would bring it. Some are wrong on purpose: a batch that is baked in,
an operator that no runtime has, an opset of tomorrow.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from contracts.samples import Batch, save_arrays

N = 40  # samples
BATCHES = (1, 3, 4)  # min, opt and max
_NEWEST = 25  # opset that onnxruntime reads
_NAMES = ("x", "input", "serving_default_x:0", "Größe des Bildes", "a=b", "images/0", "file", "labels", "0", "in.put")
_TYPES: Mapping[str, int] = {
    "float32": T.FLOAT, "float64": T.DOUBLE, "float16": T.FLOAT16, "int64": T.INT64, "int32": T.INT32,
    "uint8": T.UINT8, "bool": T.BOOL, "string": T.STRING,
}  # fmt: skip
_WORDS = ("red", "green", "blue", "größer", "")


@dataclass(frozen=True)
class MadeUp:
    """A graph, a spec and samples on disk, and whether onnxruntime runs every batch that the spec promises."""

    model: str
    graph: Path
    spec: Path
    samples: Path
    runs: bool


@dataclass
class Drawn:
    """A graph as it grows: its last tensor is `name`, of `shape` behind the batch, where it has one."""

    random: random.Random
    opset: int
    batched: bool
    dtype: str
    name: str
    shape: list[int]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)
    functions: list[onnx.FunctionProto] = field(default_factory=list)

    def weight(self, values: Any, dtype: str | None = None) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype or self.dtype), name))
        return name

    def noise(self, *shape: int) -> str:
        generator = np.random.default_rng(self.random.randrange(2**31))
        return self.weight(generator.normal(size=shape) * 0.5)

    def do(self, kind: str, *inputs: str, **attributes: Any) -> None:
        """Add a node that reads the last tensor, or what it is given, and makes the next last one."""
        number = len(self.nodes)
        made = f"t{number}" if self.random.random() < 0.8 else f"net/{number}:0"
        name = self.random.choice([f"{kind}_{number}", "", f"a/b/{kind}_{number}"] * 8 + ["node"])
        self.nodes.append(helper.make_node(kind, inputs or [self.name], [made], name=name, **attributes))
        self.name = made

    def axes(self, kind: str, newer: int, axes: list[int], **attributes: Any) -> None:
        """Add a node whose axes are an attribute, and since opset `newer` an input."""
        if self.opset >= newer:
            self.do(kind, self.name, self.weight(axes, "int64"), **attributes)
        else:
            self.do(kind, axes=axes, **attributes)

    @property
    def first(self) -> int:
        """The first axis behind the batch."""
        return int(self.batched)


def write(folder: Path, seed: int) -> MadeUp:
    """Write the graph of a seed."""
    draw = random.Random(seed)
    model, target = f"made_up_{seed}", folder / str(seed)
    target.mkdir(parents=True)
    opset = draw.choice(range(7, _NEWEST + 1))
    name, dtype = draw.choice(_NAMES), draw.choice(["float32"] * 7 + list(_TYPES)[1:])
    shape = draw.choice([[8], [16], [5, 6], [3, 8, 8], [4, 6, 6], [1], [7, 3]])
    graph = Drawn(draw, opset, draw.random() < 0.8, dtype, name, list(shape))
    _begin(graph)
    for _ in range(draw.randint(1, 6)):
        draw.choice(_OPERATORS)(graph)
    wrong = draw.choice([None] * 22 + ["baked", "unknown", "tomorrow"])
    _go_wrong(graph, wrong)
    proto = _finished(graph, name, dtype, shape, opset=27 if wrong == "tomorrow" else opset)
    onnx.save(proto, target / "model.onnx")
    samples = _samples(draw, dtype, shape)
    save_arrays(target / "samples.npz", {name: samples})
    answers = _asked(target / "model.onnx", name, samples, graph.batched)
    facts = _spec(graph, model, (name, dtype, shape), proto.graph.output[0].name, answers)
    (target / "spec.toml").write_text(facts, encoding="utf-8")
    return MadeUp(model, target / "model.onnx", target / "spec.toml", target / "samples.npz", answers is not None)


def _begin(g: Drawn) -> None:
    """Come from what is taken to float32, or stay in the float type that it is."""
    if g.dtype == "string":
        g.domains["ai.onnx.ml"] = 2
        codes = [float(i) for i in range(len(_WORDS))]
        g.do("LabelEncoder", domain="ai.onnx.ml", keys_strings=list(_WORDS), values_floats=codes, default_float=-1.0)
    elif g.dtype in ("int64", "int32") and g.random.random() < 0.5:
        g.dtype = "float32"
        g.do("Gather", g.noise(9, 4), g.name)
        g.shape.append(4)
        return
    elif g.dtype not in ("float32", "float64", "float16"):
        g.do("Cast", to=T.FLOAT)
    g.dtype = "float32" if g.dtype not in ("float64", "float16") else g.dtype


def _pointwise(g: Drawn) -> None:
    kinds = ["Relu", "Sigmoid", "Tanh", "Abs", "Neg", "LeakyRelu", "Elu", "Softplus", "Identity", "Dropout", "Softsign"]
    kinds += ["Erf", "Sign"] * (g.opset >= 9) + ["HardSwish"] * (g.opset >= 14) + ["Gelu"] * (g.opset >= 20)
    g.do(g.random.choice(kinds))


def _with_a_constant(g: Drawn) -> None:
    kind, values = g.random.choice(["Add", "Mul", "Sub", "Div", "Max"]), g.random.choice([1.5, [2.0] * g.shape[-1]])
    if g.random.random() < 0.3:  # as a node, which may be older than weights that are no inputs
        constant = numpy_helper.from_array(np.asarray(values, g.dtype), "value")
        before = g.name
        g.do("Constant", value=constant)
        g.nodes[-1].ClearField("input")
        g.do(kind, before, g.name)
    else:
        g.do(kind, g.name, g.weight(values))


def _matmul(g: Drawn) -> None:
    width = g.random.choice([1, 4, 16, 32])
    weights = g.noise(g.shape[-1], width)
    if g.batched and len(g.shape) == 1 and g.random.random() < 0.5:
        g.do("Gemm", g.name, weights, g.noise(width))
    else:
        g.do("MatMul", g.name, weights)
    g.shape[-1] = width


def _conv(g: Drawn) -> None:
    if len(g.shape) != 3 or not g.batched:
        return _pointwise(g)
    channels, kind = g.random.choice([4, 16]), g.random.choice(["Conv", "MaxPool", "BatchNormalization", "AveragePool"])
    if kind == "Conv":
        g.do("Conv", g.name, g.noise(channels, g.shape[0], 3, 3), pads=[1] * 4, kernel_shape=[3, 3])
        g.shape[0] = channels
    elif kind == "BatchNormalization":
        ones, c = np.ones(g.shape[0]), g.shape[0]
        g.do(kind, g.name, g.weight(ones), g.noise(c), g.noise(c), g.weight(ones))
    else:
        g.do(kind, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    return None


def _reduce(g: Drawn) -> None:
    axis = len(g.shape) - 1 + g.first
    kind, newer = g.random.choice([("ReduceMean", 18), ("ReduceMax", 18), ("ReduceSum", 13)])
    g.axes(kind, newer, [axis], keepdims=1)
    g.shape[-1] = 1


def _softmax(g: Drawn) -> None:
    if len(g.shape) + g.first > 0:
        g.do(g.random.choice(["Softmax", "LogSoftmax"]), axis=len(g.shape) - 1 + g.first)


def _reshape(g: Drawn) -> None:
    flat = int(np.prod(g.shape))
    g.do("Reshape", g.name, g.weight([-1, flat] if g.batched else [flat], "int64"))
    g.shape = [flat]


def _transpose(g: Drawn) -> None:
    order = list(range(len(g.shape)))
    g.random.shuffle(order)
    g.do("Transpose", perm=[*range(g.first), *(axis + g.first for axis in order)])
    g.shape = [g.shape[axis] for axis in order]


def _squeeze(g: Drawn) -> None:
    g.axes("Unsqueeze", 13, [g.first])
    if g.random.random() < 0.5:
        g.axes("Squeeze", 13, [g.first])
    else:
        g.shape.insert(0, 1)


def _split(g: Drawn) -> None:
    before = g.name
    g.do("Sigmoid")
    g.do("Concat", before, g.name, axis=g.first)
    g.shape[0] *= 2


def _branch(g: Drawn) -> None:
    """An If whose branches read what is outside of them."""
    if g.opset < 11:
        return _pointwise(g)
    before, number = g.name, len(g.nodes)
    g.axes("ReduceMax", 18, [*range(len(g.shape) + g.first)], keepdims=0)
    g.do("Greater", g.name, g.weight(0.1))

    def branch(kind: str) -> onnx.GraphProto:
        node = helper.make_node(kind, [before], [f"{kind}{number}"], name="node")
        out = helper.make_tensor_value_info(f"{kind}{number}", _TYPES[g.dtype], None)
        return helper.make_graph([node], kind, [], [out])

    g.do("If", then_branch=branch("Tanh"), else_branch=branch("Neg"))
    return None


def _function(g: Drawn) -> None:
    """A function of the model's own, as PyTorch's newer exporters and Olive write them."""
    opsets = [helper.make_opsetid("", g.opset)]
    nodes = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
    name = f"Swish{len(g.functions)}"
    g.functions.append(helper.make_function("of.mine", name, ["a"], ["b"], nodes, opsets))
    g.domains["of.mine"] = 1
    g.do(name, domain="of.mine")


def _contributed(g: Drawn) -> None:
    """An operator that is onnxruntime's own."""
    if g.dtype != "float32":
        return _pointwise(g)
    g.domains["com.microsoft"] = 1
    g.do("Gelu", domain="com.microsoft")
    return None


_OPERATORS: tuple[Callable[[Drawn], None], ...] = (
    *(_pointwise, _pointwise, _with_a_constant, _with_a_constant, _matmul, _matmul, _conv, _conv, _reduce),
    *(_softmax, _reshape, _transpose, _squeeze, _split, _branch, _function, _contributed),
)


def _go_wrong(g: Drawn, how: str | None) -> None:
    if how == "baked" and g.batched:
        flat = int(np.prod(g.shape))
        g.do("Reshape", g.name, g.weight([1, flat], "int64"))
        g.shape = [flat]
    elif how == "unknown":
        g.domains["of.others"] = 1
        g.do("NobodyHasIt", domain="of.others")


def _finished(g: Drawn, name: str, dtype: str, shape: list[int], opset: int) -> onnx.ModelProto:
    batch = ["batch"] if g.batched else []
    inputs = [helper.make_tensor_value_info(name, _TYPES[dtype], [*batch, *shape])]
    outputs = [helper.make_tensor_value_info(g.name, _TYPES[g.dtype], [*batch, *g.shape])]
    old = opset < 9 or g.random.random() < 0.2
    if old:  # weights are inputs as well
        inputs += [helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in g.weights]
    body = helper.make_graph(g.nodes, "g", inputs, outputs, g.weights)
    domains = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in g.domains.items())]
    newest = 13 if opset > 24 else 8
    ir = newest if g.functions or opset > 24 else 3 if old else g.random.choice([4, 7, 8])
    return helper.make_model(body, opset_imports=domains, ir_version=ir, functions=g.functions)


def _samples(draw: random.Random, dtype: str, shape: list[int]) -> NDArray[Any]:
    generator = np.random.default_rng(draw.randrange(2**31))
    if dtype == "string":
        return generator.choice(_WORDS, size=(N, *shape))
    if dtype.startswith("float"):
        return generator.normal(size=(N, *shape)).astype(dtype)
    return generator.integers(0, 2 if dtype == "bool" else 9, size=(N, *shape)).astype(dtype)


def answers(graph: Path, given: Sequence[Batch]) -> list[NDArray[Any]]:
    """Let onnxruntime itself answer; where its optimisations break the graph (1.24), without them."""
    try:
        return _answers(graph, given, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    except Exception:  # its exceptions share no base class
        return _answers(graph, given, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)


def _answers(graph: Path, given: Sequence[Batch], level: ort.GraphOptimizationLevel) -> list[NDArray[Any]]:
    model = onnx.load(graph)
    for node in model.graph.node:
        node.name = ""  # it takes no two of one name
    options = ort.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = 4, level
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(None, dict(inputs))[0] for inputs in given]


def _asked(graph: Path, name: str, samples: NDArray[Any], batched: bool) -> NDArray[Any] | None:
    """What onnxruntime gives for a batch, or a sample; None where it does not load it, or fails at a size."""
    try:
        given = [samples[:size] for size in BATCHES] if batched else [samples[0]]
        found = answers(graph, [{name: values} for values in given])
    except Exception:  # its exceptions share no base class
        return None
    same = not batched or all(len(answer) == size for answer, size in zip(found, BATCHES, strict=True))
    return found[-1] if same and np.isfinite(found[-1]).all() else None


def _spec(g: Drawn, model: str, given: tuple[str, str, list[int]], out: str, answers: NDArray[Any] | None) -> str:
    name, dtype, shape = given
    batch = ['{ name = "batch", min = 1, opt = 3, max = 4 }'] if g.batched else []
    tensors = (("inputs", name, dtype, shape), ("outputs", out, g.dtype, g.shape))
    scale = 1.0 if answers is None else max(1.0, float(np.abs(answers.astype(np.float64)).max(initial=0.0)))
    half = "float16" in (dtype, g.dtype)
    limits = {"fp32": (2e-2 if half else 1e-3) * scale, "fp16": 0.2 * scale, "int8": 2.0 * scale}
    text = f'model = "{model}"\ntask = "values"\nbatch = {str(g.batched).lower()}\n'
    text += f"tensorrt = {str(g.random.random() < 0.8).lower()}\n"
    for kind, tensor, of, dims in tensors:
        text += f'[[{kind}]]\nname = "{tensor}"\ndtype = "{of}"\nshape = [{", ".join([*batch, *map(str, dims)])}]\n'
    for precision in limits if g.random.random() < 0.6 else ["fp32"]:
        text += f'[limits.{precision}]\ntolerance = {{ "{out}" = {limits[precision]:g} }}\ncomputed_share = 0.0\n'
    return text
