"""Intervals of figures: held against simulation, and the figures of probabilities against their definitions."""

import numpy as np
import pytest

from contracts.judging import interval, metric, paired
from contracts.judging.metric import Predicted
from contracts.samples import Group, Split


def drawn(chance: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    positive = chance.random(count) < 0.3
    return chance.standard_normal(count) + positive, positive


def test_delongs_interval_of_an_area_holds_it_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    true = 0.7602499  # of two normal distributions one apart: Φ(1/√2)
    held = 0
    for _ in range(400):
        low, high = interval.of_auc(*drawn(chance, 300))
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.98


def test_two_areas_on_the_same_samples_are_told_apart_though_their_own_intervals_overlap() -> None:
    chance = np.random.default_rng(0)
    better, positive = drawn(chance, 2000)
    worse = better + 0.5 * chance.standard_normal(2000)
    gain, (low, high) = interval.of_auc_difference(worse, better, positive)
    assert 0 < low < gain < high
    assert interval.of_auc(better, positive)[0] < interval.of_auc(worse, positive)[1]
    assert gain == pytest.approx(paired.auc(better, positive) - paired.auc(worse, positive))


def test_a_share_of_all_or_nothing_still_has_an_interval() -> None:
    low, high = interval.of_share(20, 20)
    assert low == pytest.approx(0.8389, abs=1e-4)  # Wilson's
    assert high == pytest.approx(1)


def test_probabilities_that_are_shares_are_calibrated_and_others_are_off_by_what_they_are_off() -> None:
    chance = np.random.default_rng(0)
    share = chance.random(200_000)
    positive = chance.random(200_000) < share
    assert paired.calibration_error(share, positive) < 0.005
    assert paired.calibration_error(np.minimum(share + 0.1, 1), positive) == pytest.approx(0.095, abs=0.005)
    assert paired.calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_the_metrics_of_probabilities_judge_one_value_and_two_classes_alike() -> None:
    one = np.array([[0.2], [0.9]], np.float32)
    targets = [np.array([0, 1])]
    for values in (one, np.concatenate([1 - one, one], axis=1)):
        predicted = Predicted([], [values], None)
        brier = metric.BRIER.scores(predicted, targets)
        assert metric.BRIER.value(brier, targets) == pytest.approx((0.04 + 0.01) / 2)
        off = metric.CALIBRATION_ERROR.scores(predicted, targets)
        assert metric.CALIBRATION_ERROR.value(off, targets) == pytest.approx(0.15)


def test_segments_are_the_groups_that_have_a_name() -> None:
    parts = [Group({"x": np.zeros((size, 1))}, name=name) for name, size in (("October", 3), ("", 2), ("December", 4))]
    split = Split(tuple(parts))
    assert split.segments == {"October": slice(0, 3), "December": slice(5, 9)}
    assert [group.name for group in split.halves()[0].groups] == ["October", "", "December"]
