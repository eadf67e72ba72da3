"""What load is like over time: stages of a rate that rises, falls or stays; the same for Locust and for k6.

The loop is open: requests are due at times that are drawn before (Poisson arrivals at the stages' rate), whatever the
server does, and a request's latency counts from when it was due. So a server that stalls cannot hide it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import MeasurementError

_GRID_S = 0.01  # within which the rate is taken for even


@dataclass(frozen=True)
class Stage:
    """Some seconds over which the rate goes from where it is to another one."""

    seconds: float
    per_s: float  # at its end


@dataclass(frozen=True)
class Scenario:
    """Stages, one after the other, and which share of the requests is urgent."""

    name: str
    from_per_s: float  # where the first stage begins
    stages: tuple[Stage, ...]
    urgent: float = 0.0  # share of requests with priority 1; then it is they that the limits are for

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def requests(self) -> float:
        """How many are to be expected."""
        return float(self._cumulated()[1][-1])

    @property
    def judged(self) -> str:
        """The class of requests that the limits are for."""
        return URGENT if self.urgent else ALL

    def due_s(self, seed: int) -> NDArray[np.float64]:
        """Draw when requests are due, in seconds since the start; the same for the same seed."""
        random = np.random.default_rng(seed)
        times, expected = self._cumulated()
        count = random.poisson(expected[-1])
        return np.asarray(np.interp(np.sort(random.uniform(0, expected[-1], count)), expected, times), np.float64)

    def are_urgent(self, count: int, seed: int) -> NDArray[np.bool_]:
        """Draw which of the requests are urgent."""
        return np.random.default_rng((seed, 1)).random(count) < self.urgent

    def _cumulated(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return times, and how many requests are to be expected until each."""
        ends = np.cumsum([0.0, *(stage.seconds for stage in self.stages)])
        rates = [self.from_per_s, *(stage.per_s for stage in self.stages)]
        times = np.union1d(np.arange(0, ends[-1], _GRID_S), ends)
        per_s = np.interp(times, ends, rates)
        steps = np.diff(times) * (per_s[1:] + per_s[:-1]) / 2
        return times, np.concatenate(([0.0], np.cumsum(steps)))


ALL, URGENT = "all", "priority 1"


def steady(per_s: float, seconds: float) -> Scenario:
    """Make one whose rate stays."""
    return Scenario("steady", per_s, (Stage(seconds, per_s),))


def ramp(per_s: float, seconds: float) -> Scenario:
    """Make one that begins with nothing and ends at the rate: where does it begin to hurt?"""
    return Scenario("ramp", 0, (Stage(seconds, per_s),))


def spike(per_s: float, seconds: float) -> Scenario:
    """Make one that is quiet, then at the rate at once for a fifth of the time, and quiet again."""
    quiet, edge = per_s / 5, min(0.1, seconds / 50)
    return Scenario(
        "spike",
        quiet,
        (
            Stage(0.4 * seconds - edge, quiet),
            Stage(edge, per_s),
            Stage(0.2 * seconds - edge, per_s),
            Stage(edge, quiet),
            Stage(0.4 * seconds, quiet),
        ),
    )


def mixed(per_s: float, seconds: float) -> Scenario:
    """Make one of which a fifth is urgent, for which alone the limits are: the rest may be made to wait, or refused."""
    return Scenario("mixed", per_s, (Stage(seconds, per_s),), urgent=0.2)


SCENARIOS: Mapping[str, Callable[[float, float], Scenario]] = {
    "steady": steady,
    "ramp": ramp,
    "spike": spike,
    "mixed": mixed,
}


def named(name: str, per_s: float, seconds: float) -> Scenario:
    """Make a scenario.

    Raises:
        MeasurementError: there is none of that name, or the numbers are none.
    """
    if name not in SCENARIOS:
        raise MeasurementError(f"there is no scenario {name!r}", hint=f"one of {', '.join(SCENARIOS)}")
    if not (0 < per_s < 1e6 and 0 < seconds < 1e6):
        raise MeasurementError(f"a scenario needs a rate and a duration, not {per_s:g}/s for {seconds:g} s")
    return SCENARIOS[name](per_s, seconds)
