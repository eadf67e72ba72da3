"""TensorRT plans in the pip-installed server: which one a GPU gets, why one is refused, and, on a GPU, its answers."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import layout
from contracts.engines.plans import SERVER_TENSORRT, version_of
from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from deploy.triton import environment
from export.proof import engine
from export.proof.engine import BuildOptions
from tests.deploy.tiny_models import BATCHED, ROWS, add, serving


@pytest.fixture
def backends_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the server; without a Triton only what does not deal with requests can be imported."""
    monkeypatch.syspath_prepend(layout.ROOT / "deploy" / "backends" / "python")


def model_config(directory: Path, **more: Any) -> Any:
    """A configuration as the backends read it."""
    from python_based.config import ModelConfig

    config = {"max_batch_size": ROWS, "input": [], "output": [], **more}
    args = {"model_config": json.dumps(config), "model_repository": str(directory), "model_version": "1"}
    return ModelConfig.of({**args, "model_instance_kind": "GPU", "model_instance_device_id": "0"})


def plan_of(version: str) -> bytes:
    """As much of a plan as says which TensorRT built it."""
    return b"ftrt" + bytes(20) + bytes(map(int, version.split("."))) + b"layers"


def test_a_gpu_gets_the_plan_of_its_architecture(tmp_path: Path, backends_importable: None) -> None:
    from python_based import plans

    (tmp_path / "1").mkdir()
    config = model_config(tmp_path, cc_model_filenames={"9.0": "model.sm90.plan"})
    for file in ("model.plan", "model.sm90.plan"):
        (tmp_path / "1" / file).write_bytes(plan_of(SERVER_TENSORRT) + file.encode())
    for capability, file in (("9.0", "model.sm90.plan"), ("8.9", "model.plan")):
        name, plan = plans.read(config, capability, SERVER_TENSORRT)
        assert name == file and plan.endswith(file.encode())
    assert plans.version(plan) == version_of(plan) == SERVER_TENSORRT, "both read the same header"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "version 1 has no model.sm90.plan, the plan for a GPU of compute capability 9.0; its plans: other.plan"),
        (b"PK\x03\x04", "model.sm90.plan is no TensorRT plan"),
        (plan_of("11.4.0.106"), "model.sm90.plan was built by TensorRT 11.4.0.106, this server has 11.1.0.106"),
    ],
)
def test_a_plan_that_cannot_be_loaded_is_refused_with_the_reason(
    tmp_path: Path, backends_importable: None, content: bytes | None, reason: str
) -> None:
    from python_based import errors, plans

    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "other.plan").touch()
    if content is not None:
        (tmp_path / "1" / "model.sm90.plan").write_bytes(content)
    config = model_config(tmp_path, cc_model_filenames={"9.0": "model.sm90.plan"})
    with pytest.raises(errors.ModelError, match=re.escape(reason)):
        plans.read(config, "9.0", "11.1.0.106")


@pytest.mark.heavy
def test_a_plan_is_refused_where_there_is_no_gpu(tmp_path: Path) -> None:
    """By Triton itself where the configuration asks for a GPU, by the backend where it asks for a CPU."""
    for kind in ("CPU", "GPU"):
        on = f'platform: "tensorrt_plan" instance_group [ {{ kind: KIND_{kind} count: 1 }} ]'
        add(tmp_path / "models", f"on_{kind}", "(float[B,N] x) => (float[B,N] y) { y = Relu(x) }", BATCHED, on=on)
    with serving(tmp_path / "models", environment.pip_installed(print)) as server:
        assert "kind is KIND_CPU; TensorRT needs a GPU, KIND_GPU" in server.why_not("on_CPU")
        if not Path("/dev/nvidiactl").exists():
            assert "has kind KIND_GPU but no GPUs are available" in server.why_not("on_GPU")


@pytest.mark.gpu
@pytest.mark.heavy
def test_a_plan_answers_like_its_graph_and_fails_a_bad_request_alone(tmp_path: Path) -> None:
    rows, columns = DynamicDim("rows", 1, 4, ROWS), DynamicDim("columns", 1, 3, 4)
    x, y = (TensorSpec(name, "float32", (rows, columns)) for name in "xy")
    spec = ModelSpec("relu", "relu", (x,), (y,), {})
    on = 'platform: "tensorrt_plan" instance_group [ { kind: KIND_GPU count: 2 } ]'
    version = add(tmp_path / "models", "relu", "(float[B,N] x) => (float[B,N] y) { y = Relu(x) }", BATCHED, on=on)
    (version / "model.plan").write_bytes(engine.build(version / "model.onnx", spec, BuildOptions("tensorrt")).plan)
    values = np.arange(-12, 12, dtype=np.float32).reshape(ROWS, 1, 3)
    with serving(tmp_path / "models", environment.pip_installed(print, gpu=True)) as server:
        for _ in range(2):
            answers = server.ask("relu", *({"x": ("FP32", each)} for each in values))
            assert np.array_equal([answer.as_numpy("y") for answer in answers], values.clip(0))
        [error] = server.ask("relu", {"x": ("FP32", np.ones((ROWS, 5), np.float32))})
        assert error.status() == "StatusCode.INVALID_ARGUMENT"
        assert error.message() == f"input 'x' is [{ROWS}, 5]; the engine takes [1, 1] to [{ROWS}, 4]"
