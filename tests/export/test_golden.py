"""Golden requests are spread over what there is, bounded, and never missing; a neighbour's faults cost none of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contracts.samples import Group, Split
from contracts.spec import DynamicDim, ModelSpec, TensorSpec
from export.errors import StepError
from export.release import ensemble, golden

BATCH, LENGTH = DynamicDim("batch", 1, 8, 32), DynamicDim("length", 1, 8, 99)


def context(*lengths: int, batched: bool = True, count: int = 30) -> Any:
    """What the making of golden requests asks of an export: a split with a group of each length."""
    first = (BATCH,) if batched else ()
    tensors = [TensorSpec(name, "float32", (*first, LENGTH)) for name in "xy"]
    spec = ModelSpec("toy", "toy", (tensors[0],), (tensors[1],), {}, "values", batched=batched)
    groups = [np.random.default_rng(n).normal(size=(count, n)).astype(np.float32) for n in lengths]
    reference = [{"y": x} for x in groups] if batched else [{"y": row} for x in groups for row in x]
    split = Split(tuple(Group({"x": x}) for x in groups))
    return SimpleNamespace(source=SimpleNamespace(spec=spec, held_out=split), reference={"held-out": reference})


def requests_of(what: Any) -> list[golden.GoldenRequest]:
    usable = np.ones(len(what.source.held_out), bool)
    return golden._within_budget(golden._of_network(what, usable), what.source.spec.batched)


@pytest.mark.parametrize("lengths", [(5,), (5, 9), range(1, 41)])
def test_batch_sizes_are_spread_however_many_lengths_there_are(lengths: tuple[int, ...]) -> None:
    made = requests_of(context(*lengths))
    assert len(made) == 32
    assert {request.rows for request in made} == {1, 2, 3, 8, 30}
    assert len({request.inputs["x"].shape[1] for request in made}) == min(32, len(lengths))
    for request in made:
        assert np.array_equal(request.inputs["x"], request.answers["y"])


@pytest.mark.parametrize("batched", [True, False])
def test_samples_that_are_larger_than_the_bound_still_have_some(batched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_BUDGET", 100)
    assert len(requests_of(context(90, batched=batched))) == golden._FEWEST


def test_requests_stay_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_BUDGET", 2000)
    made = requests_of(context(10))
    assert sum(request.size_bytes for request in made) <= 2000
    assert len(made) > 5


ENSEMBLE = 'platform: "ensemble" ensemble_scheduling { step [ { model_name: "net" model_version: -1 } ] }'
WAITS = """
import time

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(600)
"""


def model(root: Path, name: str, config: str, code: str = "") -> Path:
    (root / name / "1").mkdir(parents=True)
    (root / name / "config.pbtxt").write_text(config)
    (root / name / "1" / "model.py").write_text(code)
    return root / name


def test_a_configuration_of_another_model_that_is_none_stops_nobody(tmp_path: Path) -> None:
    for name, config in (("net", 'platform: "onnxruntime_onnx"'), ("whole", ENSEMBLE), ("other", "{")):
        model(tmp_path, name, config)
    assert ensemble.above(tmp_path / "net") == ["whole"]


def test_a_step_that_does_not_answer_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensemble, "_PATIENCE_S", 1)
    with pytest.raises(StepError, match="step does not answer within 1 s"):
        ensemble.run_step(model(tmp_path, "step", 'backend: "python"', WAITS), {"x": np.zeros(1)}, ["y"])


def test_a_step_that_raises_is_named_with_what_it_said(tmp_path: Path) -> None:
    step = model(tmp_path, "step", 'backend: "python"', "import nowhere_to_be_found")
    with pytest.raises(StepError, match=r"step does not run here: .*No module named 'nowhere_to_be_found'"):
        ensemble.run_step(step, {"x": np.zeros(1)}, ["y"])
