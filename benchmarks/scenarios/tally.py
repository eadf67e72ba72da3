"""What became of requests, by class: counts that several processes can add up, and whether that is good enough.

Latencies are counted in classes of 1 % of width, so that percentiles are as exact however many processes there are.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

_WIDTH = math.log(1.01)
_LEAST_MS = 0.001


@dataclass
class Tally:
    """One class of requests."""

    latencies: Counter[int] = field(default_factory=Counter)  # {place of its class: answered right}
    errors: Counter[str] = field(default_factory=Counter)
    late: int = 0  # had to wait for a free caller before they were sent

    @classmethod
    def of(cls, read: Mapping[str, Any]) -> Self:
        """Read what `as_json` made."""
        return cls(Counter({int(k): n for k, n in read["latencies"].items()}), Counter(read["errors"]), read["late"])

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it, with text for keys."""
        latencies = {str(place): count for place, count in self.latencies.items()}
        return {"latencies": latencies, "errors": dict(self.errors), "late": self.late}

    def answered(self, latency_ms: float) -> None:
        """Count a right answer."""
        self.latencies[round(math.log(max(latency_ms, _LEAST_MS)) / _WIDTH)] += 1

    def failed(self, error: str) -> None:
        """Count what is no right answer."""
        self.errors[error] += 1

    def add(self, other: "Tally") -> None:
        """Add what another process counted."""
        self.latencies.update(other.latencies)
        self.errors.update(other.errors)
        self.late += other.late

    @property
    def requests(self) -> int:
        return self.latencies.total() + self.errors.total()

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that so many percent of the right answers had at most; NaN without any."""
        left = math.ceil(self.latencies.total() * percent / 100)
        for place in sorted(self.latencies):
            left -= self.latencies[place]
            if left <= 0:
                return math.exp(place * _WIDTH)
        return math.nan


@dataclass(frozen=True)
class Limits:
    """What the judged requests may be; None: anything."""

    p95_ms: float | None = None
    p99_ms: float | None = None
    errors: float = 0.0  # share of the requests


@dataclass(frozen=True)
class Outcome:
    """What became of one class of requests."""

    name: str
    requests: int
    per_s: float  # answered right
    p50_ms: float
    p95_ms: float
    p99_ms: float
    late: int
    errors: Mapping[str, int]

    @property
    def error_share(self) -> float:
        return sum(self.errors.values()) / self.requests if self.requests else 0.0

    def findings(self, limits: Limits) -> list[str]:
        """Say what is beyond the limits; nothing, if nothing is."""
        if not self.requests:
            return [f"{self.name}: nothing was sent"]
        found = []
        for percent, value, limit in (("p95", self.p95_ms, limits.p95_ms), ("p99", self.p99_ms, limits.p99_ms)):
            if limit is not None and not value <= limit:
                found.append(f"{self.name}: {percent} is {value:,.1f} ms (limit: {limit:g} ms)")
        if self.error_share > limits.errors:
            usual = max(self.errors, key=lambda error: self.errors[error])
            share = f"{self.error_share:.2%} of {self.requests:,} failed (limit: {limits.errors:.2%})"
            found.append(f"{self.name}: {share}, most of them: {usual}")
        return found


def outcome(name: str, tally: Tally, seconds: float) -> Outcome:
    """Sum up a class."""
    p50_ms, p95_ms, p99_ms = (tally.percentile_ms(percent) for percent in (50, 95, 99))
    right = tally.latencies.total()
    per_s = right / seconds if seconds else math.nan  # a recording whose requests came all at once
    return Outcome(name, tally.requests, per_s, p50_ms, p95_ms, p99_ms, tally.late, dict(tally.errors))


def findings(found: Sequence[Outcome], judged: str, limits: Limits) -> list[str]:
    """Say what is beyond the limits, of the class that is judged; nothing, if nothing is."""
    of_judged = [each for each in found if each.name == judged]
    told = [finding for each in of_judged for finding in each.findings(limits)]
    return told if of_judged else [f"{judged}: nothing was sent"]


def merged(tallies: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    """Add up what several processes counted, by class."""
    found: dict[str, Tally] = {}
    for each in tallies:
        for name, tally in each.items():
            found.setdefault(name, Tally()).add(tally)
    return found
