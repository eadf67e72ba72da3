"""A latency has an interval, and a percentile that says nothing of the graph is told from one that does."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest

from contracts import manifest
from contracts.manifest import Timing
from export.proof import timing

STEADY = [[1.0 + 0.01 * turn] * 5 for turn in range(20)]


def test_the_interval_of_a_median_holds_it_in_95_of_100_draws() -> None:
    random = np.random.default_rng(0)
    held = []
    for _ in range(500):
        low, high = timing._interval([[ms] for ms in random.exponential(size=20)])
        held.append(low <= np.log(2) <= high)
    assert np.mean(held) >= 0.94


def test_the_interval_of_few_turns_is_all_of_them() -> None:
    assert timing._interval([[3.0], [1.0], [2.0]]) == (1.0, 3.0)
    assert timing._interval([[1.5]]) == (1.5, 1.5)


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        (STEADY, ""),
        ([[1.0, 1.0, 5.0, 1.0, 1.0]] * 20, ""),  # its own tail
        (
            [*STEADY[:-1], [1.0, 30.0, 40.0, 1.0, 50.0]],
            "3 of 100 calls took over 10 × the median, in 1 of 20 turns",
        ),
        ([[1.0, 1.0, 1.0, 1.0, 20.0]] * 20, "in 20 of 20 turns: the machine was busy throughout"),
    ],
)
def test_a_percentile_of_ten_times_the_median_is_explained(turns: Sequence[Sequence[float]], told: str) -> None:
    samples: timing.Samples = {"fp32": {16: turns}}
    found = timing._timing(samples["fp32"])
    assert told in found.disturbed and bool(told) == bool(found.disturbed) == timing.is_disturbed(samples)


def test_it_is_kept_in_a_manifest() -> None:
    found = replace(timing._timing({1: STEADY, 16: STEADY}), disturbed="batch 1: busy")
    raw = json.loads(json.dumps(asdict(found)))
    assert manifest.decode(Timing, raw) == found
    old = {key: value for key, value in raw.items() if key not in ("interval_ms", "disturbed")}
    assert manifest.decode(Timing, old).interval_ms == {}
