"""Each precision is what its name says, in the graph and in the engine that TensorRT makes of it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.spec import PRECISIONS, Precision
from export import engine, precision
from export.errors import EngineError
from export.runners import onnx_runner
from training import checkpoints, families

FAMILY = families.load("fashion")


@pytest.fixture(scope="module")
def graphs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    module = checkpoints.read(checkpoint, FAMILY).module
    calibration = FAMILY.data().split("train")[0][:128]
    directory = tmp_path_factory.mktemp("graphs")
    return {p: precision.variant_graph(p, module, FAMILY.spec, calibration, directory) for p in PRECISIONS}


@pytest.mark.parametrize("name", PRECISIONS)
def test_names_types_and_a_dynamic_batch_are_those_of_the_spec(graphs: dict[Precision, Path], name: Precision) -> None:
    graph = onnx.load(graphs[name]).graph
    tensors = [*graph.input, *graph.output]
    for found, spec in zip(tensors, [*FAMILY.spec.inputs, *FAMILY.spec.outputs], strict=True):
        assert found.name == spec.name
        assert helper.tensor_dtype_to_np_dtype(found.type.tensor_type.elem_type) == np.dtype(spec.dtype)
        batch, *rest = found.type.tensor_type.shape.dim
        assert batch.dim_param, "the batch is baked in"
        assert [d.dim_value for d in rest] == list(spec.shape[1:])


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_an_answer_does_not_depend_on_its_neighbours(
    graphs: dict[Precision, Path], name: Precision, batch: int
) -> None:
    images = FAMILY.data().split("test")[0][:batch]
    run = onnx_runner(graphs[name], FAMILY.spec)
    together = run(images)
    assert together["probabilities"].sum(axis=1) == pytest.approx(1, abs=1e-5)
    for row, image in enumerate(images[:3]):
        alone = run(image[np.newaxis])["logits"][0]
        assert alone == pytest.approx(together["logits"][row], abs=1e-3)


def test_int8_is_symmetric_and_per_channel_and_biases_are_left_alone(graphs: dict[Precision, Path]) -> None:
    graph = onnx.load(graphs["int8"]).graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero_point = constants[node.input[2]]
        assert zero_point.dtype == np.int8, "TensorRT takes neither UINT8 nor INT32"
        assert not zero_point.any()
    weights = [n for n in pairs if n.op_type == "DequantizeLinear" and constants.get(n.input[0], np.zeros(0)).ndim == 4]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(weights) == len(convolutions)
    for node in weights:
        assert constants[node.input[1]].shape == constants[node.input[0]].shape[:1], "one scale a channel"


def test_calibration_decides_the_scales(graphs: dict[Precision, Path], tmp_path: Path) -> None:
    """Fed with noise the ranges differ: they come from the images, not from a default."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 1, 28, 28), dtype=np.uint8)
    precision.quantize(graphs["fp32"], tmp_path / "noise.onnx", "pixels", noise)

    def scales(path: Path) -> list[float]:
        initializers = onnx.load(path).graph.initializer
        return sorted(float(numpy_helper.to_array(i)) for i in initializers if i.name.endswith("_scale") and not i.dims)

    assert not np.allclose(scales(graphs["int8"]), scales(tmp_path / "noise.onnx"), rtol=0.05)


@pytest.mark.parametrize(("name", "dtype"), [("fp32", "FLOAT"), ("fp16", "HALF"), ("int8", "INT8")])
def test_tensorrt_compiles_every_heavy_layer_in_the_precision_of_the_name(
    graphs: dict[Precision, Path], name: Precision, dtype: str
) -> None:
    built = engine.build(graphs[name], FAMILY.spec, "tensorrt_rtx")
    assert built.facts.dtype_share == {dtype: 1.0}
    assert built.facts.size_bytes == len(built.plan) > 10_000
    assert built.facts.library.startswith("tensorrt_rtx 1.")


def test_an_fp32_graph_under_an_fp16_name_shows_in_what_the_engine_computes(
    graphs: dict[Precision, Path], tmp_path: Path
) -> None:
    impostor = tmp_path / "fp16.onnx"
    impostor.write_bytes(graphs["fp32"].read_bytes())
    assert "HALF" not in engine.build(impostor, FAMILY.spec, "tensorrt_rtx").facts.dtype_share


def test_what_tensorrt_refuses_is_an_error_with_its_reason(graphs: dict[Precision, Path], tmp_path: Path) -> None:
    model = onnx.load(graphs["int8"])
    for initializer in model.graph.initializer:
        if initializer.name.endswith("_zero_point") and not initializer.dims:
            initializer.CopyFrom(helper.make_tensor(initializer.name, TensorProto.INT8, [], [3]))
    onnx.save(model, tmp_path / "shifted.onnx")
    with pytest.raises(EngineError, match=r"tensorrt_rtx cannot parse shifted\.onnx") as error:
        engine.build(tmp_path / "shifted.onnx", FAMILY.spec, "tensorrt_rtx")
    assert "Note:" in str(error.value)


def test_a_file_that_is_no_graph_is_an_engine_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(EngineError, match="cannot parse"):
        engine.build(tmp_path / "model.onnx", FAMILY.spec, "tensorrt_rtx")


def test_dtype_share_counts_the_layers_that_stayed_behind(graphs: dict[Precision, Path], tmp_path: Path) -> None:
    """One of the nine convolutions and the last matrix product left in float32: 2 of 10."""
    quantized = tmp_path / "mixed.onnx"
    convolutions = [node.name for node in onnx.load(graphs["fp32"]).graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 9
    calibration = FAMILY.data().split("train")[0][:32]
    precision.quantize(graphs["fp32"], quantized, "pixels", calibration, leave=(convolutions[0], "node_linear"))
    assert engine.build(quantized, FAMILY.spec, "tensorrt_rtx").facts.dtype_share == {"INT8": 0.8, "FLOAT": 0.2}


@pytest.mark.gpu
def test_a_plan_of_every_precision_answers_like_onnxruntime(graphs: dict[Precision, Path]) -> None:
    from export.runners import PlanRunner

    images = FAMILY.data().split("test")[0][:64]
    for name, graph in graphs.items():
        built = engine.build(graph, FAMILY.spec, "tensorrt")
        expected = onnx_runner(graph, FAMILY.spec)(images)["logits"]
        with PlanRunner(built.plan, FAMILY.spec) as run:
            assert run(images)["logits"] == pytest.approx(expected, abs=FAMILY.spec.limits[name].logit_difference)
            assert run(images[:1])["logits"] == pytest.approx(
                expected[:1], abs=FAMILY.spec.limits[name].logit_difference
            )
