"""INT8 graphs are what TensorRT accepts, from the samples they were given, and layers can be taken back out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.manifest import Recipe
from contracts.spec import Precision
from export import graphs, prove
from export.context import ExportContext
from export.precision import int8
from export.proof import engine
from export.proof.runners import memory_runner, onnx_runner, take
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


@pytest.mark.parametrize("quantizer", ["modelopt", "onnxruntime"])
def test_a_layer_left_out_computes_what_the_fp32_graph_does(
    fashion: ExportSource, graphs_of_fashion: dict[Precision, Path], tmp_path: Path, quantizer: str
) -> None:
    fp32 = graphs.load(graphs_of_fashion["fp32"])
    method = "max" if quantizer == "modelopt" else "minmax"
    int8.quantize(graphs_of_fashion["fp32"], tmp_path / "q.onnx", fashion.calibration, Recipe(quantizer, method, 64))
    quantized, inputs = onnx.load(tmp_path / "q.onnx"), take(fashion.held_out.inputs, slice(64))
    expected = onnx_runner(graphs_of_fashion["fp32"], ["logits"])(inputs)["logits"]

    def errors(left_out: list[str]) -> np.ndarray:
        model = int8.leave_out(quantized, fp32, left_out)
        onnx.checker.check_model(model, full_check=True)
        return np.abs(memory_runner(model, ["logits"])(inputs)["logits"] - expected)

    def rms(left_out: list[str]) -> float:
        """Errors of layers add up in their squares; the largest of them may happen to be smaller with more layers."""
        return float(np.sqrt(np.mean(np.square(errors(left_out)))))

    heavy = graphs.heavy_nodes(fp32)
    assert errors(heavy).max() < 1e-4, "with every layer left out it is the FP32 graph"
    assert rms(heavy) < rms(heavy[1:]) < rms([])


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
    int8.quantize(graphs_of_fashion["fp32"], tmp_path / "int8.onnx", dark, RECIPE)
    proven = prove.prove(context_of(fashion), "int8", tmp_path / "int8.onnx")
    refused = {gate.name for gate in proven.variant.gates if not gate.passed}
    assert {"accuracy drop, points (95 % upper bound)", "agreement"} <= refused


def test_a_graph_that_no_quantizer_knows_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(Exception, match=r"no ONNX graph|could not quantize"):
        int8.quantize(tmp_path / "empty.onnx", tmp_path / "q.onnx", {"x": np.zeros((4, 1), np.float32)}, RECIPE)
