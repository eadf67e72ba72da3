"""The configurations that a brought graph is given, in a real Triton: what is too much is refused, nothing stalls."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx.parser
import pytest

from contracts.samples import Split
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from deploy.triton import environment
from export.release import configs
from tests.deploy.tiny_models import Request, Server, serving

BATCH = DynamicDim("batch", 1, 4, 4)
# A sum over many products of matrices, some hundredths of a second for a sample; it fails on a rate of 0.
_SIZE, _PRODUCTS = 256, 30
_SLOW = (
    "full = Expand(sound, size) "
    + " ".join(f"m{i + 1} = MatMul({f'm{i}' if i else 'full'}, full)" for i in range(_PRODUCTS))
    + f" scaled = Cast <to = 1> (rate) some = ReduceMean <keepdims = 0> (m{_PRODUCTS}, axes)"
)
GRAPHS = {
    "batched": f"""(float[B, 1, 1] sound, int64[B] rate) => (float[B] level)
      <int64[2] axes = {{1, 2}}, int64[3] size = {{1, {_SIZE}, {_SIZE}}}> {{ {_SLOW} level = Mul(some, scaled) }}""",
    "alone": f"""(float[1, 1, 1] sound, int64 rate, float[2, 1, 3] state) => (float[1] level, float[2, 1, 3] after)
      <int64[2] axes = {{1, 2}}, int64[3] size = {{1, {_SIZE}, {_SIZE}}}> {{ {_SLOW}
        level = Mul(some, scaled) after = Add(state, level) }}""",
}
STATE = TensorSpec("state", "float32", (2, 1, 3))
SPECS = {
    "batched": ModelSpec(
        family="batched",
        model="batched",
        inputs=(TensorSpec("sound", "float32", (BATCH, 1, 1)), TensorSpec("rate", "int64", (BATCH,))),
        outputs=(TensorSpec("level", "float32", (BATCH,)),),
        limits={"fp32": Limits({"level": 1e-3})},
        task="values",
    ),
    "alone": ModelSpec(
        family="alone",
        model="alone",
        inputs=(TensorSpec("sound", "float32", (1, 1, 1)), TensorSpec("rate", "int64", ()), STATE),
        outputs=(TensorSpec("level", "float32", (1,)), TensorSpec("after", "float32", (2, 1, 3))),
        limits={"fp32": Limits({"level": 1e-3, "after": 1e-3})},
        task="values",
        batched=False,
    ),
}
REQUESTS: dict[str, Request] = {
    "batched": {
        "sound": ("FP32", np.full((1, 1, 1), 1 / _SIZE, np.float32)),
        "rate": ("INT64", np.array([[16]])),
    },
    "alone": {
        "sound": ("FP32", np.full((1, 1, 1), 1 / _SIZE, np.float32)),
        "rate": ("INT64", np.array([16])),
        "state": ("FP32", np.ones((2, 1, 3), np.float32)),
    },
}
RIGHT = 16 / _SIZE  # every element of every product is 1 / _SIZE
FLOOD = 600


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("brought") / "models"
    for name, spec in SPECS.items():
        (root / name / "1").mkdir(parents=True)
        graph = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {name} {GRAPHS[name]}')
        onnx.save(graph, root / name / "1" / "model.onnx")
        configs.write_configs(root / name, spec, _sample(spec))
    with serving(root, environment.pip_installed(print), "--model-config-name=cpu") as server:
        yield server


def _sample(spec: ModelSpec) -> Split:
    given = {name: values for name, (_, values) in REQUESTS[spec.model].items()}
    return Split.of(
        {tensor.name: given[tensor.name].reshape(1, *tensor.shape_at("min")[spec.batched :]) for tensor in spec.inputs}
    )


@pytest.mark.parametrize("model", SPECS)
def test_it_is_warmed_up_and_answers(server: Server, model: str) -> None:
    [answer] = server.ask(model, REQUESTS[model])
    assert np.allclose(answer.as_numpy("level"), RIGHT)
    if model == "alone":
        assert np.allclose(answer.as_numpy("after"), 1 + RIGHT)


@pytest.mark.parametrize("model", SPECS)
def test_what_is_too_much_is_refused_at_once_and_the_rest_is_answered_soon(server: Server, model: str) -> None:
    """Without a queue policy all of them would be accepted, and the last of them answered after many seconds."""
    begun = time.monotonic()
    answers = server.ask(model, *[REQUESTS[model]] * FLOOD)
    took_s = time.monotonic() - begun
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert all(np.allclose(answer.as_numpy("level"), RIGHT) for answer in answers if answer not in refused)
    assert {_reason(error) for error in refused} <= {"Exceeds maximum queue size", "Request timeout expired"}
    assert FLOOD // 4 < len(refused) < FLOOD
    assert took_s < 10
    [answer] = server.ask(model, REQUESTS[model])
    assert np.allclose(answer.as_numpy("level"), RIGHT), "it is itself again"


def _reason(error: Any) -> str:
    return str(error.message()).rpartition("] ")[2]
