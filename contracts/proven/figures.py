"""Metrics of the reference, and how people read them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Judge:
    """The metric that a release was judged by."""

    name: str  # "accuracy"
    better: Literal["higher", "lower"] = "higher"
    share: bool = True  # of one: shown in percent, its loss in percentage points

    def shown(self, value: float | None) -> str:
        """Return a figure of it as people read it."""
        return "—" if value is None else f"{value:.4f}" if self.share else f"{value:.5g}"


@dataclass(frozen=True)
class Figure:
    """A metric of the reference on the held-out split, or on a segment of it, with its 95 % confidence interval."""

    metric: Judge
    segment: str  # "October"; "" for the whole split
    samples: int
    value: float | None  # None: there is none, as of the area under a curve where all is of one class
    low: float | None  # None: so few samples have no interval
    high: float | None
