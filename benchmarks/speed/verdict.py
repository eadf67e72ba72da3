"""What the rounds say: has a request become slower by more than their noise?

A figure is a ratio within one round, so that the machine's own speed drops out of it; what is judged is the median of
the rounds with its 95 % interval.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.errors import MeasurementError
from benchmarks.results import Machine
from benchmarks.rounds import Interval, median_interval, ratios
from benchmarks.speed.sides import Round
from contracts import layout

KEPT = Path(__file__).parent.parent / "results" / "speed.json"  # the figures that a run is compared with
SEEN_US = 100  # per request: what a run has to be able to see
SLACK = 1.03  # two servers of the same files differ by up to 2 %, by where their memory happens to lie
# Of another machine than the kept figures'. What a server costs and what a network costs do not grow alike.
OTHER_MACHINE = 1.25
FIGURES = ("latency", "cpu")
_TITLES = {"latency": "latency of a request", "cpu": "CPU of a request"}


@dataclass(frozen=True)
class Verdict:
    """One figure, and what it may be."""

    name: str  # one of FIGURES
    now: Interval  # served/in process
    before: Interval | None  # the same of the kept figures
    growth: Interval | None  # against another checkout, within each round
    allowed: float | None  # of `now`
    seen: float  # the share of a request that SEEN_US are

    @property
    def title(self) -> str:
        return _TITLES[self.name]

    @property
    def findings(self) -> list[str]:
        """What is wrong; nothing, if nothing is."""
        found = []
        if self.allowed is not None and self.now.low > self.allowed:
            found.append(f"{self.title} is {self.now} of that in process: more than {self.allowed:.3f}")
        if self.growth is not None and self.growth.low > SLACK:
            found.append(f"{self.title} is {self.growth} of the other checkout's: more than {SLACK:.2f}")
        if not found and not self.tells:
            found.append(
                f"{self.title}: the interval is too wide to see {SEEN_US} µs of a request; "
                "--budget 300, on a machine that does nothing else"
            )
        return found

    @property
    def tells(self) -> bool:
        """Whether the interval is narrow enough to see SEEN_US."""
        judged = self.growth or self.now
        return judged.width / judged.median < self.seen


def judge(
    this: Sequence[Round], other: Sequence[Round], kept: Mapping[str, Interval], allowance: float
) -> list[Verdict]:
    """Judge the rounds of this checkout.

    Args:
        other: The same rounds of another checkout; none: there is none.
        kept: The figures before, by name; none where nothing was kept.
        allowance: How many times the kept interval's upper end a figure may be.
    """
    found = []
    for name in FIGURES:
        own = [float(getattr(one, name)) for one in this]
        growth = None
        if other:
            served = "served_ms" if name == "latency" else "served_cpu_us"
            growth = median_interval(ratios(*([float(getattr(one, served)) for one in side] for side in (this, other))))
        before = kept.get(name)
        allowed = allowance * before.high if before else None
        found.append(Verdict(name, median_interval(own), before, growth, allowed, _seen(this, name)))
    return found


def kept(path: Path = KEPT) -> tuple[dict[str, Interval], float]:
    """Return the kept figures and how many times they may be, here: SLACK, or more on a machine of another kind.

    Raises:
        MeasurementError: the file is damaged.
    """
    if not path.is_file():
        return {}, SLACK
    try:
        read = json.loads(path.read_text())
        return {name: Interval(**read["figures"][name]) for name in FIGURES}, (
            SLACK if read["machine"] == machine() else OTHER_MACHINE
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeasurementError(
            f"{layout.shown(path)} is damaged", note=repr(error), hint=f"git checkout {layout.shown(path)}"
        ) from error


def keep(found: Sequence[Verdict], rounds: Sequence[Round], commit: str, path: Path = KEPT) -> None:
    """Write the figures of this run to be what later ones are compared with."""
    figures = {verdict.name: asdict(verdict.now) for verdict in found}
    record = {"commit": commit, "machine": machine(), "figures": figures, "rounds": [asdict(one) for one in rounds]}
    path.write_text(json.dumps(record, indent=2) + "\n")


def machine() -> str:
    """Say what kind of machine this is: its processor, and how many cores may be used."""
    found = Machine.this()
    return f"{found.cpu}, {found.cores} cores"


def _seen(rounds: Sequence[Round], name: str) -> float:
    served_us = [1e3 * one.served_ms if name == "latency" else one.served_cpu_us for one in rounds]
    return SEEN_US / median_interval(served_us).median
