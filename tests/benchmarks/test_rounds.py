"""Rounds and what is made of them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import target
from benchmarks.errors import MeasurementError
from benchmarks.rounds import doubts, in_turn, median_difference, median_interval, median_ratio, ratios


def test_an_interval_of_few_rounds_is_not_taken_for_more_than_it_is() -> None:
    assert doubts(1) == "one round: nobody knows its noise"
    assert doubts(3) == "of 3 rounds no interval is surer than 75%" and not doubts(5)
    assert median_interval([3000.0]).spread == "3,000"
    assert median_interval([2000.0, 3000.0, 4000.0]).spread == "3,000 (2,000 … 4,000)"
    assert median_interval([24.0, 25.14, 25.9]).spread == "25.1 (24.0 … 25.9)"


def test_each_round_takes_every_measurement_in_turn() -> None:
    taken: list[str] = []

    def measure(name: str) -> int:
        taken.append(name)
        return len(taken)

    found = in_turn({"a": lambda: measure("a"), "b": lambda: measure("b")}, rounds=3)
    assert taken == ["a", "b"] * 3
    assert found == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_figures_are_compared_within_the_round() -> None:
    """The second round saw a machine of half the speed; the medians themselves would say 15 and 1.5."""
    assert median_difference([10, 40, 12], [11, 41, 27]) == -1
    assert median_ratio([10, 20, 30], [10, 40, 30]) == 1


def test_the_interval_holds_the_ratio_that_was_planted_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(1)
    machine = random.uniform(1, 2, 40)  # from round to round it is up to twice as fast
    ones, others = 1.05 * machine * random.normal(1, 0.02, 40), machine * random.normal(1, 0.02, 40)
    found = median_interval(ratios(ones.tolist(), others.tolist()))
    assert found.low < 1.05 < found.high
    assert found.low < found.median < found.high
    assert found.width < 0.03
    assert median_interval(ratios(ones.tolist(), others.tolist())) == found


def test_the_interval_holds_the_ratio_in_nineteen_of_twenty_runs() -> None:
    random = np.random.default_rng(2)
    runs = [median_interval(random.normal(1, 0.05, 15).tolist()) for _ in range(200)]
    held = sum(run.low <= 1 <= run.high for run in runs) / len(runs)
    assert 0.9 < held <= 1


def test_noise_makes_it_wide() -> None:
    random = np.random.default_rng(3)
    quiet, loud = (median_interval(random.normal(1, sigma, 15).tolist()) for sigma in (0.01, 0.2))
    assert quiet.width < 0.05 < loud.width


def test_rounds_that_do_not_match_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1, 2], [1])


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no images"):
        target.images(tmp_path)
