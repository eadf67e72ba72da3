"""INT8 graphs are what TensorRT accepts, from the samples they were given, and layers can be taken back out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.manifest import Recipe
from contracts.samples import Split
from contracts.spec import Precision
from export import graphs, prove
from export.context import ExportContext
from export.precision import int8
from export.proof import engine
from export.proof.runners import memory_runner, onnx_runner
from export.source.base import ExportSource
from tests.export.conftest import RECIPE


@pytest.mark.parametrize(("quantizer", "method"), int8.METHODS)
def test_every_method_makes_signed_symmetric_per_channel_weights(
    fashion: ExportSource, graphs_of_fashion: dict[Precision, Path], tmp_path: Path, quantizer: str, method: str
) -> None:
    int8.quantize(graphs_of_fashion["fp32"], tmp_path / "q.onnx", fashion.calibration, Recipe(quantizer, method, 64))
    model = onnx.load(tmp_path / "q.onnx")
    assert not int8.qdq_faults(model)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    weights = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and constants.get(node.input[0], np.zeros(0)).ndim == 4
    ]
    assert len(weights) == 9, "one a convolution"
    for node in weights:
        assert constants[node.input[0]].dtype == np.int8
        assert constants[node.input[1]].shape == constants[node.input[0]].shape[:1], "one scale a channel"


def test_onnxruntimes_quantizer_is_not_touched_by_modelopts_patches(
    fashion: ExportSource, graphs_of_fashion: dict[Precision, Path], tmp_path: Path
) -> None:
    """ModelOpt patches onnxruntime's calibrators in its process: the same recipe, before and after, is the same."""
    recipe = Recipe("onnxruntime", "minmax", 64)
    int8.quantize(graphs_of_fashion["fp32"], tmp_path / "before.onnx", fashion.calibration, recipe)
    int8.quantize(graphs_of_fashion["fp32"], tmp_path / "between.onnx", fashion.calibration, RECIPE)
    int8.quantize(graphs_of_fashion["fp32"], tmp_path / "after.onnx", fashion.calibration, recipe)
    assert (tmp_path / "before.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()


def two_branches(path: Path) -> Path:
    """y = concat(b(relu(a(x))), d(relu(c(x)))) with fixed weights, those of the second branch four times larger.

    The branches share no tensor but x, so what a layer of one costs cannot make up for what one of the other costs.
    """
    random = np.random.default_rng(0)
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c, 8, 8]) for n, c in (("x", 32), ("y", 64))]
    weights = [
        numpy_helper.from_array((scale * random.normal(0, 0.06, (32, 32, 3, 3))).astype(np.float32), f"{layer}.weight")
        for layer, scale in zip("abcd", (1, 1, 2, 2), strict=True)
    ]

    def convolution(layer: str, source: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, f"{layer}.weight"], [layer], name=layer, pads=[1] * 4)

    nodes = [convolution("a", "x"), helper.make_node("Relu", ["a"], ["a+"], name="a+"), convolution("b", "a+")]
    nodes += [convolution("c", "x"), helper.make_node("Relu", ["c"], ["c+"], name="c+"), convolution("d", "c+")]
    nodes.append(helper.make_node("Concat", ["b", "d"], ["y"], name="y", axis=1))
    graph = helper.make_graph(nodes, "two_branches", io[:1], io[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("quantizer", ["modelopt", "onnxruntime"])
def test_a_layer_left_out_computes_what_the_fp32_graph_does(tmp_path: Path, quantizer: str) -> None:
    """On a graph made by hand: in a trained network the errors of two layers may happen to cancel out."""
    method = "max" if quantizer == "modelopt" else "minmax"
    x = {"x": np.random.default_rng(1).normal(size=(64, 32, 8, 8)).astype(np.float32)}
    path = two_branches(tmp_path / "fp32.onnx")
    fp32 = graphs.load(path)
    quantized = onnx.load(int8.quantize(path, tmp_path / "q.onnx", Split.of(x), Recipe(quantizer, method, 64)))
    expected = onnx_runner(path, ["y"])(x)["y"]

    def errors(left_out: list[str]) -> np.ndarray:
        model = int8.leave_out(quantized, fp32, left_out)
        onnx.checker.check_model(model, full_check=True)
        return np.abs(memory_runner(model, ["y"])(x)["y"] - expected)

    def rms(left_out: list[str]) -> float:
        return float(np.sqrt(np.mean(np.square(errors(left_out)))))

    heavy = graphs.heavy_nodes(fp32)
    assert sorted(int8.quantized_layers(quantized)) == sorted(heavy) == [*"abcd"]
    assert errors(heavy).max() < 1e-4, "with every layer left out it is the FP32 graph"
    assert rms(heavy) < rms(heavy[1:]) < rms([])
    for branch, others in ((slice(32), ["c", "d"]), (slice(32, 64), ["a", "b"])):
        assert errors(others)[:, branch].max() > 0, "what is not left out is still in 8 bits"
        assert errors([*{*heavy} - {*others}])[:, branch].max() < 1e-4, "and what is left out is exact"


def test_what_is_left_out_shows_in_what_tensorrt_computes(
    graphs_of_fashion: dict[Precision, Path], fashion: ExportSource, tmp_path: Path
) -> None:
    fp32, quantized = graphs.load(graphs_of_fashion["fp32"]), graphs.load(graphs_of_fashion["int8"])
    before = engine.build(graphs_of_fashion["int8"], fashion.spec, engine.BuildOptions()).facts.dtype_share["INT8"]
    onnx.save(int8.leave_out(quantized, fp32, ["network.2.first.1/Conv"]), tmp_path / "mixed.onnx")
    after = engine.build(tmp_path / "mixed.onnx", fashion.spec, engine.BuildOptions()).facts.dtype_share["INT8"]
    assert after == pytest.approx(before - 0.1)


def zero_points(model: onnx.ModelProto, make: Callable[[onnx.TensorProto], onnx.TensorProto]) -> onnx.ModelProto:
    scalar = [i for i in model.graph.initializer if i.name.endswith("_zero_point") and not i.dims]
    assert scalar
    for initializer in scalar:
        initializer.CopyFrom(make(initializer))
    return model


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [(TensorProto.INT8, 3, "zero-point 3"), (TensorProto.UINT8, 0, "UINT8"), (TensorProto.INT32, 0, "INT32")],
)
def test_planted_zero_points_and_types_that_tensorrt_misreads_fail_their_gate_before_it_sees_them(
    graphs_of_fashion: dict[Precision, Path],
    fashion: ExportSource,
    tmp_path: Path,
    context_of: Callable[..., ExportContext],
    kind: int,
    value: int,
    told: str,
) -> None:
    planted = zero_points(onnx.load(graphs_of_fashion["int8"]), lambda i: helper.make_tensor(i.name, kind, [], [value]))
    onnx.save(planted, tmp_path / "int8.onnx")
    proven = prove.prove(context_of(fashion), "int8", tmp_path / "int8.onnx")
    [refused] = [gate for gate in proven.variant.gates if not gate.passed]
    assert refused.name == "Q/DQ not signed and symmetric"
    assert told in refused.detail


def test_a_pair_without_a_zero_point_is_uint8_by_the_standard() -> None:
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"], name="q")
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    assert int8.qdq_faults(model) == ["q: UINT8 (no zero-point given)"]


def test_planted_calibration_on_noise_fails_the_task_metric(
    graphs_of_fashion: dict[Precision, Path],
    fashion: ExportSource,
    tmp_path: Path,
    context_of: Callable[..., ExportContext],
) -> None:
    dark = {"pixels": np.random.default_rng(0).integers(0, 3, (128, 1, 28, 28), dtype=np.uint8)}
    int8.quantize(graphs_of_fashion["fp32"], tmp_path / "int8.onnx", Split.of(dark), RECIPE)
    proven = prove.prove(context_of(fashion), "int8", tmp_path / "int8.onnx")
    refused = {gate.name for gate in proven.variant.gates if not gate.passed}
    assert {"accuracy drop, points (95 % upper bound)", "agreement"} <= refused


def test_a_graph_that_no_quantizer_knows_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(Exception, match=r"no ONNX graph|could not quantize"):
        zeros = Split.of({"x": np.zeros((4, 1), np.float32)})
        int8.quantize(tmp_path / "empty.onnx", tmp_path / "q.onnx", zeros, RECIPE)
