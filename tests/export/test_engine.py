"""TensorRT compiles every variant in its own precision, and a plan is served only by the version that built it."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import tensorrt_rtx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts import layout
from contracts.engines.plans import SERVER_TENSORRT, cc_model_filenames, same_version, version_of
from contracts.manifest import Engine
from contracts.spec import Precision
from export import graphs, prove
from export.context import ExportContext
from export.errors import CompileError
from export.proof import contract, engine, layers, plans
from export.proof.engine import BuildOptions, BuiltEngine
from export.proof.plan_runner import PlanRunner
from export.proof.runners import onnx_runner
from export.source.base import ExportSource


@pytest.fixture(scope="module")
def built(graphs_of_fashion: dict[Precision, Path], fashion: ExportSource) -> dict[Precision, BuiltEngine]:
    """Each variant, by TensorRT-RTX: it needs no GPU to build."""
    return {p: engine.build(graph, fashion.spec, BuildOptions()) for p, graph in graphs_of_fashion.items()}


@pytest.fixture
def plan(built: dict[Precision, BuiltEngine]) -> bytes:
    return built["fp32"].plan


@pytest.mark.parametrize(
    ("precision", "share"),
    [
        ("fp32", {"FLOAT": 1.0}),
        ("fp16", {"HALF": 1.0}),
        ("int8", {"INT8": 0.9, "FLOAT": 0.1}),  # ModelOpt leaves the classifier, the tenth layer
    ],
)
def test_every_variant_is_compiled_in_its_precision(
    built: dict[Precision, BuiltEngine], fashion: ExportSource, precision: Precision, share: dict[str, float]
) -> None:
    found = built[precision]
    assert found.facts.dtype_share == share
    assert found.facts.size_bytes == len(found.plan) > 0
    assert contract.engine_gate(found.io_tensors, fashion.spec).passed


def test_planted_fp32_weights_under_an_fp16_name_fail_the_gate_for_what_is_computed_and_nothing_else(
    graphs_of_fashion: dict[Precision, Path], fashion: ExportSource, context_of: Callable[..., ExportContext]
) -> None:
    variant = prove.prove(context_of(fashion), "fp16", graphs_of_fashion["fp32"]).variant
    [refused] = [gate for gate in variant.gates if not gate.passed]
    assert (refused.name, refused.figure, refused.detail) == ("computed in HALF", 0.0, "100% FLOAT")


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_what_is_no_graph_is_a_compile_error(fashion: ExportSource, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CompileError, match=r"tensorrt_rtx cannot (parse|compile) model\.onnx\nNote: "):
        engine.build(tmp_path / "model.onnx", fashion.spec, BuildOptions())


def test_a_layer_with_one_dequantized_operand_does_not_compute_in_int8(
    graphs_of_fashion: dict[Precision, Path], fashion: ExportSource, tmp_path: Path
) -> None:
    """Q/DQ on the activations, the weights in FP32: TensorRT fuses neither."""
    model = onnx.load(graphs_of_fashion["int8"])
    weights = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear" and "weight" in n.output[0]}
    fp32 = {i.name: i for i in graphs.load(graphs_of_fashion["fp32"]).graph.initializer}
    original = {n.name: n.input[1] for n in graphs.load(graphs_of_fashion["fp32"]).graph.node if n.op_type == "Conv"}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(fp32[original[node.name]])
            tensor.name = f"{node.name}/fp32"
            model.graph.initializer.append(tensor)
            node.input[1] = tensor.name
    onnx.save(graphs.without_dead_nodes(model), tmp_path / "half_done.onnx")
    assert "INT8" not in engine.build(tmp_path / "half_done.onnx", fashion.spec, BuildOptions()).facts.dtype_share


def test_a_plan_says_which_version_built_it(plan: bytes) -> None:
    assert version_of(plan) == tensorrt_rtx.__version__
    for garbage in (b"", plan[:27], b"garbage" + plan, b"\x00" * 64):
        assert version_of(garbage) is None


def test_a_plan_of_another_version_does_not_load_in_the_server(plan: bytes) -> None:
    assert plans.server_gate(plan, tensorrt_rtx.__version__).passed
    refused = plans.server_gate(plan, SERVER_TENSORRT)
    assert not refused.passed
    assert refused.detail == f"built by {tensorrt_rtx.__version__}, the server has {SERVER_TENSORRT}"


def test_planted_a_plan_that_another_version_built_fails_the_gate(plan: bytes) -> None:
    planted = b"ftrt" + plan[4:24] + bytes([11, 0, 0, 114]) + plan[28:]
    assert plans.server_gate(planted, "11.0.0.114").passed
    assert plans.server_gate(planted, SERVER_TENSORRT).detail.startswith("built by 11.0.0.114,")
    assert not plans.server_gate(planted, SERVER_TENSORRT).passed
    assert plans.server_gate(b"garbage", SERVER_TENSORRT).detail.startswith("built by no TensorRT,")


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("11.1.0.106", "11.1.0.106", True),
        ("11.1.0.106", "11.1.0", True),
        ("11.1.0.106", "11.1.", True),
        ("11.1.0.106", "11", True),
        ("11.1.0.106", "11.1.0.10", False),
        ("11.1.0.106", "1", False),
        ("11.10.0.2", "11.1", False),
        ("11.1", "11.1.0.106", False),
    ],
)
def test_versions_are_the_same_as_far_as_the_wanted_one_says(found: str, wanted: str, same: bool) -> None:
    assert same_version(found, wanted) is same


HEAVY = ["network.2.first.1/Conv", "network.2.first.1/Conv_2", "head/Gemm"]


def layer(made_of: str, *inputs: str, key: str = "DataType", kind: str = "CaskConvolution") -> dict[str, object]:
    """As the engine inspector describes one."""
    return {
        "Name": f"fused_{abs(hash(made_of))}",
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Dimensions": [16, 8, 28, 28], key: dtype} for dtype in inputs],
        "Metadata": "\x1f".join(f"[ONNX Layer: {name}]" for name in made_of.split()),
    }


@pytest.mark.parametrize(
    ("key", "int8", "half"),
    [
        ("DataType", "Int8", "Half"),  # TensorRT 11
        ("Format/Datatype", "Int8", "Half"),  # 10
        ("Format/Datatype", "Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP16 format"),
    ],
)
def test_the_share_is_what_the_layers_of_the_engine_take_in(key: str, int8: str, half: str) -> None:
    found = [
        layer("network.2.first.1/Conv network.2/Relu", int8, half, key=key),
        layer("network.2.first.1/Conv_2", int8, key=key),
        layer("head/Gemm", half, key=key),
        layer("normalise/Sub", "Float", key=key),
    ]
    assert layers.inspected_share(json.dumps({"Layers": found}), HEAVY) == {"INT8": 0.6667, "HALF": 0.3333}


def test_a_layer_that_only_copies_for_another_does_not_count() -> None:
    copies = layer("", "Float", kind="Reformat")
    copies["Name"] = "Reformatting CopyNode for Input Tensor 0 to network.2.first.1/Conv"
    found = [copies, *(layer(name, "Half") for name in HEAVY)]
    assert layers.inspected_share(json.dumps({"Layers": found}), HEAVY) == {"HALF": 1.0}


def test_an_inspector_that_names_too_few_layers_gives_no_share() -> None:
    for found in ([layer("head/Gemm", "Half")], ["network.2.first.1/Conv", "head/Gemm"], [layer("head/Gemm")], []):
        assert layers.inspected_share(json.dumps({"Layers": found}), HEAVY) == {}


def facts(compute_capability: str | None, *, hardware_compatible: bool = False) -> Engine:
    return Engine("tensorrt", 1, 0.1, {}, None, None, compute_capability, hardware_compatible)


def test_a_plan_is_published_for_the_gpus_that_can_run_it() -> None:
    assert plans.plan_files(facts("9.0")) == ["model.sm90.plan"]
    assert plans.plan_files(facts("12.1")) == ["model.sm121.plan"]
    assert plans.plan_files(facts("6.1")) == plans.plan_files(facts(None)) == ["model.plan"]
    every = plans.plan_files(facts("8.6", hardware_compatible=True))
    assert "model.sm75.plan" not in every and {"model.sm80.plan", "model.sm90.plan", "model.sm120.plan"} <= {*every}


def test_the_servers_configuration_names_a_plan_for_every_gpu() -> None:
    path = layout.ROOT / "model_repository" / "fashion_classifier" / "config.pbtxt"
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    assert config.cc_model_filenames == cc_model_filenames()


def test_the_tensorrt_of_the_server_is_one_everywhere() -> None:
    project = tomllib.loads((layout.ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["gpu"] == [f"tensorrt-cu13=={SERVER_TENSORRT}"]
    for lock in ("bindings.lock", "server-gpu.lock"):
        pinned = re.findall(r"^tensorrt\S*==(\S+)", (layout.ROOT / "deploy" / lock).read_text(), re.MULTILINE)
        assert set(pinned) == {SERVER_TENSORRT}, lock


@pytest.mark.gpu
def test_a_plan_of_every_precision_answers_like_onnxruntime(
    graphs_of_fashion: dict[Precision, Path], fashion: ExportSource
) -> None:
    names = [tensor.name for tensor in fashion.spec.outputs]
    for precision, path in graphs_of_fashion.items():
        built = engine.build(path, fashion.spec, BuildOptions("tensorrt"))
        assert plans.server_gate(built.plan, SERVER_TENSORRT).passed
        tolerance = fashion.spec.limits[precision].tolerance["logits"]
        with PlanRunner(built.plan, fashion.spec) as run:
            for end in ("min", "opt", "max"):
                expected = onnx_runner(path, names)(fashion.inputs_at(end))["logits"]
                assert run(fashion.inputs_at(end))["logits"] == pytest.approx(expected, abs=tolerance)
            assert layers.inspected_share(run.inspect(), graphs.heavy_nodes(graphs.load(path)))
