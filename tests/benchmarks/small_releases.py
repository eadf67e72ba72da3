"""Tiny releases of every kind of model, with golden requests, in one repository; and one that mixes answers up.

words     an ensemble: a text -> probabilities and the likeliest class
priced    two inputs -> a number
tokens    token ids of any length -> a vector and the largest id
boxes     no batch: points -> those to the right, as many as there are
swapping  the answers of requests that came together change places
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contracts import golden
from contracts.golden import GoldenRequest
from tests.deploy import tiny_models

MODELS = ("words", "priced", "tokens", "boxes")
_BATCHED = "max_batch_size: 8 dynamic_batching { }"
_ROWS = (1, 1, 2, 3, 1, 8)
_GRAPHS = {
    "words_network": (
        "(float[b,4] counts) => (float[b,3] probabilities, int64[b,1] likeliest)"
        "<float[4,3] w = {1,0,2,0,1,0,3,1,0,0,2,1}> { s = MatMul(counts, w) probabilities = Softmax(s)"
        " likeliest = ArgMax<axis=1>(s) }",
        _BATCHED,
    ),
    "priced": (
        "(float[b,3] room, float[b,2] place) => (float[b,1] price)"
        "<float[3,1] u = {0.5,-1.25,2}, float[2,1] v = {3,0.125}>"
        "{ a = MatMul(room, u) c = MatMul(place, v) price = Add(a, c) }",
        _BATCHED,
    ),
    "tokens": (
        "(int64[b,n] ids) => (float[b,2] vector, int64[b,1] largest)"
        "<float[10,2] table = {0,1,1,0,2,2,3,1,0.5,0.25,1,1,4,2,0,3,1,2,2,1}, int64[1] along = {1}>"
        "{ found = Gather(table, ids) vector = ReduceMean<keepdims=0>(found, along)"
        " largest = ReduceMax(ids, along) }",
        _BATCHED,
    ),
    "boxes": (
        "(float[n,2] points) => (float[k,2] right)"
        "<int64 first = {0}, float zero = {0}>"
        "{ x = Gather<axis=1>(points, first) far = Greater(x, zero) right = Compress<axis=0>(points, far) }",
        "max_batch_size: 0",
    ),
}
_PYTHON = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = [self.answer(request) for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("{output}", answer)]) for answer in self.ordered(answers)]

    def ordered(self, answers):
        {ordered}

    def answer(self, request):
        values = pb_utils.get_input_tensor_by_name(request, "{input}").as_numpy()
        {answer}
"""
_COUNTS = _PYTHON.format(
    input="text",
    output="counts",
    ordered="return answers",
    answer="return np.array([[t.count(c) for c in (b'a', b'e', b'i', b'o')] for [t] in values], np.float32)",
)
# It takes a while, so that others come together meanwhile.
_SWAP = _PYTHON.format(
    input="x",
    output="y",
    ordered="time.sleep(0.002); return answers[1:] + answers[:1]",
    answer="return values * 2",
)
_PYTHON_CONFIG = """
backend: "python"
max_batch_size: 8
input [ {{ name: "{input}" data_type: {taken} dims: [ 1 ] }} ]
output [ {{ name: "{output}" data_type: {given} dims: [ {size} ] }} ]
dynamic_batching {{ }}
"""
_ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [
  { name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ] },
  { name: "likeliest" data_type: TYPE_INT64 dims: [ 1 ] }
]
ensemble_scheduling { step [
  { model_name: "words_counts" model_version: -1
    input_map { key: "text" value: "text" } output_map { key: "counts" value: "counts" } },
  { model_name: "words_network" model_version: -1
    input_map { key: "counts" value: "counts" }
    output_map { key: "probabilities" value: "probabilities" }
    output_map { key: "likeliest" value: "likeliest" } } ] }
"""


def write(repository: Path) -> None:
    """Write all of them."""
    random = np.random.default_rng(0)
    graphs = {name: tiny_models.add(repository, name, *described) for name, described in _GRAPHS.items()}
    _python(repository, "words_counts", _COUNTS, ("text", "TYPE_STRING"), ("counts", "TYPE_FP32", 4))
    swapping = _python(repository, "swapping", _SWAP, ("x", "TYPE_INT64"), ("y", "TYPE_INT64", 1))
    (repository / "words" / "1").mkdir(parents=True)
    (repository / "words" / "config.pbtxt").write_text(_ENSEMBLE)

    def floats(*shape: int) -> NDArray[np.float32]:
        return random.normal(size=shape).astype(np.float32)

    golden.write(_words(graphs["words_network"]), graphs["words_network"])
    rooms = [{"room": floats(n, 3), "place": floats(n, 2)} for n in _ROWS]
    golden.write(_requests("priced", graphs["priced"], rooms), graphs["priced"])
    ids = [{"ids": random.integers(0, 10, (n, length))} for n, length in zip(_ROWS, (3, 7, 3, 5, 1, 3), strict=True)]
    golden.write(_requests("tokens", graphs["tokens"], ids), graphs["tokens"])
    points = [{"points": floats(n, 2)} for n in (1, 4, 9, 2, 6)]
    golden.write(_requests("boxes", graphs["boxes"], points), graphs["boxes"])
    numbers = [np.array([[n]], np.int64) for n in range(12)]
    golden.write([GoldenRequest("swapping", {"x": n}, {"y": 2 * n}) for n in numbers], swapping)


def _words(version: Path) -> list[GoldenRequest]:
    """Golden requests for the ensemble, which lie with its network."""
    texts = ["sea", "aria", "oil and coal", "tree", "a", "io"]
    found = []
    for start, rows in enumerate((1, 2, 1, 3, 1)):
        chosen = [texts[(start + i) % len(texts)] for i in range(rows)]
        counts = np.array([[text.count(letter) for letter in "aeio"] for text in chosen], np.float32)
        [known] = _requests("words", version, [{"counts": counts}])
        text = np.array([[text.encode()] for text in chosen], np.object_)
        found.append(GoldenRequest("words", {"text": text}, known.answers, known.tolerance))
    return found


def _requests(model: str, version: Path, inputs: Sequence[Mapping[str, NDArray[Any]]]) -> list[GoldenRequest]:
    session = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = [dict(zip(names, session.run(names, dict(given)), strict=True)) for given in inputs]
    return [
        GoldenRequest(model, given, answer, {name: 1e-5 for name, values in answer.items() if values.dtype.kind == "f"})
        for given, answer in zip(inputs, answers, strict=True)
    ]


def _python(repository: Path, name: str, source: str, taken: tuple[str, str], given: tuple[str, str, int]) -> Path:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(source)
    config = _PYTHON_CONFIG.format(input=taken[0], taken=taken[1], output=given[0], given=given[1], size=given[2])
    (version.parent / "config.pbtxt").write_text(config)
    return version
