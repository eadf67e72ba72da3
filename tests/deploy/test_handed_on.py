"""What steps in one process hand on is what Triton hands from model to model: copies, in C order, texts as bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

from tests.small_releases import written

STEP = """
import numpy as np

CALLED = "the step"


class Step:
    def __init__(self, folder, config):
        self.table = np.zeros((1, 2), np.float32)

    def answer(self, requests):
        return [self.one(**request) for request in requests]

    def one(self, {takes}):
        {body}
"""
PAIR = "TYPE_FP32 dims: [ 2 ]"
TEXTS = "TYPE_STRING dims: [ 2 ]"
SUM = """<ir_version: 8, opset_import: ["" : 17]>
  agraph (float[N, 2] a, float[N, 2] b) => (float[N, 2] y) { y = Add(a, b) }
"""


def tensors(role: str, given: Mapping[str, str]) -> str:
    described = ", ".join(f'{{ name: "{name}" data_type: {rest} }}' for name, rest in given.items())
    return f"{role} [ {described} ]"


class Ensemble:
    """An ensemble whose tensors have the names that its steps have for them, where nothing else is said."""

    def __init__(self, root: Path, inputs: Mapping[str, str]) -> None:
        self.root, self.inputs, self.steps = root, inputs, list[str]()

    def python(self, name: str, takes: Mapping[str, str], gives: Mapping[str, str], body: str) -> None:
        arguments = ", ".join(f"{key}=None" if "optional" in rest else key for key, rest in takes.items())
        written(self.root / name / "1", {"step.py": STEP.format(takes=arguments, body=body)})
        self._configure(name, "python", takes, gives)
        self.wire(name, {key: key for key in takes}, {key: key for key in gives})

    def network(self, **renamed: str) -> None:
        """Add up two: an input or the output may have another name in the ensemble."""
        if not (self.root / "net").exists():
            self._configure("net", "onnxruntime", {"a": PAIR, "b": PAIR}, {"y": PAIR})
            (self.root / "net" / "1").mkdir()
            (self.root / "net" / "1" / "model.onnx").write_bytes(onnx.parser.parse_model(SUM).SerializeToString())
        names = {name: renamed.get(name, name) for name in ("a", "b", "y")}
        self.wire("net", {"a": names["a"], "b": names["b"]}, {"y": names["y"]})

    def wire(self, model: str, takes: Mapping[str, str], gives: Mapping[str, str]) -> None:
        maps = [f'input_map {{ key: "{key}" value: "{value}" }}' for key, value in takes.items()]
        maps += [f'output_map {{ key: "{key}" value: "{value}" }}' for key, value in gives.items()]
        self.steps.append(f'{{ model_name: "{model}" model_version: -1 {" ".join(maps)} }}')

    def answer(self, *outputs: str, requests: list[Mapping[str, Any]]) -> list[Any]:
        from one_process import call
        from one_process.pipeline import Pipeline

        steps = f"ensemble_scheduling {{ step [ {', '.join(self.steps)} ] }}"
        config = f'platform: "ensemble" max_batch_size: 4 {tensors("input", self.inputs)} {steps}'
        version = written(self.root / "whole", {"config.pbtxt": config, "1/README": ""}) / "1"
        found = Pipeline(call.read(version, outputs)).answer(requests)
        return [f if isinstance(f, Exception) else [f[name].tolist() for name in outputs] for f in found]

    def _configure(self, name: str, backend: str, takes: Mapping[str, str], gives: Mapping[str, str]) -> None:
        text = f'backend: "{backend}" max_batch_size: 4 {tensors("input", takes)} {tensors("output", gives)}'
        written(self.root / name, {"config.pbtxt": text})


def rows(*given: float) -> Any:
    return np.array([[value, value + 1] for value in given], np.float32)


@pytest.fixture
def whole(tmp_path: Path, backend: None) -> Ensemble:
    return Ensemble(tmp_path, {"x": PAIR, "more": f"{PAIR} optional: true"})


def test_a_step_that_writes_into_what_it_is_given_changes_it_for_no_other(whole: Ensemble) -> None:
    whole.python("table", {"x": PAIR}, {"x1": PAIR, "t": PAIR}, "return {'x1': x, 't': self.table}")
    whole.python("writer", {"x1": PAIR, "t": PAIR}, {"w": PAIR}, "x1 += 1; t += x1; return {'w': t}")
    whole.network(a="x", b="x1")
    for _ in range(2):
        assert whole.answer("x", "x1", "y", "w", requests=[{"x": rows(1)}]) == [
            [[[1, 2]], [[1, 2]], [[2, 4]], [[2, 3]]],
        ]


def test_texts_are_bytes_to_the_next_step_whatever_they_were_made_of(whole: Ensemble) -> None:
    whole.python("texts", {"x": PAIR}, {"o": TEXTS, "s": TEXTS},
                 "return {'o': np.array([['ö', 7]], object), 's': np.array([[b'a', b'']])}")  # fmt: skip
    whole.python("joined", {"o": TEXTS, "s": TEXTS}, {"j": TEXTS}, "s[0, 0] = b'longer'; return {'j': o + s}")
    assert whole.answer("j", requests=[{"x": rows(1)}]) == [[[["ö".encode() + b"longer", b"7"]]]]


def test_what_is_not_in_c_order_is_for_the_next_step(whole: Ensemble) -> None:
    whole.python("turned", {"x": PAIR}, {"t": PAIR}, "return {'t': x[:, ::-1]}")
    whole.python("raw", {"t": PAIR}, {"r": PAIR}, "return {'r': np.frombuffer(t, np.float32).reshape(-1, 2)}")
    whole.network(a="t", b="x")
    assert whole.answer("r", "y", requests=[{"x": rows(1)}]) == [[[[2, 1]], [[3, 3]]]]


def test_what_is_optional_may_be_left_away_by_a_client_and_by_a_step(whole: Ensemble) -> None:
    optional = {"x": PAIR, "more": f"{PAIR} optional: true"}
    whole.python("first", optional, {"f": PAIR, "g": PAIR}, "return {'f': x} if more is None else {'f': x, 'g': more}")
    whole.python("last", {"f": PAIR, "g": f"{PAIR} optional: true"}, {"l": PAIR}, "return {'l': f if g is None else g}")
    asked = [{"x": rows(1)}, {"x": rows(1), "more": rows(5)}]
    assert whole.answer("l", requests=asked) == [[[[1, 2]]], [[[5, 6]]]]
    lacking, whole_answer = whole.answer("l", "g", requests=asked)
    assert "first gave nothing for 'g'" in str(lacking) and whole_answer == [[[5, 6]], [[5, 6]]]


def test_what_a_step_cannot_take_is_refused_as_triton_does_and_no_other_request(whole: Ensemble) -> None:
    """A step may give other rows than the request has."""
    whole.python("cut", {"x": PAIR}, {"c": PAIR}, "return {'c': np.repeat(x[:1], int(x[0, 0]), 0)}")
    whole.network(a="c", b="c")
    none, five, good = whole.answer("y", requests=[{"x": rows(0)}, {"x": rows(5)}, {"x": rows(3)}])
    assert (str(none), none.its_fault) == ("inference request batch-size must be >= 1 for 'net'", True)
    assert (str(five), five.its_fault) == ("inference request batch-size must be <= 4 for 'net'", True)
    assert good == [[[6, 8]] * 3]


def test_inputs_of_a_step_with_other_rows_are_no_batch(whole: Ensemble) -> None:
    """Of two requests together they would have as many: 2 + 1 and 1 + 2."""
    whole.python("cut", {"x": PAIR}, {"c": PAIR}, "return {'c': x[:1]}")
    whole.python("twice", {"x": PAIR}, {"d": PAIR}, "return {'d': x if x[0, 0] else np.repeat(x, 2, 0)}")
    whole.network(a="c", b="d")
    asked = [{"x": rows(1, 2)}, {"x": rows(0)}, {"x": rows(1)}]
    *bad, good = whole.answer("y", requests=asked)
    told = "input 'b' batch size does not match other inputs for 'net'"
    assert [str(each) for each in bad] == [told, told] and good == [[[2, 4]]]


def test_a_network_that_is_called_twice_is_loaded_once(whole: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    from ort_session import graph

    loaded = []
    monkeypatch.setattr(graph, "load", lambda config, load=graph.load: loaded.append(config) or load(config))
    whole.network(a="x", b="x", y="first")
    whole.network(a="first", b="x", y="second")
    assert whole.answer("second", "first", requests=[{"x": rows(1)}]) == [[[[3, 6]], [[2, 4]]]]
    assert len(loaded) == 1


@pytest.mark.parametrize(
    "body", ["return None", "return {'o': [[1, 2]]}", "return {'o': x.astype('>f4')}", "return []"]
)
def test_what_is_no_answer_fails_its_request_alone(whole: Ensemble, body: str) -> None:
    whole.python("odd", {"x": PAIR}, {"o": PAIR}, f"if x[0, 0] == 7: {body}\n        return {{'o': x}}")
    good, bad, other = whole.answer("o", requests=[{"x": rows(1)}, {"x": rows(7)}, {"x": rows(2)}])
    assert (good, other) == ([[[1, 2]]], [[[2, 3]]]) and not bad.its_fault
