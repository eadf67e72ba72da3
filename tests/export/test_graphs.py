"""Graphs of any age and style become one that the export knows, and answer as they did; weights may lie outside."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from export import graphs
from export.errors import CompileError, GraphError
from export.graphs import file as graph_file
from export.proof import contract, engine
from export.proof.runners import memory_runner, onnx_runner
from export.source.graph_file import from_graph
from tests.export.brought import noise, parsed, with_weights

X = noise(3, 2, 6, 6)
CONV = "c = Conv <pads = [1,1,1,1], kernel_shape = [3,3]> (x, w)  r = Relu(c)"


def conv(rest: str, opset: int, *, ir: int = 3, **weights: NDArray[np.generic]) -> ModelProto:
    """A convolution, and what follows; as long ago every weight is among the inputs as well."""
    model = parsed(f"(float[N,2,6,6] x) => (float[N,4] y) {{ {CONV}  {rest} }}", opset=opset, ir=ir)
    weights = {"w": noise(4, 2, 3, 3), "v": noise(4 * 6 * 6, 4), **weights}
    for name, values in weights.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    return with_weights(model, **weights)


def sparse() -> ModelProto:
    model = parsed("(float[N,4] x) => (float[N,2] y) { y = MatMul(x, w) }")
    values = numpy_helper.from_array(np.array([1.5, -2.0, 3.0], np.float32), "w")
    places = numpy_helper.from_array(np.array([0, 3, 6]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 2]))
    return model


def with_function(opset_of_it: int = 17) -> ModelProto:
    model = parsed("(float[N,4] x) => (float[N,4] y) { z = Relu(x)  y = mine.Swish(z) }", domains={"mine": 1})
    nodes = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
    opsets = [helper.make_opsetid("", opset_of_it)]
    model.functions.append(helper.make_function("mine", "Swish", ["a"], ["b"], nodes, opsets))
    return model


FLAT = "f = Flatten(r)  y = MatMul(f, v)"
OLD: dict[str, Callable[[], ModelProto]] = {
    "opset 7": lambda: conv(FLAT, 7),
    "opset 8, Upsample": lambda: conv(
        "u = Upsample <scales = [1.0,1.0,2.0,2.0]> (r)  p = AveragePool <kernel_shape = [2,2], strides = [2,2]> (u)  "
        "f = Flatten(p)  y = MatMul(f, v)", 8,
    ),
    "opset 9, Softmax": lambda: conv("f = Flatten(r)  z = MatMul(f, v)  y = Softmax <axis = 1> (z)", 9),
    "opset 9, Dropout": lambda: conv("d = Dropout <ratio = 0.5> (r)  f = Flatten(d)  y = MatMul(f, v)", 9),
    "opset 11, Squeeze": lambda: conv(
        "u = Unsqueeze <axes = [1]> (r)  s = Squeeze <axes = [1]> (u)  f = Flatten(s)  y = MatMul(f, v)", 11
    ),
    "opset 9, Upsample by a half": lambda: conv(
        "u = Upsample <mode = \"linear\"> (r, s)  p = MaxPool <kernel_shape = [4,4], strides = [1,1]> (u)  "
        "f = Flatten(p)  y = MatMul(f, v)", 9, s=np.array([1, 1, 1.5, 1.5], np.float32),
    ),
    "opset 8, BatchNormalization whose weights are shared": lambda: conv(
        "n = BatchNormalization(r, g, b, b, g)  f = Flatten(n)  y = MatMul(f, v)", 8,
        g=np.full(4, 2, np.float32), b=np.zeros(4, np.float32),
    ),
    "opset 10, a Loop that reads from outside": lambda: conv(
        "n = Constant <value = int64 {2}> ()  go = Constant <value = bool {1}> ()  f = Flatten(r)  z = MatMul(f, v)  "
        "y = Loop (n, go, z) <body = b (int64 i, bool a, float[M,K] s) => (bool o, float[M,K] t) "
        "{ o = Identity(a)  t = Mul(s, q) }>", 10, q=np.array([0.5], np.float32),
    ),
    "IR 3 and a Constant": lambda: conv(
        "two = Constant <value = float {2.0}> ()  m = Mul(r, two)  f = Flatten(m)  y = MatMul(f, v)", 17
    ),
    "sparse weights": sparse,
    "a function": with_function,
    "a function of another opset": lambda: with_function(14),
    "constants of every kind": lambda: parsed(
        "(float[N,4] x) => (float[N,4] y) { a = Constant <value_float = 2.5> ()  "
        "b = Constant <value_ints = [0, 4]> ()  z = Mul(x, a)  y = Reshape(z, b) }"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OLD)
def test_a_graph_of_any_age_becomes_one_of_today_and_answers_as_it_did(kind: str, tmp_path: Path) -> None:
    onnx.save(OLD[kind](), tmp_path / "old.onnx")
    x = X if "Conv" in {n.op_type for n in OLD[kind]().graph.node} else noise(3, 4)
    right = onnx_runner(tmp_path / "old.onnx", ["y"])({"x": x})["y"]
    model = graphs.inferred(graphs.normalise(graphs.load(tmp_path / "old.onnx")))
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x"], "weights are no inputs"
    assert not model.functions and not model.graph.sparse_initializer
    assert "Constant" not in {node.op_type for node in model.graph.node}
    assert np.allclose(memory_runner(model, ["y"])({"x": x})["y"], right, atol=1e-5)


def test_nodes_of_one_name_get_others_and_a_branch_counts() -> None:
    text = """(float[N,4] x) => (float[N,4] y) {
      c = Constant <value: tensor = bool {1}> ()
      z = Relu(x)
      y = If (c) <then_branch = t () => (float[N,4] a) { a = Tanh(z) },
                  else_branch = e () => (float[N,4] b) { b = Neg(z) }>
    }"""
    model = parsed(text)
    for graph in (model.graph, *(attribute.g for attribute in model.graph.node[-1].attribute)):
        for node in graph.node:
            node.name = "node"
    with pytest.raises(GraphError, match="two nodes with same node name"):
        memory_runner(model, ["y"])
    named = graphs.as_runtimes_take_it(model)
    assert np.allclose(memory_runner(named, ["y"])({"x": noise(2, 4)})["y"], np.tanh(noise(2, 4).clip(0)), atol=1e-6)
    assert model.graph.node[0].name == "node", "a copy"
    assert graphs.as_runtimes_take_it(named) is named


OTHERS: dict[str, str] = {"float64": "double", "float16": "float16"}


@pytest.mark.parametrize("dtype", OTHERS)
def test_fp32_is_made_from_another_float_type_and_what_is_taken_and_given_keeps_it(dtype: str) -> None:
    kind = OTHERS[dtype]
    text = f"""({kind}[N,4] x, int64[N,1] i) => ({kind}[N,3] y, {kind}[N,4] same) {{
      h = MatMul(x, w)
      k = Cast <to = {TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT16}> (i)
      s = Add(h, k)
      c = Constant <value: tensor = bool {{1}}> ()
      y = If (c) <then_branch = t () => ({kind}[N,3] a) {{ a = Relu(s) }},
                  else_branch = e () => ({kind}[N,3] b) {{ b = Neg(s) }}>
      same = Identity(x)
    }}"""
    model = graphs.normalise(with_weights(parsed(text), w=noise(4, 3, dtype=dtype)))
    given = {"x": noise(5, 4, dtype=dtype), "i": np.arange(5)[:, None]}
    right = memory_runner(model, ["y", "same"])(given)
    made = graphs.inferred(graphs.in_float32(model))
    onnx.checker.check_model(made, full_check=True)
    found = memory_runner(made, ["y", "same"])(given)
    assert {values.dtype for values in found.values()} == {np.dtype(dtype)}
    assert np.allclose(found["y"], right["y"], atol=1e-2 if dtype == "float16" else 1e-5)
    assert np.array_equal(found["same"], given["x"].astype(np.float32).astype(dtype))
    types = graphs.tensor_types(made)
    others = {name for name, t in types.items() if t in (TensorProto.DOUBLE, TensorProto.FLOAT16)}
    assert others == {"x", "y", "same"}, "all between is FP32"


def test_a_graph_in_fp32_is_left_as_it_is() -> None:
    model = parsed("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    before = model.SerializeToString()
    assert graphs.in_float32(model).SerializeToString() == before


def test_shapes_follow_from_the_inputs_and_not_from_what_an_exporter_noted() -> None:
    model = parsed("(float[N,4] x) => (float[N,4] y) { z = Relu(x)  y = Tanh(z) }")
    model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4]))
    [z] = graphs.inferred(model).graph.value_info
    assert [d.dim_value or d.dim_param for d in z.type.tensor_type.shape.dim] == ["N", 4]


def test_what_a_converter_lost_of_the_outputs_is_given_back() -> None:
    model = parsed("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    lost = parsed("(float[N,M] x) => (float[A,B] y) { y = Relu(x) }")
    inputs, outputs = graphs.io_tensors(graphs.settled(lost, model))
    assert (inputs["x"], outputs["y"]) == (("float32", (-1, 4)), ("float32", (-1, 4)))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A graph whose weights lie in a folder beside it."""
    text = "(float[N,4] x) => (float[N,3] y) { h = MatMul(x, w)  z = Add(h, b)  y = Reshape(z, to) }"
    model = with_weights(parsed(text), w=noise(4, 3), b=noise(3), to=np.array([0, 3]))
    (tmp_path / "brought" / "data").mkdir(parents=True)
    path = tmp_path / "brought" / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data/weights.bin", size_threshold=0)
    return path


