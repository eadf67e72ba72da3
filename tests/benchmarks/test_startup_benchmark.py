"""A start that takes longer than it may is found, and so is a measurement that tells nothing."""

import pytest

from benchmarks.releases.startup import Comparison, compare
from benchmarks.rounds import Interval

ROUNDS = 20


@pytest.mark.parametrize(
    ("unit", "this", "other"), [("s", 5.5, 5.0), ("p50 ms", 1.1, 1.0), ("requests/s", 100.0, 110.0)]
)
def test_what_is_compared_is_the_time_that_each_takes(unit: str, this: float, other: float) -> None:
    [found] = compare({"this": {("up", unit): [this] * ROUNDS}, "other": {("up", unit): [other] * ROUNDS}})
    assert found.time is not None and found.time.median == pytest.approx(1.1)
    assert (found.this, found.other) == (this, other)


@pytest.mark.parametrize(
    ("unit", "low", "high", "told"),
    [
        ("s", 1.01, 1.1, None),
        ("s", 0.5, 0.55, None),
        ("s", 1.02, 1.11, "may be more than 1.10"),
        ("requests/s", 1.02, 1.11, "may be more than 1.10"),
        ("p50 ms", 0.9, 1.01, "wider than 0.10: more --rounds"),
        ("p99 ms", 0.9, 2.0, None),
    ],
)
def test_a_finding_is_an_upper_end_or_an_interval_that_tells_nothing(
    unit: str, low: float, high: float, told: str | None
) -> None:
    finding = Comparison("up", unit, 1, 1, Interval((low + high) / 2, low, high)).finding
    assert finding is None if told is None else told in (finding or "")


def test_alone_there_is_nothing_to_find() -> None:
    [found] = compare({"this": {("up", "s"): [1.0, 2.0, 3.0]}})
    assert (found.this, found.other, found.time, found.finding) == (2.0, None, None, None)
