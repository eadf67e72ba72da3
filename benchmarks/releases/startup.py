"""What it costs to start a server with ten releases and to reload one of them, here and in another checkout.

Whole commands are timed, as a user types them, here and there in turn; then throughput and latency of both servers over
their own model repositories. Each checkout needs a release, best the same one: `python -m export FAMILY`, and a copy.

What counts is the time that each takes, this/other within each round, as a median with its 95 % interval: no wider than
0.10, and its upper end at most 1.10.
"""

import argparse
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks import results
from benchmarks.releases import many_releases, throughput
from benchmarks.releases.checkout import Checkout
from benchmarks.rounds import Interval, in_turn, median_interval, ratios
from cli import tables
from cli.tables import Table, console
from contracts import layout

LIMIT = 1.10  # of the time that the other checkout takes: the upper end of the interval
MAX_WIDTH = 0.10  # of an interval: a wider one tells nothing
_JUDGED = ("s", "requests/s", "p50 ms")  # the longest requests vary too much from round to round
_THIS, _OTHER = "this", "other"
Figures = Mapping[tuple[str, str], Sequence[float]]  # {(what, unit): a figure a round}


@dataclass(frozen=True)
class Comparison:
    """One figure, of this checkout and of the other: medians over the rounds."""

    what: str
    unit: str
    this: float
    other: float | None
    time: Interval | None  # that this takes, of the other's, within each round

    @property
    def finding(self) -> str | None:
        """Say what is too much, or not known well enough; None if nothing is."""
        if self.time is None or self.unit not in _JUDGED:
            return None
        what = f"{self.what}, {self.unit}: {self.time} of the other's time"
        if self.time.width > MAX_WIDTH:
            return f"{what} is an interval wider than {MAX_WIDTH:.2f}: more --rounds"
        return f"{what} may be more than {LIMIT:.2f}" if self.time.high > LIMIT else None


def main(options: argparse.Namespace) -> int:
    """Measure, print and keep; return 0 if nothing takes longer than it may."""
    with tempfile.TemporaryDirectory(prefix="startup-") as scratch:
        Path(scratch).chmod(0o755)  # root's server becomes somebody else
        roots = {_THIS: layout.ROOT, **({_OTHER: options.against.resolve()} if options.against else {})}
        checkouts = {name: Checkout(root, Path(scratch) / name) for name, root in roots.items()}
        commits = " against ".join(checkout.commit() for checkout in checkouts.values())
        timed = commands(checkouts, options.model, options.releases, options.rounds)
        with ExitStack() as servers:
            up = {name: servers.enter_context(checkout.serving()).http for name, checkout in checkouts.items()}
            release = checkouts[_THIS].release(options.model)
            asked = throughput.measure(up, release, options.rounds, options.seconds)
    found = [*compare(timed), *compare(asked)]
    findings = [comparison.finding for comparison in found if comparison.finding]
    figures = {
        "commits": commits,
        "releases": options.releases,
        "findings": findings,
        "figures": [asdict(comparison) for comparison in found],
        "rounds": [
            {"what": what, "unit": unit, "checkout": name, "figures": by_round}
            for part in (timed, asked)
            for name, own in part.items()
            for (what, unit), by_round in own.items()
        ],
    }
    record = results.write("startup", figures)
    if options.json:
        print(json.dumps(figures))
    else:
        console().print(table(found, f"{commits}: medians of {options.rounds} rounds"))
        print(f"Kept in {layout.shown(record)}")
        print("\n".join(f"✗ {finding}" for finding in findings) or "✓ Nothing takes longer than it may")
    return 1 if findings else 0


def commands(
    checkouts: Mapping[str, Checkout], model: str | None, count: int, rounds: int
) -> dict[str, dict[tuple[str, str], list[float]]]:
    """Time `up` with so many releases and `reload` of one, in each checkout.

    Args:
        model: Whose newest version the releases are copies of; None for the first that was released.

    Raises:
        MeasurementError: nothing was released in a checkout, or a command fails there.
    """

    def measure(checkout: Checkout) -> tuple[float, float]:
        repository = checkout.place / "many"
        shutil.rmtree(repository, ignore_errors=True)
        names = many_releases.write(checkout.release(model), repository, count)
        with checkout.serving(repository) as up:
            many_releases.publish_again(repository / names[0])
            return up.seconds, checkout.deploy("reload", names[0])

    found = in_turn({name: functools.partial(measure, checkout) for name, checkout in checkouts.items()}, rounds)
    whats = ((f"up, {count} releases", "s"), ("reload of one", "s"))
    return {
        name: {what: [of_round[place] for of_round in by_round] for place, what in enumerate(whats)}
        for name, by_round in found.items()
    }


def compare(by_checkout: Mapping[str, Figures]) -> list[Comparison]:
    """Compare the figures of this checkout with those of the other if there is one."""
    found = []
    for (what, unit), this in by_checkout[_THIS].items():
        other = by_checkout[_OTHER][what, unit] if _OTHER in by_checkout else None
        time = None
        if other:  # a request takes the longer, the fewer are answered a second
            time = median_interval(ratios(other, this) if unit.endswith("/s") else ratios(this, other))
        found.append(Comparison(what, unit, median(this), median(other) if other else None, time))
    return found


def table(found: Sequence[Comparison], title: str) -> Table:
    """Lay out the figures, a row each."""
    shown = tables.table("", "unit", _THIS, _OTHER, "time, this/other (95 %)", title=title, left=2)
    for one in found:
        other = "" if one.other is None else f"{one.other:,.2f}"
        shown.add_row(one.what, one.unit, f"{one.this:,.2f}", other, str(one.time or ""))
    return shown