@pytest.mark.parametrize("many", [False, True], ids=["in memory", "too many for memory"])
def test_weights_that_lie_outside_are_read_or_carried_along(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    right = noise(2, 4) @ noise(4, 3) + noise(3)
    if many:
        monkeypatch.setattr(graph_file, "_MOST_IN_MEMORY", 10)
        monkeypatch.setattr(graph_file, "_SMALL", 16)
    model = graphs.inferred(graphs.in_float32(graphs.normalise(graphs.load(outside))))
    (tmp_path / "made").mkdir()
    graphs.save(model, tmp_path / "made" / "fp32.onnx")
    assert (tmp_path / "made" / "model.onnx.data").exists() is many
    (tmp_path / "published").mkdir()
    graphs.copy(tmp_path / "made" / "fp32.onnx", tmp_path / "published" / "model.onnx")
    outside.unlink()
    found = onnx_runner(tmp_path / "published" / "model.onnx", ["y"])({"x": noise(2, 4)})["y"]
    assert np.allclose(found, right, atol=1e-6)
    size = sum(path.stat().st_size for path in (tmp_path / "published").iterdir())
    assert graphs.size_bytes(tmp_path / "published" / "model.onnx") == size
    if many:
        with pytest.raises(GraphError, match="its weights are too many for FP16: 15, which take"):
            graphs.require_whole(graphs.load(tmp_path / "made" / "fp32.onnx"), "FP16")


def test_other_weights_outside_are_another_graph(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_file, "_MOST_IN_MEMORY", 10)
    first = graphs.load(outside)
    digest = graphs.digest(first)
    graphs.save(first, tmp_path / "fp32.onnx")
    saved = (tmp_path / "fp32.onnx").read_bytes()
    weights = outside.parent / "data" / "weights.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    second = graphs.load(outside)
    graphs.save(second, tmp_path / "fp32.onnx")
    assert graphs.digest(second) != digest and (tmp_path / "fp32.onnx").read_bytes() != saved
    monkeypatch.undo()
    assert graphs.digest(graphs.load(outside)) != digest


def remove(path: Path) -> None:
    (path.parent / "data" / "weights.bin").unlink()


def shorten(path: Path) -> None:
    weights = path.parent / "data" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])


