"""Graphs as people have them are published as far as they can be; what cannot be is refused alone, and by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from contracts import golden, manifest, model_config
from contracts.manifest import Manifest
from export import steps
from tests.conftest import Workspace
from tests.export.brought import N, bring, noise, parsed, with_weights

pytestmark = pytest.mark.heavy

ALL = ("fp32", "fp16", "int8")
LAYER = "(float[N,8] x) => (float[N,5] y) { z = MatMul(x, w)  y = Relu(z) }"
BRANCHES = """(float[N,8] x) => (float[N,5] y) {
  a = MatMul(x, w0)  r = Relu(a)
  m = ReduceMax <keepdims = 0> (x)
  c = Greater(m, two)
  y = If (c) <then_branch = t () => (float[N,5] t) { t = MatMul(r, w1) },
              else_branch = e () => (float[N,5] e) { e = MatMul(r, w2) }>
}"""
WORDS = """(string[N,1] colour, float[N,3] size) => (float[N,4] y) {
  code = ai.onnx.ml.LabelEncoder <
    keys_strings = ["red", "grün"], values_floats = [1.0, 2.0], default_float = 0.0
  > (colour)
  both = Concat <axis = 1> (code, size)
  y = MatMul(both, w)
}"""


def released(workspace: Workspace, arguments: list[str], name: str) -> tuple[Manifest, str]:
    """Export it; what was published, and what was said meanwhile."""
    models = workspace.root / "models"
    done = workspace.run("export", *arguments, "--repository", models)
    assert done.returncode == 0, done.stderr
    return manifest.verify(models / name / "1"), done.stderr


def refused(workspace: Workspace, arguments: list[str], name: str) -> str:
    """Export it; why not. Nothing of it is left in the repository."""
    models = workspace.root / "models"
    done = workspace.run("export", *arguments, "--repository", models)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert not (models / name).exists()
    return done.stderr[done.stderr.index("error: ") :]


def passed(release: Manifest) -> dict[str, bool]:
    return {variant.precision: variant.passed for variant in release.variants}


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_every_precision_is_made_from_half_and_from_double(workspace: Workspace, tmp_path: Path, dtype: str) -> None:
    kind = {"float16": "float16", "float64": "double"}[dtype]
    model = with_weights(parsed(LAYER.replace("float", kind)), w=noise(8, 5, dtype=dtype))
    asked = bring(tmp_path / dtype, model, {"x": noise(N, 8, dtype=dtype)}, precisions=ALL)
    release, _ = released(workspace, asked, dtype)
    assert passed(release) == dict.fromkeys(ALL, True)
    [request, *_] = golden.find(workspace.root / "models", dtype)
    assert {values.dtype for values in (*request.inputs.values(), *request.answers.values())} == {np.dtype(dtype)}
    # TensorRT takes and gives half, but no double.
    assert release.without_tensorrt == (None if dtype == "float16" else "TensorRT has no float64, as x is")


def test_branches_with_layers_cost_fp16_alone(workspace: Workspace, tmp_path: Path) -> None:
    weights = {"w0": noise(8, 16), "w1": noise(16, 5), "w2": noise(16, 5), "two": np.float32(2)}
    model = with_weights(parsed(BRANCHES), **{name: np.asarray(values) for name, values in weights.items()})
    asked = bring(tmp_path / "branches", model, {"x": noise(N, 8)}, precisions=ALL)
    release, said = released(workspace, asked, "branches")
    assert passed(release) == {"fp32": True, "fp16": False, "int8": True}
    assert "fp16 REFUSED: ModelOpt could not convert" in said and "topologically sorted" in said, "with its own reason"


@pytest.mark.parametrize("dtype", ["object", "str", "bytes"])
def test_text_is_one_type_whatever_it_is_called_and_kept_as(workspace: Workspace, tmp_path: Path, dtype: str) -> None:
    words = np.random.default_rng(0).choice(["red", "grün", "blue"], (N, 1))
    texts: Mapping[str, NDArray[Any]] = {
        "object": words.astype(object), "str": words, "bytes": np.char.encode(words, "utf-8")
    }  # fmt: skip
    model = with_weights(parsed(WORDS, domains={"ai.onnx.ml": 3}), w=noise(4, 4))
    samples = {"colour": words, "size": noise(N, 3)}
    asked = bring(tmp_path / "words", model, samples, precisions=("fp32", "fp16"), dtypes={"colour": dtype})
    np.savez(tmp_path / "words" / "samples.npz", colour=texts[dtype], size=noise(N, 3))  # objects are pickled
    release, said = released(workspace, asked, "words")
    assert passed(release) == {"fp32": True, "fp16": False}
    assert "the input 'colour' is text, and what makes FP16 takes numbers alone" in said
    requests = golden.find(workspace.root / "models", "words")
    assert {text.decode() for request in requests for text in request.inputs["colour"].ravel()} == {*words.ravel()}
    config = model_config.read(workspace.root / "models" / "words" / "config.pbtxt")
    assert (config.backend, [group.kind for group in config.instance_group]) == ("onnxruntime", [2]), "2 is KIND_CPU"


def test_what_tensorrt_does_not_compile_is_served_on_a_cpu_by_an_explicit_choice_that_is_recorded(
    workspace: Workspace, tmp_path: Path
) -> None:
    model = parsed(
        '(float[N,4] x) => (float[N,4] y) { y = ai.onnx.ml.Normalizer <norm = "L2"> (x) }', domains={"ai.onnx.ml": 3}
    )
    why = refused(workspace, bring(tmp_path / "norm", model, {"x": noise(N, 4)}), "norm")
    assert "compiled by TensorRT 0 (limit: at least 1)" in why and "Normalizer" in why
    assert "Hint: what TensorRT does not take, ONNX Runtime may serve, on a CPU: tensorrt = false in the spec" in why
    chosen = bring(tmp_path / "norm", model, {"x": noise(N, 4)}, more="tensorrt = false")
    release, _ = released(workspace, chosen, "norm")
    assert release.without_tensorrt == "the spec says tensorrt = false"
    told = "For a CPU alone, and never for a GPU:"
    assert told in (workspace.root / "models" / "norm" / "1" / "report.md").read_text("utf-8")
    assert told in workspace.must("export", "show", "norm", "--repository", workspace.root / "models")
    config = model_config.read(workspace.root / "models" / "norm" / "config.pbtxt")
    assert [group.kind for group in config.instance_group] == [2], "2 is KIND_CPU"
    done = workspace.run("export", *chosen, "--repository", workspace.root / "models", "--target", "tensorrt")
    assert "error: there are no plans of norm: the spec says tensorrt = false" in done.stderr


def test_a_bug_while_one_precision_is_made_costs_that_one_and_is_logged(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("nobody foresaw it")

    monkeypatch.setattr(steps, "half_graph", broken)
    model = with_weights(parsed(LAYER), w=noise(8, 5))
    asked = bring(tmp_path / "layer", model, {"x": noise(N, 8)}, precisions=("fp32", "fp16"))
    release, said = released(workspace, asked, "layer")
    assert passed(release) == {"fp32": True, "fp16": False}
    assert "fp16 REFUSED: making it failed with a bug, KeyError: 'nobody foresaw it'" in said
    [logged] = [record for record in caplog.records if record.exc_info]
    assert logged.getMessage() == "a bug, while making fp16"


def baked() -> ModelProto:
    text = "(float[N,2,4] x) => (float[N,5] y) { f = Reshape(x, to)  y = MatMul(f, w) }"
    return with_weights(parsed(text), to=np.array([1, 8]), w=noise(8, 5))


def test_what_fails_when_it_is_run_is_refused_before_anything_is_written(workspace: Workspace, tmp_path: Path) -> None:
    why = refused(workspace, bring(tmp_path / "baked", baked(), {"x": noise(N, 2, 4)}), "baked")
    assert why.startswith("error: the node that gives f (Reshape) takes one sample, and fails at a batch of 8: ")


BESIDE = {
    "a mean": "(float[N,4] x) => (float[N,4] y) { m = ReduceMean <axes = [0], keepdims = 1> (x)  y = Sub (x, m) }",
    "a decision": """(float[N,4] x) => (float[N,4] y) {
      m = ReduceMax <keepdims = 0> (x)  c = Greater (m, two)
      y = If (c) <then_branch = t () => (float[N,4] t) { t = Tanh (x) },
                  else_branch = e () => (float[N,4] e) { e = Neg (x) }>
    }""",
}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_answers_by_what_is_beside_it_is_served_a_row_at_a_time(
    workspace: Workspace, tmp_path: Path, kind: str
) -> None:
    model = with_weights(parsed(BESIDE[kind]), two=np.asarray(2, np.float32))
    release, said = released(workspace, bring(tmp_path / "beside", model, {"x": noise(N, 4)}), "beside")
    assert "warning: the answer to a sample depends on what is in the batch beside it: 'y' is " in said
    assert "served a row at a time, as with max = 1 of the batch" in said
    folder = workspace.root / "models" / "beside"
    for config in (folder / "config.pbtxt", folder / "configs" / "cpu.pbtxt"):
        assert model_config.read(config).max_batch_size == 1
    assert {request.rows for request in golden.find(workspace.root / "models", "beside")} == {1}
    assert passed(release)["fp32"]


@pytest.mark.parametrize(("limit", "batched"), [("= 1e-3", False), ("= 0.5", True)])
def test_a_scale_of_the_whole_batch_is_taken_as_far_as_the_limits_allow(
    workspace: Workspace, tmp_path: Path, limit: str, batched: bool
) -> None:
    text = "(float[N,4] x) => (float[N,4] y) { q, s, z = DynamicQuantizeLinear (x)  y = DequantizeLinear (q, s, z) }"
    arguments = bring(tmp_path / "scale", parsed(text), {"x": noise(N, 4)}, more="tensorrt = false")
    Path(arguments[3]).write_text(Path(arguments[3]).read_text("utf-8").replace("= 0.5", limit), "utf-8")
    released(workspace, arguments, "scale")
    config = model_config.read(workspace.root / "models" / "scale" / "config.pbtxt")
    assert (config.max_batch_size > 1) is batched


def test_layers_that_are_not_in_8_bits_are_named_with_the_reason(workspace: Workspace, tmp_path: Path) -> None:
    text = "(float[N,8] x) => (float[N,8] y) { a = MatMul(x, w)  t = Transpose(a)  b = MatMul(a, t)  y = MatMul(b, a) }"
    model = with_weights(parsed(text), w=noise(8, 8))
    asked = bring(tmp_path / "small", model, {"x": noise(N, 8)}, precisions=("fp32", "int8"))
    spec = Path(asked[3])
    spec.write_text(spec.read_text().replace("computed_share = 0.0", "computed_share = 1.0"))
    release, _ = released(workspace, asked, "small")
    [gate] = [g for v in release.variants if v.precision == "int8" for g in v.gates if g.id == "computed_share"]
    assert not gate.passed
    assert "MatMul (MatMul): its weights are 8 × 8, and quantizers leave what has fewer than 16" in gate.detail
    assert "MatMul_2 (MatMul): both of its operands are computed" in gate.detail
    page = (workspace.root / "models" / "small" / "1" / "report.html").read_text("utf-8")
    assert "chosen</span>" not in page and json.loads(json.dumps(passed(release)))["int8"] is False
