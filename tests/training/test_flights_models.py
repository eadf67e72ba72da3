"""Each model keeps one contract: what its library answers is what its checkpoint and its graph answer, on every row."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from contracts import layout
from contracts.samples import Batch, Group, Split
from export.proof import contract
from training import checkpoints, families
from training.errors import CheckpointError
from training.estimators import comparing
from training.families.flights.estimators import ESTIMATORS
from training.families.flights.model import Module
from training.families.flights.models import trees
from training.families.flights.spec import SPEC
from training.lineage import Lineage

SMALL: Mapping[str, dict[str, Any]] = {
    "logistic": {},
    "lightgbm": {"trees": 12, "leaves": 7, "fewest": 20, "rate": 0.3},
    "xgboost": {"trees": 12, "depth": 3, "fewest": 1.0, "rate": 0.3},
}
CAME = Lineage("flights", "data", "commit", False, None)


def split(seed: int, count: int = 3000) -> Split:
    """Flights that are late in the evening, in the wind, and with one carrier; a tenth of the numbers is missing."""
    chance = np.random.default_rng(seed)
    sizes = [len(names) for names in SPEC.vocabularies.values()]
    categories = np.stack([chance.integers(0, size, count) for size in sizes], axis=1).astype(np.int32)
    numbers = chance.uniform(0, 100, (count, len(SPEC.inputs[1].columns))).astype(np.float32)
    signal = numbers[:, 0] / 40 + numbers[:, 10] / 60 + 2 * (categories[:, 0] == 3) - 3.5
    numbers[chance.random(numbers.shape) < 0.1] = np.nan
    late = (chance.random(count) < 1 / (1 + np.exp(-signal))).astype(np.int64)
    return Split((Group({"categories": categories, "numbers": numbers}, late, name="October"),))


TRAIN, TEST = split(0), split(1)
[HELD_OUT] = TEST.groups


@pytest.fixture(scope="module", params=SMALL)
def fitted(request: pytest.FixtureRequest) -> Any:
    model = ESTIMATORS[request.param](**SMALL[request.param])
    model.fit(TRAIN, TEST, seed=0)
    return model


def graph_of(model: Any, path: Path) -> Callable[[Batch], Batch]:
    model.write_graph(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: {"probability": session.run(["probability"], dict(batch))[0]}


def test_the_graph_answers_as_the_library_on_every_row(fitted: Any, tmp_path: Path) -> None:
    run = graph_of(fitted, tmp_path / "model.onnx")
    expected = fitted.predict(HELD_OUT.inputs)["probability"]
    assert np.ptp(expected) > 0.3, "it has learned something"
    np.testing.assert_allclose(run(HELD_OUT.inputs)["probability"], expected, rtol=0, atol=1e-6)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    assert contract.graph_gate(model, SPEC).passed


def test_what_there_is_not_gets_an_answer_and_changes_no_neighbours(fitted: Any, tmp_path: Path) -> None:
    run = graph_of(fitted, tmp_path / "model.onnx")
    rows = {name: values[:4].copy() for name, values in HELD_OUT.inputs.items()}
    before = run(rows)["probability"]
    rows["categories"][1] = [10_000, -1, 10_000]
    rows["numbers"][2] = np.nan
    rows["numbers"][2, 0] = np.inf
    after = run(rows)["probability"]
    assert np.isfinite(after).all() and (after >= 0).all() and (after <= 1).all()
    np.testing.assert_array_equal(after[[0, 3]], before[[0, 3]])


def test_a_checkpoint_gives_the_model_back_without_executing_anything(fitted: Any, tmp_path: Path) -> None:
    [name] = [name for name, kind in ESTIMATORS.items() if isinstance(fitted, kind)]
    checkpoints.write(tmp_path / "best.ckpt", name, SMALL[name], fitted.state(), CAME)
    read = checkpoints.read(tmp_path / "best.ckpt", families.load("flights"))
    assert (read.estimator, read.lineage) == (name, CAME)
    np.testing.assert_array_equal(
        read.module.predict(HELD_OUT.inputs)["probability"], fitted.predict(HELD_OUT.inputs)["probability"]
    )


@pytest.mark.parametrize(
    ("name", "state", "told"),
    [
        ("forest", {}, "there is no model 'forest'; it has logistic, lightgbm, xgboost"),
        ("lightgbm", {"model": "no trees"}, "does not fit the flights model of today"),
        ("logistic", {}, "does not fit the flights model of today"),
    ],
)
def test_a_checkpoint_that_is_none_of_the_models_is_refused(tmp_path: Path, name: str, state: Any, told: str) -> None:
    checkpoints.write(tmp_path / "best.ckpt", name, {}, state, CAME)
    with pytest.raises(CheckpointError) as refused:
        checkpoints.read(tmp_path / "best.ckpt", families.load("flights"))
    assert told in str(refused.value)


def test_a_threshold_between_two_neighbouring_float32_is_rounded_down() -> None:
    """To the nearest it may become the upper one, which then takes the branch of the lower."""
    import lightgbm
    from onnxmltools import convert_lightgbm

    low = np.float32(1.0) + np.arange(8, dtype=np.float32) * np.float32(2**-20) + np.float32(2**-23)
    pairs = np.stack([low, np.nextafter(low, np.float32(2))], axis=1)  # whose middles round to even, half of them up
    rows = np.repeat(pairs.reshape(-1, 1), 40, axis=0)
    late = np.repeat(np.tile([0, 1], 8), 40)
    model = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "min_data_in_leaf": 5, "num_leaves": 16, "min_data_in_bin": 1,
         "num_threads": 1, "deterministic": True},
        lightgbm.Dataset(rows.astype(np.float64), late), 5,
    )  # fmt: skip
    rounded = lightgbm.Booster(model_str=trees.with_thresholds_rounded_down(model.model_to_string()))

    def apart(source: Any) -> float:
        graph = trees._as_graph(convert_lightgbm, source, 1, zipmap=False)
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        return float(np.abs(session.run(None, {"features": rows})[1][:, 1] - model.predict(rows)).max())

    assert apart(model) > 0.01
    assert apart(rounded) < 1e-6


def test_xgboost_is_given_categories_as_numbers() -> None:
    model = ESTIMATORS["xgboost"](**SMALL["xgboost"])
    model.fit(TRAIN, TEST, seed=0)
    assert "c" not in (model.model.feature_types or [])
    assert '"categories":[]' in model.state()["model"].replace(" ", "")


def test_the_perceptron_answers_what_there_is_not_and_forgets_no_scale() -> None:
    module = Module(widths=[8], embedding=2)
    module.network.mean.fill_(50.0)
    served = module.served().eval()
    rows = {name: torch.from_numpy(values[:3].copy()) for name, values in HELD_OUT.inputs.items()}
    before = served(**rows)
    rows["categories"][1] = torch.tensor([10_000, -1, 10_000])
    rows["numbers"][1] = torch.inf
    after = served(**rows)
    assert torch.isfinite(after).all()
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert {"network.mean", "network.deviation"} <= module.state_dict().keys()


def test_models_are_judged_beside_the_first_on_the_same_rows(tmp_path: Path) -> None:
    held = {"categories": HELD_OUT.inputs["categories"], "numbers": HELD_OUT.inputs["numbers"]}

    class Blind:
        def predict(self, inputs: Batch) -> Batch:
            return {"probability": np.linspace(0, 1, len(inputs["numbers"]), dtype=np.float32)[:, None]}

    better = ESTIMATORS["logistic"]()
    better.fit(TRAIN, TEST, seed=0)
    family = families.load("flights")
    found = {
        name: checkpoints.Checkpoint(Path(name), "", model, CAME, estimator=name)
        for name, model in (("blind", Blind()), ("logistic", better))
    }

    class Data:
        def split(self, name: str) -> Split:
            assert name == "test"
            return Split((Group(held, HELD_OUT.targets, name="October"),))

    family = families.Family(**{**vars(family), "data": Data})
    standings = comparing.judge(family, found)
    assert [(s.model, s.segment) for s in standings] == [
        *(("blind", ""), ("blind", "October"), ("logistic", ""), ("logistic", "October")),
    ]
    assert standings[0].gain is None
    gained = standings[2]
    assert gained.gain is not None and gained.gain_interval is not None
    assert gained.gain == pytest.approx(gained.value - standings[0].value)
    assert 0 < gained.gain_interval[0] < gained.gain < gained.gain_interval[1]
    comparing.draw(standings, SPEC.metrics[0], tmp_path / "models.png")
    assert (tmp_path / "models.png").stat().st_size > 1000


def test_every_model_has_a_preset_that_it_takes() -> None:
    from training.estimators import fitting

    presets = {path.stem: path for path in (layout.model_params() / "flights").glob("*.yaml")}
    assert presets.keys() == {*ESTIMATORS, "mlp"}
    family = families.load("flights")
    for name in ESTIMATORS:
        assert fitting.named_in(presets[name]) == name
        given = fitting._parser(family, name).parse_args([f"--config={presets[name]}"])
        ESTIMATORS[name](**given.model)
    assert fitting.named_in(presets["mlp"]) is None
