"""The measurements of a result file: systems that were asked the same, at several numbers of connections, in rounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.errors import MeasurementError
from benchmarks.rounds import Interval, median_interval, ratios
from contracts import layout

OURS, LIMIT, NOTHING = "ours", "in-process", "nothing"
FIGURES = {"per_s": True, "p50_ms": False, "p99_ms": False, "cpu_us": False}  # {figure: whether more is better}


@dataclass(frozen=True)
class Measurement:
    """One system at a number of connections; a figure a round."""

    task: str
    system: str
    connections: int
    rounds: tuple[dict[str, float], ...]
    latency_us: dict[int, int]  # {from so many µs on: answers}, in steps of 2 %; none of what is no server

    def figures(self, name: str) -> list[float]:
        """Return one figure of every round."""
        return [one[name] for one in self.rounds]

    def median(self, name: str) -> Interval:
        """Return the median of one figure over the rounds, with its 95 % interval."""
        return median_interval(self.figures(name))


@dataclass(frozen=True)
class Result:
    """A result file."""

    path: Path
    what: str
    origin: dict[str, Any]
    told: dict[str, Any]  # all of the file
    measurements: tuple[Measurement, ...]

    @property
    def tasks(self) -> list[str]:
        """What was asked."""
        return list(dict.fromkeys(one.task for one in self.measurements))

    def most_connections(self, task: str) -> int:
        """Return the largest number of connections of a task."""
        return max(one.connections for one in self.of(task))

    @property
    def rounds(self) -> int:
        """How many rounds the measurement with the fewest has."""
        return min(len(one.rounds) for one in self.measurements)

    @property
    def others(self) -> float | None:
        """What share of the machine somebody else took, in the median measurement; None where nobody looked."""
        found = sorted(each["others"] for one in self.measurements for each in one.rounds if "others" in each)
        return found[len(found) // 2] if found else None

    def label(self, system: str) -> str:
        """Return what a system is called."""
        return next((one["label"] for one in self.told.get("systems", ()) if one["name"] == system), system)

    def of(self, task: str, connections: int | None = None) -> list[Measurement]:
        """Return the measurements of a task, at one number of connections or at all."""
        wanted = (one for one in self.measurements if one.task == task)
        return [one for one in wanted if connections is None or one.connections == connections]

    def one(self, task: str, system: str, connections: int) -> Measurement | None:
        """Return one measurement; None where it was not made."""
        return next((each for each in self.of(task, connections) if each.system == system), None)

    def share(self, one: Measurement) -> Interval | None:
        """Return what a system answers of the limit in process, round by round.

        None where that was not measured in the same rounds, and of what does nothing and has no limit.
        """
        limit = self.one(one.task, LIMIT, one.connections)
        if limit is None or one.system == NOTHING or len(limit.rounds) != len(one.rounds):
            return None
        return median_interval(ratios(one.figures("per_s"), limit.figures("per_s")))


def read(path: Path) -> Result:
    """Read a result file that has measurements.

    Raises:
        MeasurementError: it is none, or has none.
    """
    told = results.read(path)
    origin = told.get("origin")
    try:
        found = tuple(_measurement(one) for one in told["measurements"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _none_in(path, f"{type(error).__name__}: {error}") from error
    if not found:
        raise _none_in(path, "its list of measurements is empty")
    if not isinstance(origin, dict):
        raise _none_in(path, "it does not say where they come from")
    return Result(path, str(told.get("what", "")), origin, told, found)


def newest(what: str) -> Path:
    """Return the newest result of a command.

    Raises:
        MeasurementError: there is none.
    """
    found: Sequence[Path] = sorted(results.directory().glob(f"{what}-*.json"))
    if not found:
        raise MeasurementError(
            f"there is no result of `{what}` in {layout.shown(results.directory())}",
            hint=f"python -m benchmarks {what}",
        )
    return found[-1]


def _measurement(one: dict[str, Any]) -> Measurement:
    rounds = tuple({name: float(figure) for name, figure in each.items()} for each in one["rounds"])
    if not rounds:
        raise ValueError("a measurement without rounds")
    for each in rounds:
        for figure in FIGURES:
            if not 0 <= each[figure] < math.inf:
                raise ValueError(f"{figure} is {each[figure]}")
        if not each["per_s"]:
            raise ValueError("nothing was answered")
    latency_us = {int(value): int(count) for value, count in one.get("latency_us", {}).items()}
    return Measurement(str(one["task"]), str(one["system"]), int(one["connections"]), rounds, latency_us)


def _none_in(path: Path, why: str) -> MeasurementError:
    return MeasurementError(
        f"{layout.shown(path)} has no measurements that can be read",
        note=why,
        hint="python -m benchmarks peers writes some",
    )
