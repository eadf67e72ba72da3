"""What an answer costs is measured alike for networks and trees, and more of them cost more."""

import numpy as np
import pytest

from contracts.samples import Group, Split
from training.families.flights.estimators import ESTIMATORS
from training.families.flights.model import Module
from training.families.flights.spec import SPEC
from training.sweep.fits import latency


def split() -> Split:
    chance = np.random.default_rng(0)
    sizes = [len(names) for names in SPEC.vocabularies.values()]
    categories = np.stack([chance.integers(0, size, 600) for size in sizes], axis=1).astype(np.int32)
    numbers = chance.uniform(0, 100, (600, len(SPEC.inputs[1].columns))).astype(np.float32)
    late = (chance.random(600) < numbers[:, 0] / 100).astype(np.int64)
    return Split((Group({"categories": categories, "numbers": numbers}, late),))


@pytest.mark.slow  # so many that no busy neighbour outweighs them: 9 and 46 µs
def test_more_trees_cost_more() -> None:
    data, costs = split(), []
    for trees in (5, 1000):
        model = ESTIMATORS["lightgbm"](trees=trees, leaves=31, fewest=2, rate=0.01)
        model.fit(data, data, seed=0)
        costs.append(latency.of_estimator(model, data, SPEC))
    assert 0 < costs[0] < costs[1] < 200


def test_an_answer_costs_something_and_less_than_a_second() -> None:
    model = ESTIMATORS["lightgbm"](trees=5, leaves=31, fewest=2, rate=0.01)
    model.fit(split(), split(), seed=0)
    assert 0 < latency.of_estimator(model, split(), SPEC) < 1000


@pytest.mark.slow
def test_a_wider_network_costs_more() -> None:
    small, large = (latency.of_network(Module(widths).served(), split(), SPEC) for widths in ((8,), (2048, 2048)))
    assert 0 < small < large < 200