def lead_out(location: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].external_data[0].value = location
        path.write_bytes(model.SerializeToString())

    return change


def link(path: Path) -> None:
    """As Hugging Face's cache has it."""
    weights = path.parent / "data" / "weights.bin"
    weights.symlink_to(weights.rename(path.parent.parent / "blob"))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (link, r"weights\.bin, which .* is a link, and onnx follows none to weights\nHint: .*: cp -rL .*brought ELSE"),
        (
            remove,
            r"weights\.bin does not exist, which holds weights of net\.onnx \('w' for one\)\nHint: copy it beside",
        ),
        (
            shorten,
            r"weights\.bin, which holds weights of net\.onnx .*ends too early\nNote: it has \d+ bytes, and \d+ are",
        ),
        (
            lead_out("../weights.bin"),
            r"\.\./weights\.bin, which .* does not lie in its folder\n(?s:.*)Hint: onnx\.load",
        ),
        (lead_out("/etc/passwd"), r"/etc/passwd, which .* does not lie in its folder"),
    ],
)
def test_weights_that_are_not_there_are_named_first(outside: Path, harm: Callable[[Path], None], told: str) -> None:
    harm(outside)
    with pytest.raises(GraphError, match=told):
        graphs.load(outside)


def test_an_operator_of_onnxruntimes_own_needs_no_import(tmp_path: Path) -> None:
    model = parsed("(float[N,4] x) => (float[N,4] y) { y = com.microsoft.Gelu(x) }")
    onnx.save(model, tmp_path / "model.onnx")
    assert memory_runner(graphs.load(tmp_path / "model.onnx"), ["y"])({"x": noise(2, 4)})["y"].shape == (2, 4)


