"""Find the settings with which a release answers most within an objective, on this machine, and write them down.

Each trial is a real server over a copy of the release with other settings. The winner is compared with today's
settings once more, both up at the same time and asked in turn. The evidence is written either way; a patch of the
configurations only of what is better there for sure. Nothing is changed by itself.
"""

import argparse
import functools
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks import target
from benchmarks.errors import MeasurementError
from benchmarks.releases import released
from benchmarks.rounds import Interval, in_turn, median_interval, ratios
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

    throughput: Interval  # winner/today
    today: tuple[Level, ...]  # a round each
    winner: tuple[Level, ...]

    @property
    def is_better(self) -> bool:
        """Whether it is so for sure."""
        return self.throughput.low > 1.0


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
    compared = _compare(of, found, today, options.rounds) if changes else None
    if compared:
        console().print(table(compared, objective))
    is_better = compared is not None and compared.is_better
    folder = of.folder / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    written = change.write(of, found, asdict(compared) if compared else {}, changes if is_better else [], folder)
    print("\n".join(written.verdict))
    print(f"Evidence: {layout.shown(written.evidence)}")
    if written.patch:
        print(f"Next: git apply {layout.shown(written.patch)} && python -m export, for a release that has them")
    return 0


def table(compared: Comparison, objective: Objective) -> Table:
    """Lay out both, medians over the rounds."""
    shown = tables.table("", "requests/s", "p50 ms", "p99 ms", "CPU µs a request", title=f"Asked in turn: {objective}")
    for name, levels in (("today", compared.today), ("winner", compared.winner)):
        columns = zip(*((level.per_s, level.p50_ms, level.p99_ms, level.cpu_us) for level in levels), strict=True)
        per_s, p50_ms, p99_ms, cpu_us = map(median, columns)
        shown.add_row(name, f"{per_s:,.0f}", f"{p50_ms:.2f}", f"{p99_ms:.2f}", f"{cpu_us:,.0f}")
    shown.add_row("winner/today", str(compared.throughput), "", "", "")
    return shown


def _compare(of: Search, found: Found, today: Mapping[str, Tunable], rounds: int) -> Comparison:
    """Serve both at the same time, and ask them in turn at the load at which the winner won."""
    connections = max((v for v in found.levels if v.connections and v.holds(of.objective)), key=lambda v: v.per_s)
    with ExitStack() as opened:
        ways = {}
        for name, settings in (("today", today), ("winner", found.best)):
            place = of.folder / f"compared-{name}"
            candidate.clear(place)
            candidate.write(of.release, of.space.models, settings, place / "model_repository")
            up = opened.enter_context(candidate.served(place / "model_repository", place))
            asked = candidate.requests(up.http, place / "model_repository", of.model)
            ways[name] = functools.partial(candidate.closed, up, asked, connections.connections, of.seconds)
        by_round = in_turn(ways, rounds)
    winner, before = by_round["winner"], by_round["today"]
    held = [level.per_s if level.holds(of.objective) else 0.0 for level in winner]
    return Comparison(
        median_interval(ratios(held, [max(level.per_s, 1e-9) for level in before])), tuple(before), tuple(winner)
    )
