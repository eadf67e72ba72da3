"""`python -m benchmarks compare A B`: what has changed from one result to another, and what is noise.

Two runs see two machines, or one at two times. So a system's change is what is left of it when that of all others of
the same run, their median, is taken off: a peer's locked release does not change, only what it runs on. How far a
system is from one run to the next although nothing has changed, the others show, too: rounds of one run cannot. So an
interval is the wider one of two, of logarithms: of the rounds (Welch's t), and of the others' changes. It is wide
enough for all figures together (Bonferroni): where nothing has changed, one of twenty comparisons finds a change.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import MeasurementError
from benchmarks.reporting import measurements
from benchmarks.reporting.measurements import FIGURES, Measurement, Result
from cli import tables
from cli.tables import Table, Text, console
from contracts import layout

LEAST = 0.05  # a change that matters
_FEWEST_OTHERS = 3  # whose changes tell how far a system is from run to run
_ALPHA = 0.05
_WIDEST = 50.0  # half of an interval, of logarithms: of two rounds nothing is known, and no float holds how little
_COLOURS = {"better": "green", "worse": "red", "the same": "", "unknown": "yellow"}
Verdict = Literal["better", "worse", "the same", "unknown"]


@dataclass(frozen=True)
class Change:
    """How a figure of one system has changed, as B/A."""

    task: str
    system: str
    connections: int
    figure: str
    before: float  # geometric means of the rounds
    after: float
    others: float | None  # by how much all others changed; None: there is no other
    ratio: float  # of the system, without that
    low: float
    high: float
    verdict: Verdict


def main(options: argparse.Namespace) -> int:
    """Print what has changed; return 0 if nothing of the systems that were asked for is worse."""
    before, after = (measurements.read(path) for path in (options.before, options.after))
    changes = compare(before, after, options.system, options.least / 100)
    worse = [change for change in changes if change.verdict == "worse"]
    if options.json:
        print(json.dumps({"changes": [asdict(change) for change in changes], "worse": len(worse)}))
        return 1 if worse else 0
    console(150).print(table(changes, options.before, options.after))
    for line in differences(before, after):
        print(f"! {line}")
    unknown = sum(change.verdict == "unknown" for change in changes)
    print(f"{'✗' if worse else '✓'} {len(worse)} of {len(changes)} figures are worse by more than {options.least:g} %")
    if unknown:
        print(f"{unknown} cannot be told from noise: more --rounds, or a machine that is quieter")
    return 1 if worse else 0


def compare(before: Result, after: Result, system: str | None = None, least: float = LEAST) -> list[Change]:
    """Compare all that both results have.

    Args:
        system: The only one to tell of.
        least: A change that is smaller does not matter, as a share.

    Raises:
        MeasurementError: they have nothing in common, or too few rounds.
    """
    pairs = _pairs(before, after)
    told = [key for key in pairs if system in (None, key[1])]
    if not told:
        raise MeasurementError(
            f"{layout.shown(before.path)} and {layout.shown(after.path)} have nothing in common"
            + (f" of {system}" if system else "")
        )
    if few := [key for key in told if min(len(one.rounds) for one in pairs[key]) < 2]:
        raise MeasurementError(f"{few[0][1]} was measured in one round: nobody knows its noise", hint="--rounds 5")
    count = len(told) * len(FIGURES)
    return [_change(key, figure, pairs, _ALPHA / count, least) for key in told for figure in FIGURES]


def differences(before: Result, after: Result) -> list[str]:
    """Name what else differs between two results, beside the figures."""
    found = []
    one, other = before.origin, after.origin
    for what in ("machine", "versions"):
        if one.get(what) != other.get(what):
            found.append(f"{what}: {_short(one.get(what))} and {_short(other.get(what))}")
    for what in ("seconds", "generator"):
        if before.told.get(what) != after.told.get(what):
            found.append(f"{what}: {_short(before.told.get(what))} and {_short(after.told.get(what))}")
    for what, said in (("graph_sha256", "the graph of {} is another one"), ("bodies_sha256", "{} is asked otherwise")):
        digests, others = (
            {task["name"]: task[what] for task in _listed(each, "tasks") if what in task} for each in (before, after)
        )
        found += [said.format(name) for name in digests if name in others and digests[name] != others[name]]
    ours, theirs = ({(one["task"], one["name"]): one for one in _listed(each, "systems")} for each in (before, after))
    found += [
        f"{task}, {system}: {what}: {_short(one.get(what))} and {_short(theirs[task, system].get(what))}"
        for (task, system), one in ours.items()
        for what in ("versions", "settings")
        if (task, system) in theirs and one.get(what) != theirs[task, system].get(what)
    ]
    found += [
        f"{layout.shown(result.path)} is of a commit with changes beside it ({result.origin.get('commit')})"
        for result in (before, after)
        if result.origin.get("dirty")
    ]
    return found


def table(changes: Sequence[Change], before: Path, after: Path) -> Table:
    """Lay out the changes, a row each."""
    title = f"{layout.shown(before)} → {layout.shown(after)}"
    shown = tables.table(
        "model", "system", "connections", "figure", "before", "after", "all others", "B/A", "", title=title
    )
    for change in changes:
        others = "–" if change.others is None else f"× {change.others:.3f}"
        shown.add_row(
            change.task,
            change.system,
            str(change.connections),
            change.figure,
            f"{change.before:,.4g}",
            f"{change.after:,.4g}",
            others,
            f"× {change.ratio:.3f} ({change.low:.3f} … {change.high:.3f})",
            Text(change.verdict, _COLOURS[change.verdict]),
        )
    return shown


_Key = tuple[str, str, int]
_Pairs = Mapping[_Key, tuple[Measurement, Measurement]]


def _pairs(before: Result, after: Result) -> _Pairs:
    known = {(one.task, one.system, one.connections): one for one in after.measurements}
    return {
        key: (one, known[key])
        for one in before.measurements
        if (key := (one.task, one.system, one.connections)) in known
    }


def _change(key: _Key, figure: str, pairs: _Pairs, alpha: float, least: float) -> Change:
    task, system, connections = key
    own = _logarithms(pairs[key], figure)
    others = [
        _logarithms(pair, figure)
        for other, pair in pairs.items()
        if (other[0], other[2]) == (task, connections) and other[1] != system
    ]
    changes = [_difference(one) for one in others]
    drift = float(np.median(changes)) if others else 0.0
    middle = _difference(own) - drift
    width = min(max(_of_rounds([own, *others], alpha), _of_runs(changes, alpha)), _WIDEST)
    low, high = middle - width, middle + width
    return Change(
        task,
        system,
        connections,
        figure,
        math.exp(own[0].mean()),
        math.exp(own[1].mean()),
        math.exp(drift) if others else None,
        math.exp(middle),
        math.exp(low),
        math.exp(high),
        _verdict(low, high, math.log1p(least), FIGURES[figure]),
    )


def _verdict(low: float, high: float, least: float, more_is_better: bool) -> Verdict:
    if low > 0 and (low + high) / 2 > least:
        return "better" if more_is_better else "worse"
    if high < 0 and (low + high) / 2 < -least:
        return "worse" if more_is_better else "better"
    return "the same" if -least <= low and high <= least else "unknown"


_Two = tuple[NDArray[np.float64], NDArray[np.float64]]


def _logarithms(pair: tuple[Measurement, Measurement], figure: str) -> _Two:
    one, other = (np.log(np.maximum(each.figures(figure), 1e-12)) for each in pair)
    return one, other


def _difference(two: _Two) -> float:
    return float(two[1].mean() - two[0].mean())


def _of_rounds(all_: Sequence[_Two], alpha: float) -> float:
    """Return half of the interval of the first's difference less the median of the others' (Welch–Satterthwaite).

    The median, as one of them may have changed itself; its variance is π/2 of the mean's.
    """
    from scipy.stats import t

    others = len(all_) - 1
    weights = [1.0] + [math.sqrt(math.pi / 2) / max(others, 1)] * others
    parts = [
        (weight**2 * float(rounds.var(ddof=1)) / len(rounds), len(rounds) - 1)
        for weight, two in zip(weights, all_, strict=True)
        for rounds in two
    ]
    variance = sum(part for part, _ in parts)
    if not variance:
        return 0.0
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    return float(t.ppf(1 - alpha / 2, freedom)) * math.sqrt(variance)


def _of_runs(changes: Sequence[float], alpha: float) -> float:
    """Return half of the interval of one more change like these, less their median; 0 where they are too few."""
    from scipy.stats import t

    count = len(changes)
    if count < _FEWEST_OTHERS:
        return 0.0
    spread = float(np.std(changes, ddof=1)) * math.sqrt(1 + math.pi / 2 / count)
    return float(t.ppf(1 - alpha / 2, count - 1)) * spread


def _listed(result: Result, what: str) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = result.told.get(what, ())
    return found


def _short(told: object) -> str:
    return json.dumps(told)[:200]
