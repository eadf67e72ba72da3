"""A graph that onnxruntime does not load or run is told by node, reason, whose fault it is, and what to do."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from contracts.samples import Split
from export.errors import GraphError, RunError
from export.proof import blame
from export.proof.runners import memory_runner, onnx_runner, predict
from tests.export.brought import noise, parsed, with_weights

RELU = "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
NOT_LOADED = {
    "an operator of a plugin": (
        parsed("(float[N,4] x) => (float[N,4] y) { y = TRT.EfficientNMS(x) }", domains={"TRT": 1}),
        "has no operator EfficientNMS of the domain TRT\nHint: an operator of a plugin",
    ),
    "an opset of tomorrow": (
        parsed(RELU, opset=27),
        r"is written for opset 27 of ai\.onnx, .* reads up to 25\nHint: export it again with opset_version=25",
    ),
    "a newer opset of a domain": (
        parsed("(float[N,4] x) => (float[N,4] y) { y = ai.onnx.ml.Normalizer(x) }", domains={"ai.onnx.ml": 9}),
        r"is written for opset 9 of ai\.onnx\.ml, .* reads up to 5",
    ),
    "a newer IR": (parsed(RELU, ir=99), r"it has IR version 99, .* reads up to \d+\nHint: save it with an older onnx"),
    "no kernel": (
        parsed("(int16[N,4] x) => (int16[N,4] y) { y = Relu(x) }"),
        r"cannot compute the node without a name \(Relu\) on a CPU in the types that it has\nHint: .*float32",
    ),
    "types that do not fit": (
        with_weights(parsed("(float[N,4] x) => (float[N,4] y) { y = Add(x, k) }"), k=np.ones(4)),
        r"its types do not go together: .*tensor\(double\).*\nHint: it is a fault of the graph",
    ),
    "shapes that do not fit": (
        with_weights(parsed("(float[N,4] x) => (float[N,4] y) { y = MatMul(x, w) }"), w=noise(5, 4)),
        r"the node without a name \(MatMul\) does not fit what it is given: Incompatible dimensions",
    ),
    "what nobody foresaw": (
        parsed("(float[N,4] x) => (float[N,4] y) { y = Relu(zz) }"),
        r"the graph\nNote: Invalid model\. Node input 'zz' is not a graph input",
    ),
}


@pytest.mark.parametrize("kind", NOT_LOADED)
def test_what_is_not_loaded_is_told_by_operator_version_or_type(kind: str) -> None:
    model, told = NOT_LOADED[kind]
    with pytest.raises(GraphError, match=rf"onnxruntime (?:cannot load|{ort.__version__}).*{told}"):
        memory_runner(model, ["y"])


def test_a_check_of_the_runtimes_own_is_told_and_whose_fault_that_is() -> None:
    said = """[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /onnxruntime_src/core/state_utils.cc:413
        onnxruntime::common::Status onnxruntime::SaveTensors(const Env&, bool) !utils::InMemory(proto) was false. """
    told = blame.not_loaded(None, RuntimeError(said))
    assert "a check of its own fails, !utils::InMemory(proto), when it optimises" in str(told)
    assert f"Hint: it is a fault of onnxruntime {ort.__version__}" in str(told)


def test_a_file_that_is_not_loaded_is_named(tmp_path: Path) -> None:
    onnx.save(NOT_LOADED["an opset of tomorrow"][0], tmp_path / "model.onnx")
    with pytest.raises(GraphError, match=r"cannot load .*/model\.onnx: it is written for opset 27"):
        onnx_runner(tmp_path / "model.onnx", ["y"])


RESHAPE = "(float[N,2,4] x) => (float[N,8] y) { z = Relu(x)  y = Reshape(z, to) }"


def test_a_batch_that_was_baked_in_is_told_by_its_node() -> None:
    model = with_weights(parsed(RESHAPE), to=np.array([1, 8]))
    run = memory_runner(model, ["y"])
    with pytest.raises(GraphError) as told:
        predict(run, Split.of({"x": noise(6, 2, 4)}), 4)
    assert "the node that gives y (Reshape) takes one sample, and fails at a batch of 4: " in str(told.value)
    assert "Input shape:{4,2,4}, requested shape:{1,8}" in str(told.value), "what it was given, and what it wants"
    assert "Hint: export it again with a batch of 2 or more as the example" in str(told.value)


def test_a_node_that_fails_at_any_batch_is_told_with_what_it_was_given() -> None:
    model = with_weights(parsed(RESHAPE), to=np.array([5, 5]))
    model.graph.node[1].name = "flatten"
    with pytest.raises(RunError) as told:
        predict(memory_runner(model, ["y"]), Split.of({"x": noise(6, 2, 4)}), 4)
    assert (told.value.node, "requested shape:{5,5}" in told.value.reason) == ("the node flatten (Reshape)", True)
    assert "Note: it was given x float32 [4, 2, 4]" in str(told.value)
    assert ".cc:" not in str(told.value) and "onnxruntime::" not in str(told.value), "where in its sources helps nobody"


def test_the_node_in_a_branch_is_told_and_not_the_if() -> None:
    text = """(float[N,4] x) => (float[M,K] y) {
      c = Constant <value: tensor = bool {1}> ()
      y = If (c) <then_branch = t () => (float[M,K] a) { a = Reshape(x, to) },
                  else_branch = e () => (float[M,K] b) { b = Relu(x) }>
    }"""
    model = with_weights(parsed(text), to=np.array([5, 5]))
    with pytest.raises(RunError, match=r"\(Reshape\): "):
        memory_runner(model, ["y"])({"x": noise(2, 4)})


def test_an_index_that_the_samples_have_and_the_graph_has_not_is_the_samples_fault() -> None:
    model = with_weights(parsed("(int64[N,3] x) => (float[N,3,2] y) { y = Gather(table, x) }"), table=noise(5, 2))
    with pytest.raises(RunError, match=r"idx=9 must be within(?s:.*)Hint: an index of the samples .*vocabulary"):
        memory_runner(model, ["y"])({"x": np.full((2, 3), 9)})


def test_what_runs_without_optimisations_is_the_runtimes_fault() -> None:
    text = "(float[N,4] x) => (float[N,8] y) { t = Transpose <perm = [0, 1]> (x)  y = Gemm(t, w) }"
    run = memory_runner(with_weights(parsed(text), w=noise(4, 8)), ["y"])  # onnxruntime 1.24 fuses the two, and wrongly
    with pytest.raises(RunError, match=r"Dimension mismatch(?s:.*)Hint: it is a fault of onnxruntime, whose optim"):
        run({"x": noise(3, 4)})


def test_a_fault_of_the_caller_is_not_blamed_on_the_graph() -> None:
    with pytest.raises(ValueError, match="missing from input feed"):
        memory_runner(parsed(RELU), ["y"])({"another": noise(2, 4)})


def test_rows_that_depend_on_how_many_there_are_are_told_by_their_output() -> None:
    run = memory_runner(parsed("(float[N,4] x) => (float[N,N] y) { t = Transpose(x)  y = MatMul(x, t) }"), ["y"])
    with pytest.raises(GraphError, match=r"a row of the output 'y' is \[4\] in one batch, and \[2\] in another"):
        predict(run, Split.of({"x": noise(6, 4)}), 4)


def test_a_runner_of_no_outputs_gives_none() -> None:
    assert memory_runner(parsed(RELU), [])({"x": noise(2, 4)}) == {}