def test_a_map_for_each_sample_is_told_with_how_to_leave_it_out() -> None:
    model = parsed("(float[N,2] x) => (float[N,2] y) { y = Relu(x) }")
    probabilities = helper.make_value_info(
        "probabilities", helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, _float()))
    )
    model.graph.output.append(probabilities)
    with pytest.raises(
        GraphError, match=r"'probabilities' is no tensor, .*\nNote: .*ZipMap.*\nHint: .*'zipmap': False"
    ):
        graphs.io_tensors(model)


def _float() -> onnx.TypeProto:
    return helper.make_tensor_type_proto(TensorProto.FLOAT, [])


BATCH = DynamicDim("batch", 1, 4, 8)
SPEC = ModelSpec(
    family="toy",
    model="toy",
    inputs=(TensorSpec("x", "float32", (BATCH, 4)),),
    outputs=(TensorSpec("y", "float32", (BATCH, 4)),),
    limits={"fp32": Limits({"y": 1e-6})},
    task="values",
)
UNKNOWN = '(float[N,4] x) => (float[N,4] y) { y = ai.onnx.ml.Normalizer <norm = "L2"> (x) }'


def without_rank(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def of_one_row(model: ModelProto) -> None:
    """As LightGBM's converter writes it of its labels."""
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def with_0_for_what_varies(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 0


def without_a_name_for_what_varies(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = ""


@pytest.mark.parametrize("change", [without_rank, of_one_row, with_0_for_what_varies, without_a_name_for_what_varies])
@pytest.mark.parametrize(
    "text", [UNKNOWN, "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"], ids=["unknown", "known"]
)
def test_what_exporters_say_of_shapes_is_taken_for_what_they_mean(
    tmp_path: Path, text: str, change: Callable[[ModelProto], None]
) -> None:
    model = parsed(text, domains={"ai.onnx.ml": 3})
    change(model)
    onnx.save(model, tmp_path / "model.onnx")
    found = graphs.pinned(graphs.normalise(graphs.load(tmp_path / "model.onnx")), SPEC)
    assert contract.graph_gate(found, SPEC).passed
    dims = [value.type.tensor_type.shape.dim[0] for value in (*found.graph.input, *found.graph.output)]
    assert all(dim.dim_param for dim in dims), "TensorRT takes no name for a size of 0"
    np.savez(tmp_path / "x.npz", x=noise(40, 4))
    source = from_graph(tmp_path / "model.onnx", SPEC, [tmp_path / "x.npz"], 20)
    assert source.reference()({"x": noise(3, 4)})["y"].shape == (3, 4)


def test_a_branch_for_another_size_than_the_specs_keeps_no_graph_from_loading(tmp_path: Path) -> None:
    """As of a network for two sampling rates: the graph takes what either does, the spec one of them."""
    text = """(float[A,B] x, int64 rate) => (float[A,C] y) {
      c = Equal (rate, low)
      y = If (c) <then_branch = t () => (float[A,C] t) { t = MatMul (x, narrow) },
                  else_branch = e () => (float[A,C] e) { e = MatMul (x, wide) }>
    }"""
    onnx.save(
        with_weights(parsed(text), low=np.asarray(8), narrow=noise(2, 3), wide=noise(4, 3)), tmp_path / "model.onnx"
    )
    np.savez(tmp_path / "x.npz", x=noise(40, 1, 4), rate=np.full(40, 16))
    spec = replace(
        SPEC,
        inputs=(TensorSpec("x", "float32", (1, 4)), TensorSpec("rate", "int64", ())),
        outputs=(TensorSpec("y", "float32", (1, 3)),),
        batched=False,
    )
    from_graph(tmp_path / "model.onnx", spec, [tmp_path / "x.npz"], 20).write_graph(tmp_path / "fp32.onnx")
    run, x = onnx_runner(tmp_path / "fp32.onnx", ["y"]), noise(1, 4)
    assert np.allclose(run({"x": x, "rate": np.asarray(16)})["y"], x @ noise(4, 3), atol=1e-5)
    assert contract.graph_gate(graphs.load(tmp_path / "fp32.onnx"), spec).passed
    with pytest.raises(CompileError, match=r"tensorrt_rtx cannot (?:tell the shapes in|compile) fp32\.onnx\nNote: "):
        engine.build(tmp_path / "fp32.onnx", spec, engine.BuildOptions())


def test_an_engine_takes_the_sizes_that_the_spec_fixes_and_the_graph_leaves_open(tmp_path: Path) -> None:
    onnx.save(parsed("(float[A,B] x) => (float[A,B] y) { y = Relu(x) }"), tmp_path / "model.onnx")
    built = engine.build(tmp_path / "model.onnx", SPEC, engine.BuildOptions())
    assert contract.engine_gate(built.io_tensors, SPEC).passed


def test_an_output_of_another_rank_than_its_exporter_guessed_is_taken_for_what_it_is(tmp_path: Path) -> None:
    model = with_weights(parsed("(float[N,4] x) => (float[N,K] y) { y = Reshape (x, to) }"), to=np.array([-1, 4, 1]))
    onnx.save(model, tmp_path / "model.onnx")
    spec = replace(SPEC, outputs=(TensorSpec("y", "float32", (BATCH, 4, 1)),))
    np.savez(tmp_path / "x.npz", x=noise(40, 4))
    source = from_graph(tmp_path / "model.onnx", spec, [tmp_path / "x.npz"], 20)
    assert source.reference()({"x": noise(3, 4)})["y"].shape == (3, 4, 1)
    with pytest.raises(GraphError, match=r"output 'y' has dims \[-1, 4, 1\], not \[-1, 4, 2, 1\]"):
        wrong = replace(SPEC, outputs=(TensorSpec("y", "float32", (BATCH, 4, 2, 1)),))
        from_graph(tmp_path / "model.onnx", wrong, [tmp_path / "x.npz"], 20)


def test_an_output_that_really_has_one_row_is_not_taken_for_a_batch() -> None:
    model = parsed("(float[N,4] x) => (float[1,4] y) { y = ReduceMax <axes = [0]> (x) }")
    gate = contract.graph_gate(graphs.pinned(graphs.normalise(model), SPEC), SPEC)
    assert "output 'y' has dims [1, 4], not [-1, 4], it is baked in" in gate.detail


def test_a_transpose_that_exchanges_nothing_changes_no_answer(tmp_path: Path) -> None:
    """onnxruntime 1.24 takes it for one that does, before a Gemm: an error, or with as many rows as columns worse."""
    text = "(float[N,4] x) => (float[N,4] y) { t = Transpose <perm = [0, 1]> (x)  y = Gemm(t, w) }"
    model = with_weights(parsed(text), w=noise(4, 4))
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=noise(40, 4))
    source = from_graph(tmp_path / "model.onnx", SPEC, [tmp_path / "x.npz"], 20)
    for run in (source.reference(), memory_runner(graphs.normalise(model), ["y"])):
        for rows in (3, 4):
            x = noise(rows, 4)
            assert np.allclose(run({"x": x})["y"], x @ noise(4, 4), atol=1e-5)


def test_names_that_break_what_reads_them_are_made_plain() -> None:
    model = parsed("(float[N,4] x) => (float[N,4] y) { a = Relu(x)  b = Tanh(a)  y = Neg(b) }")
    for node, name in zip(model.graph.node, ["dense[0]\x1b[31m", "a" * 5000, "net/1:0"], strict=True):
        node.name = name
    names = [node.name for node in graphs.normalise(model).graph.node]
    assert names == ["dense_0___31m", "a" * 200, "net/1:0"]


def test_nodes_that_are_not_of_the_opset_are_no_damage(tmp_path: Path) -> None:
    text = "(float[N,4] x) => (float[N,4] y) { y = ReduceMax <axes = [1]> (x) }"
    onnx.save(parsed(text, opset=18), tmp_path / "model.onnx")
    with pytest.raises(GraphError, match=r"not a valid graph of opset 18\nNote: Unrecognized attribute: axes for op"):
        graphs.load(tmp_path / "model.onnx")


def test_what_draws_at_random_is_refused_by_its_node(tmp_path: Path) -> None:
    text = "(float[N,4] x) => (float[N,4] y) { noise = RandomNormalLike(x)  y = Add(x, noise) }"
    onnx.save(parsed(text), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=noise(40, 4))
    run = from_graph(tmp_path / "model.onnx", SPEC, [tmp_path / "x.npz"], 20).reference()
    with pytest.raises(GraphError, match=r"two runs of it differ in 'y'(?s:.*)RandomNormalLike \(RandomNormalLike\)"):
        run({"x": noise(3, 4)})


def test_noise_that_changes_no_answer_is_no_fault(tmp_path: Path) -> None:
    text = "(float[N,4] x) => (float[N,4] y) { n = RandomNormalLike(x)  z = Mul(n, nought)  y = Add(x, z) }"
    onnx.save(with_weights(parsed(text), nought=np.zeros(1, np.float32)), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=noise(40, 4))
    run = from_graph(tmp_path / "model.onnx", SPEC, [tmp_path / "x.npz"], 20).reference()
    assert np.array_equal(run({"x": noise(3, 4)})["y"], noise(3, 4))


def test_names_that_modelopt_gives_its_own_casts_and_names_that_are_left_out_are_gone() -> None:
    text = "(float[N,4] x) => (float[N,4] y) { x_cast_to_fp16 = Relu(x)  y = Dropout(x_cast_to_fp16) }"
    model = parsed(text)
    model.graph.node[1].output.append("")
    made = graphs.normalise(model)
    assert [list(node.output) for node in made.graph.node] == [["x_cast_into_fp16"], ["y"]]
    assert np.array_equal(memory_runner(made, ["y"])({"x": noise(2, 4)})["y"], noise(2, 4).clip(0))
