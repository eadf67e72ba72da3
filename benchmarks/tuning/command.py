"""Find the settings with which a release answers most within an objective, on this machine, and write them down.

Each trial is a real server over a copy of the release with other settings. The winner is compared with today's
settings once more, both up at the same time and asked in turn. The evidence is written either way; a patch of the
configurations only of what is better there for sure. Nothing is changed by itself.
"""

import argparse
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from statistics import median

from benchmarks import target
from benchmarks.errors import MeasurementError
from benchmarks.releases import released
from benchmarks.releases.checkout import Up
from benchmarks.rounds import Interval, in_turn, median_interval, ratios
from benchmarks.serving.load import Request
from benchmarks.tuning import candidate, change, search, settings_of_model
from benchmarks.tuning.candidate import Level, Objective
from benchmarks.tuning.search import Found, Search
from benchmarks.tuning.settings_of_model import Tunable
from benchmarks.tuning.space import Space
from cli import tables
from cli.tables import Table, console
from contracts import layout
from contracts.files import locks


@dataclass(frozen=True)
class Comparison:
    """The winner beside today's settings, in one run."""

    throughput: Interval | None  # winner/today; none: today's settings held the objective in no round
    held: int  # rounds in which the winner did
    today: tuple[Level, ...]  # a round each
    winner: tuple[Level, ...]

    @property
    def is_better(self) -> bool:
        """Whether it is so for sure."""
        return self.throughput.low > 1.0 if self.throughput else self.held == len(self.winner)


def main(options: argparse.Namespace) -> int:
    """Search, compare, write; return 0 also where nothing beats today's settings."""
    objective = Objective(options.p99_ms, options.rate)
    release = released.asked((options.repository or target.repository()).resolve(), options.model)
    models = search.configured(release)
    if not models:
        raise MeasurementError(f"{options.model} has no setting to tune", note="no batching, no instances, no threads")
    folder = layout.artifacts() / "tuning" / options.model
    of = Search(release, options.model, Space(models), objective, options.seconds, folder)
    print(f"{options.model}: {objective}; {len(of.space.values)} settings, {options.budget:g} s, {of.name}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locks.locked(folder / ".lock", wait=False):
            return _tuned(of, options)
    except BlockingIOError as error:
        told = f"another search for {options.model} is under way in {layout.shown(folder)}"
        raise MeasurementError(told, hint="wait until it has ended, or stop it") from error
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on where it was", file=sys.stderr)
        raise


def _tuned(of: Search, options: argparse.Namespace) -> int:
    """Search, compare, write."""
    objective = of.objective
    found = search.run(of, options.budget, functools.partial(print, flush=True))
    print(f"{found.trials} trials, {found.failed} failed; it ended as {found.ended}")
    if found.trials < search.FEWEST:
        print("Too few to say anything. Next: the same command, which goes on where it was")
        return 1
    today = {name: configured.settings for name, configured in of.space.models.items()}
    if found.throughput == 0.0:
        print(f"✗ Nothing that was tried holds {objective}: a looser one, or a machine with more cores")
        return 1
    changes = settings_of_model.described(found.best, today)
    beside = _compare(of, found, today, options.rounds) if changes else None
    if beside:
        console().print(table(beside, objective))
    is_better = beside is not None and beside.is_better
    folder = of.folder / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    written = change.write(of, found, asdict(beside) if beside else {}, changes if is_better else [], folder)
    print("\n".join(written.verdict))
    print(f"Evidence: {layout.shown(written.evidence)}")
    if written.patch:
        print(f"Next: git apply {layout.shown(written.patch)} && python -m export, for a release that has them")
    return 0


def compared(today: Sequence[Level], winner: Sequence[Level], objective: Objective) -> Comparison:
    """Compare round by round.

    A round in which the winner breaks the objective counts as no answers; one in which today's settings do is left out.
    """
    of_winner, of_today = ([level.per_s * level.holds(objective) for level in side] for side in (winner, today))
    pairs = [(one, other) for one, other in zip(of_winner, of_today, strict=True) if other]
    ratio = median_interval(ratios(*zip(*pairs, strict=True))) if pairs else None
    return Comparison(ratio, sum(per_s > 0 for per_s in of_winner), tuple(today), tuple(winner))


def table(found: Comparison, objective: Objective) -> Table:
    """Lay out both, medians over the rounds."""
    shown = tables.table("", "requests/s", "p50 ms", "p99 ms", "CPU µs a request", title=f"Asked in turn: {objective}")
    for name, levels in (("today", found.today), ("winner", found.winner)):
        columns = zip(*((level.per_s, level.p50_ms, level.p99_ms, level.cpu_us) for level in levels), strict=True)
        per_s, p50_ms, p99_ms, cpu_us = map(median, columns)
        shown.add_row(name, f"{per_s:,.0f}", f"{p50_ms:.2f}", f"{p99_ms:.2f}", f"{cpu_us:,.0f}")
    shown.add_row("winner/today", str(found.throughput or "today's holds in no round"), "", "", "")
    return shown


def _compare(of: Search, found: Found, today: Mapping[str, Tunable], rounds: int) -> Comparison:
    """Serve both at the same time; ask them in turn, each at the load at which it answers most within the objective."""
    sides = {"today": (today, found.levels_today), "winner": (found.best, found.levels)}
    with ExitStack() as opened:
        ways = {}
        for name, (settings, levels) in sides.items():
            place = of.folder / f"compared-{name}"
            candidate.clear(place)
            candidate.write(of.release, of.space.models, settings, place / "model_repository")
            up = opened.enter_context(candidate.served(place / "model_repository", place))
            asked = candidate.requests(up.http, place / "model_repository", of.model)
            connections = _where_it_answers_most(levels, of.objective) or _where_it_answers_most(
                found.levels, of.objective
            )
            ways[name] = functools.partial(_asked, up, asked, connections, of)
        by_round = in_turn(ways, rounds)
    return compared(by_round["today"], by_round["winner"], of.objective)


def _where_it_answers_most(levels: Sequence[Level], objective: Objective) -> int:
    """Return the connections of the best level that holds; 0: none does."""
    held = [level for level in levels if level.connections and level.holds(objective)]
    return max(held, key=lambda level: level.per_s).connections if held else 0


def _asked(up: Up, asked: Sequence[Request], connections: int, of: Search) -> Level:
    """Ask at one load; where a rate has to hold, too, what breaks it fails."""
    level = candidate.closed(up, asked, connections, of.seconds)
    if of.objective.per_s is not None:
        rate = candidate.at_rate(up, asked, of.objective.per_s, of.seconds)
        if not rate.holds(of.objective):
            return replace(level, failed=level.failed + 1)
    return level
