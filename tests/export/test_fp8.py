"""FP8 and BF16: precisions for GPUs alone, proven on a CPU, compiled without a GPU, searched and gated like INT8."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cli.progress import Progress
from contracts.manifest import Manifest, Recipe
from contracts.samples import Split
from contracts.spec import Limits, Precision
from export import graphs, pipeline
from export.cache import Cache
from export.errors import RefusedError
from export.precision import fp16, int8
from export.proof import engine
from export.proof.engine import BuildOptions
from export.proof.runners import memory_runner, onnx_runner
from export.source.base import ExportSource
from tests.conftest import Workspace
from tests.export.conftest import REQUEST
from tests.export.standing_in import Gpu, stand_in

FP8 = Recipe("modelopt", "max", 64, precision="fp8")


@pytest.fixture(scope="module")
def fp8_graph(
    fashion: ExportSource, graphs_of_fashion: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("fp8") / "fp8.onnx"
    return int8.quantize(graphs_of_fashion["fp32"], path, fashion.calibration, FP8)


def answers(path: Path, split: Split, *, fused: bool = False) -> np.ndarray:
    return onnx_runner(path, ["logits"], fused=fused)(split.groups[0].inputs)["logits"]


def test_an_fp8_graph_answers_like_the_one_it_was_made_from(
    fp8_graph: Path, graphs_of_fashion: dict[str, Path], fashion: ExportSource
) -> None:
    images = fashion.search.first(200)
    found, expected = answers(fp8_graph, images), answers(graphs_of_fashion["fp32"], images, fused=True)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_its_pairs_are_e4m3_without_a_zero_point_and_no_other_kind_passes(
    fp8_graph: Path, graphs_of_fashion: dict[str, Path]
) -> None:
    model = graphs.load(fp8_graph)
    assert int8.qdq_faults(model, "fp8") == [] and int8.quantized_layers(model)
    assert any("FLOAT8E4M3FN" in fault for fault in int8.qdq_faults(model))
    assert any(fault.endswith("INT8") for fault in int8.qdq_faults(graphs.load(graphs_of_fashion["int8"]), "fp8"))


def test_tensorrt_compiles_fp8_with_fp16_beside_it_and_the_rounded_twin_answers_alike(
    fp8_graph: Path, fashion: ExportSource, tmp_path: Path
) -> None:
    images = fashion.search.first(64)
    fp16.cast(fp8_graph, tmp_path / "mixed.onnx", [*images.batches(64)])
    mixed = graphs.load(tmp_path / "mixed.onnx")
    assert int8.quantized_layers(mixed) == int8.quantized_layers(graphs.load(fp8_graph))
    share = engine.build(tmp_path / "mixed.onnx", fashion.spec, BuildOptions()).facts.dtype_share
    assert share.keys() == {"FP8", "HALF"} and share["FP8"] == pytest.approx(
        len(int8.quantized_layers(mixed)) / len(graphs.heavy_nodes(mixed)), abs=1e-3
    )
    twin = memory_runner(fp16.simulate_fp16(mixed), ["logits"], fused=False)(images.groups[0].inputs)["logits"]
    assert twin == pytest.approx(answers(fp8_graph, images), abs=0.3)


def test_a_channel_without_weights_has_a_scale_that_float16_can_hold(tmp_path: Path) -> None:
    """TensorRT refuses a scale of 0, and 1e-9 is 0 in float16."""
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    constants = {
        "w": np.array([[127, 0], [64, 1]], np.int8), "scale": np.array([0.01, 1e-9], np.float32),
        "zero": np.zeros(2, np.int8), "x_scale": np.array(0.02, np.float32), "x_zero": np.array(0, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["q"], "Q"),
        helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero"], ["dq"], "DQ"),
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wdq"], "WDQ", axis=1),
        helper.make_node("MatMul", ["dq", "wdq"], ["y"], "M"),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "dead", io[:1], io[1:], weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "int8.onnx")
    fp16.cast(tmp_path / "int8.onnx", tmp_path / "mixed.onnx", [{"x": np.ones((4, 2), np.float32)}])
    mixed = graphs.load(tmp_path / "mixed.onnx")
    scales = [i for i in mixed.graph.initializer if i.name.startswith("scale") and i.data_type == TensorProto.FLOAT16]
    assert scales and all((numpy_helper.to_array(scale) > 0).all() for scale in scales)


def test_bf16_keeps_what_overflows_fp16(tmp_path: Path) -> None:
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "up"), helper.make_node("MatMul", ["h", "v"], ["y"], "down")]
    weights = [numpy_helper.from_array(s * np.eye(4, dtype=np.float32), n) for n, s in (("w", 1e6), ("v", 1e-6))]
    body = helper.make_graph(nodes, "large", io[:1], io[1:], weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "fp32.onnx")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    assert not fp16.cast(tmp_path / "fp32.onnx", tmp_path / "bf16.onnx", [{"x": x}], "bf16"), "nothing stays in FP32"
    kept = fp16.cast(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx", [{"x": x}], "fp16")
    assert {"up"} <= {layer.name for layer in kept}, "as FP16 would overflow"
    rounded = memory_runner(fp16.simulate_fp16(graphs.load(tmp_path / "bf16.onnx")), ["y"])({"x": x})["y"]
    assert rounded == pytest.approx(x, rel=0.02)
    assert not np.array_equal(rounded, x), "it is rounded to 8 bits"


@pytest.fixture
def export(fashion: ExportSource, workspace: Workspace, kept_steps: Path, few_rounds: None) -> Callable[..., Manifest]:
    def run(*precisions: Precision, library: engine.Library = "tensorrt_rtx") -> Manifest:
        wide = Limits({"logits": 2.0, "probabilities": 0.6}, agreement=0.95, drop=3.0, computed_share=0.3)
        bf16 = Limits({"logits": 0.5, "probabilities": 0.2}, agreement=0.98, drop=3.0)
        spec = dataclasses.replace(fashion.spec, limits={**fashion.spec.limits, "fp8": wide, "bf16": bf16})
        engines = BuildOptions(library)
        request = dataclasses.replace(REQUEST, precisions=precisions, engines=engines)
        source = dataclasses.replace(fashion, spec=spec)
        return pipeline.run(
            source, request, model_directory=workspace.model, cache=Cache(kept_steps, {}), progress=Progress()
        )

    return run


def test_a_gpu_chooses_among_all_and_a_cpu_among_what_it_can_serve(
    export: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu: Gpu = stand_in(monkeypatch)
    release = export("fp32", "bf16", "fp8", library="tensorrt")
    shares = {v.precision: v.engine.dtype_share for v in release.variants if v.engine}
    assert shares["bf16"] == {"BF16": 1.0} and shares["fp8"].keys() == {"FP8", "HALF"}
    assert {c.file: c.precision for c in release.choices} == {"model.onnx": "fp32", "model.sm90.plan": "fp8"}
    timed = {v.precision: set(v.timings) for v in release.variants}
    assert timed == {"fp32": {"model.onnx", "model.sm90.plan"}, "bf16": {"model.sm90.plan"}, "fp8": {"model.sm90.plan"}}
    assert release.variants[-1].recipe is not None and str(release.variants[-1].recipe).startswith("fp8 modelopt max")
    assert {name for name, _ in gpu.graphs.values()} == {"fp32", "bf16", "fp8-fp16"}


def test_what_no_cpu_serves_is_no_release_alone(export: Callable[..., Manifest]) -> None:
    with pytest.raises(RefusedError, match="no variant of fashion_classifier that a CPU serves passed") as error:
        export("bf16")
    assert "add fp32 to --precision" in str(error.value)
