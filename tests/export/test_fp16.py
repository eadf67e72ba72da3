"""FP16 graphs do not overflow, and a proof on a CPU would see it if one did."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.spec import Precision
from export import graphs, prove
from export.context import ExportContext
from export.errors import GraphError
from export.precision import autocast, fp16
from export.proof import engine
from export.proof.runners import memory_runner, onnx_runner
from export.source.base import ExportSource
from tests.export.brought import noise, parsed


def chain(dtype: int) -> onnx.ModelProto:
    """x · 300 · 300 / 90,000 in `dtype`: float16 overflows on the way."""
    values = {"a": 300.0, "b": 300.0, "c": 1 / 90_000}
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    nodes = [
        helper.make_node("Cast", ["x"], ["x0"], to=dtype),
        helper.make_node("Mul", ["x0", "a"], ["x1"]),
        helper.make_node("Mul", ["x1", "b"], ["x2"]),
        helper.make_node("Mul", ["x2", "c"], ["x3"]),
        helper.make_node("Cast", ["x3"], ["y"], to=TensorProto.FLOAT),
    ]
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("x", "y")]
    weights = [numpy_helper.from_array(np.array(v, kind), n) for n, v in values.items()]
    graph = helper.make_graph(nodes, "chain", io[:1], io[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_an_overflow_that_onnxruntime_hides_on_a_cpu_shows_in_the_rounded_twin() -> None:
    model, x = chain(TensorProto.FLOAT16), {"x": np.ones(4, np.float32)}
    assert np.isfinite(memory_runner(model, ["y"])(x)["y"]).all(), (
        "onnxruntime no longer hides it: simulate_fp16() can go"
    )
    assert np.isinf(memory_runner(fp16.simulate_fp16(model), ["y"])(x)["y"]).all()


def test_the_rounded_twin_rounds_as_torch_does_in_half(graphs_of_fashion: dict[Precision, Path]) -> None:
    """Of a single product, where no order of additions differs."""
    import torch

    a, b = (np.random.default_rng(i).normal(size=64).astype(np.float32) for i in range(2))
    nodes = [helper.make_node("Cast", [n], [f"{n}16"], to=TensorProto.FLOAT16) for n in "ab"]
    nodes += [helper.make_node("Mul", ["a16", "b16"], ["p"]), helper.make_node("Cast", ["p"], ["y"], to=1)]
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [64]) for n in "aby"]
    model = helper.make_model(
        helper.make_graph(nodes, "product", io[:2], io[2:]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    expected = (torch.from_numpy(a).half() * torch.from_numpy(b).half()).float().numpy()
    found = memory_runner(fp16.simulate_fp16(model), ["y"])({"a": a, "b": b})["y"]
    assert np.array_equal(found, expected)


@pytest.fixture(scope="module")
def overflowing(checkpoint: Path, fashion: ExportSource) -> ExportSource:
    """The same network, one layer of it 100,000 times larger and the next as much smaller: FP32 answers alike."""
    import torch

    from export.source.pytorch import graph_from_module, module_runner
    from training import checkpoints, families

    family = families.load("fashion")
    module = copy.deepcopy(checkpoints.read(checkpoint, family).module)
    block = module.network[2]  # type: ignore[index]  # a Sequential
    with torch.no_grad():
        for parameter in (block.first[1].weight, block.first[1].bias):  # batch norm's: what the layer gives
            parameter.mul_(1e5)
        block.second[0].weight.mul_(1e-5)
    return dataclasses.replace(
        fashion,
        origin=dataclasses.replace(fashion.origin, sha256="overflowing"),
        reference=lambda: module_runner(module.served(), fashion.spec),
        write_graph=lambda path: graph_from_module(module.served(), fashion.spec, path),
    )


def test_layers_that_would_overflow_stay_in_fp32_and_are_named_in_the_modules_terms(
    overflowing: ExportSource, tmp_path: Path, context_of: Callable[..., ExportContext]
) -> None:
    overflowing.write_graph(tmp_path / "fp32.onnx")
    some = [*overflowing.calibration.first(32).batches(32)]
    kept = fp16.convert(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx", some)
    assert {k.name for k in kept} == {"network.2.first.1/Conv", "network.2/Relu", "network.2.second.1/Conv"}
    assert any("float16 ends at 65,504" in k.reason for k in kept), kept
    share = engine.build(tmp_path / "fp16.onnx", overflowing.spec, engine.BuildOptions()).facts.dtype_share
    assert share == {"HALF": 0.8, "FLOAT": 0.2}, "two of ten heavy layers"
    proven = prove.prove(context_of(overflowing), "fp16", tmp_path / "fp16.onnx")
    figures = {gate.name: gate for gate in proven.variant.gates}
    assert figures["inf or nan"].passed and figures["agreement"].figure > 0.99


def test_planted_an_fp16_graph_that_overflows_fails_the_gate_for_inf_and_nan(
    overflowing: ExportSource, tmp_path: Path, context_of: Callable[..., ExportContext]
) -> None:
    """Everything cast to float16, as a converter that does not look at values does it."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    overflowing.write_graph(tmp_path / "fp32.onnx")
    model = graphs.load(tmp_path / "fp32.onnx")
    blind = convert_float_to_float16(model, keep_io_types=True)
    onnx.save(blind, tmp_path / "fp16.onnx")
    hidden = onnx_runner(tmp_path / "fp16.onnx", ["logits"])(next(overflowing.held_out.batches(64)))["logits"]
    assert np.isfinite(hidden).all(), "as onnxruntime computes it on a CPU, nothing is to be seen"
    proven = prove.prove(context_of(overflowing), "fp16", tmp_path / "fp16.onnx")
    assert "inf or nan" in {gate.name for gate in proven.variant.gates if not gate.passed}
    assert proven.variant.engine is None, "nothing is compiled that has failed"


def test_normalising_and_softmax_stay_in_fp32(graphs_of_fashion: dict[Precision, Path]) -> None:
    model = graphs.load(graphs_of_fashion["fp16"])
    types = graphs.tensor_types(model)
    by_name = {node.name: node for node in model.graph.node}
    for name in ("Div", "Sub", "Softmax"):
        assert types[by_name[name].output[0]] == TensorProto.FLOAT, name
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {types[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}


def test_a_converter_that_leaves_files_where_it_is_run_leaves_none_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As onnxruntime's shape inference does with what it cannot infer, weights and all."""

    def dump(*_: object, **__: object) -> None:
        Path("sym_shape_infer_temp.onnx").touch()
        raise NameError("name 'trt' is not defined")

    monkeypatch.setattr("modelopt.onnx.autocast.convert_to_mixed_precision", dump)
    gelu = parsed("(float[N,4] x) => (float[N,4] y) { y = com.microsoft.Gelu (x) }", domains={"com.microsoft": 1})
    onnx.save(gelu, tmp_path / "fp32.onnx")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(GraphError, match=r"takes none but ONNX's own operators, and not Gelu \(com\.microsoft\)"):
        autocast.converted(tmp_path / "fp32.onnx", [{"x": noise(2, 4)}], [])
    assert not list(here.iterdir())
