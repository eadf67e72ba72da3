"""Rounds: what is compared is measured in turn, over and over, and compared within the round.

A machine that is shared, or a processor that heats up, is a tenth faster in one minute than in the next. Figures of
the same round saw the same machine; the median over the rounds leaves out the odd ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np

from cli.progress import track

_K = TypeVar("_K")
_F = TypeVar("_F")
_RESAMPLES = 10_000


def in_turn(measurements: Mapping[_K, Callable[[], _F]], rounds: int) -> dict[_K, list[_F]]:
    """Take every measurement once a round, in the order given, with a bar on stderr; return what each gave."""
    found: dict[_K, list[_F]] = {name: [] for name in measurements}
    for _ in track(range(rounds), "measuring", "rounds"):
        for name, measure in measurements.items():
            found[name].append(measure())
    return found


def median_difference(ones: Sequence[float], others: Sequence[float]) -> float:
    """Subtract round by round, and take the median."""
    return median(one - other for one, other in zip(ones, others, strict=True))


def median_ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """Divide round by round, and take the median."""
    return median(ratios(ones, others))


@dataclass(frozen=True)
class Interval:
    """A median and its 95 % interval."""

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} … {self.high:.3f})"

    @property
    def spread(self) -> str:
        """As in 3,000 (2,700 … 3,300) or 25.1 (24.0 … 25.9); of one round, which has no interval, the median alone."""
        places = 0 if self.median >= 100 else 1
        median, low, high = (f"{each:,.{places}f}" for each in (self.median, self.low, self.high))
        return f"{median} ({low} … {high})" if self.width else median


def doubts(rounds: int) -> str:
    """Say what intervals of so few rounds are worth; nothing, if they are what they say.

    Of n rounds all are on one side of the true median by a chance of 2^(1-n): so sure their whole range is at most.
    """
    if rounds == 1:
        return "one round: nobody knows its noise"
    sure = 1 - 2.0 ** (1 - rounds)
    return f"of {rounds} rounds no interval is surer than {sure:.0%}" if sure < 0.9 else ""


def ratios(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [one / other for one, other in zip(ones, others, strict=True)]


def median_interval(figures: Sequence[float]) -> Interval:
    """Take the median over the rounds, with its percentile bootstrap interval, which resamples the rounds.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. The same figures give the same interval.
    """
    by_round = np.array(figures)
    resampled = np.random.default_rng(0).choice(by_round, (_RESAMPLES, len(by_round)))
    low, high = np.percentile(np.median(resampled, axis=1), (2.5, 97.5)).tolist()
    return Interval(float(np.median(by_round)), low, high)
