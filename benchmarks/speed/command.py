"""Has a request become slower? Under two minutes, on ratios within one run.

A server of this checkout is asked, and the same release is called without one; the ratios may not be larger than those
that are kept in benchmarks/results/speed.json. With `--against` another checkout's server is asked in turn, which sees
smaller differences, and those of the steps themselves, which are no part of the ratio.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks import results
from benchmarks.releases.checkout import Checkout
from benchmarks.speed import verdict
from benchmarks.speed.sides import Round, Side, checked_out, stand_in_side
from benchmarks.speed.sides import measure as measure_round
from benchmarks.speed.verdict import Verdict
from cli import tables
from cli.progress import bar
from cli.tables import Table, console
from contracts import layout

FEWEST = 9  # rounds, however narrow the interval is before
_NARROW = 0.6  # of what has to be seen: then more rounds tell no more


def main(options: argparse.Namespace) -> int:
    """Measure, judge and keep; return 0 if nothing has become slower."""
    began = results.Began.now()
    commit = Checkout(layout.ROOT, Path()).commit()
    with tempfile.TemporaryDirectory(prefix="speed-") as scratch, ExitStack() as opened:
        Path(scratch).chmod(0o755)  # root's server becomes somebody else
        roots = {"this": layout.ROOT}
        if options.against:
            roots["other"] = opened.enter_context(checked_out(options.against))
        sides = {name: opened.enter_context(stand_in_side(root, Path(scratch) / name)) for name, root in roots.items()}
        known, allowance = ({}, verdict.SLACK) if options.keep else verdict.kept()
        rounds = measure(sides, options.seconds, options.budget)
        found = verdict.judge(rounds["this"], rounds.get("other", []), known, allowance)
    if options.against and not (known or options.keep):
        print("! nothing is kept: only the other commit is compared", file=sys.stderr)
    findings = [finding for one in found for finding in one.findings]
    if not (known or options.against or options.keep):
        findings.append("there is nothing to compare with: --against COMMIT, or --keep at a commit that is good")
    figures = {
        "commit": commit,
        "machine": verdict.machine(),
        "against": options.against,
        "findings": findings,
        "verdicts": [asdict(one) for one in found],
        "rounds": {name: [asdict(one) for one in by_round] for name, by_round in rounds.items()},
    }
    record = results.write("speed", figures, began)
    if options.keep and not findings:
        verdict.keep(found, rounds["this"], commit)
    if options.json:
        print(json.dumps(figures))
        return 1 if findings else 0
    console().print(table(found, f"{commit}: served, of what it takes in process; {len(rounds['this'])} rounds"))
    print(f"Kept in {layout.shown(record)}")
    print("\n".join(f"✗ {finding}" for finding in findings) or "✓ A request costs what it did")
    return 1 if findings else 0


def measure(sides: dict[str, Side], seconds: float, budget_s: float) -> dict[str, list[Round]]:
    """Measure all sides in turn, until their intervals tell enough or the time is over; FEWEST rounds at least."""
    found: dict[str, list[Round]] = {name: [] for name in sides}
    began = time.monotonic()
    try:
        with bar("measuring", budget_s) as drawn:
            while len(found["this"]) < FEWEST or (time.monotonic() < began + budget_s and not _is_enough(found)):
                for name, one in measure_round(sides, seconds).items():
                    found[name].append(one)
                drawn.now(f"round {len(found['this'])}")
                drawn.reach(time.monotonic() - began)
    except KeyboardInterrupt:
        print("\nStopped. Nothing is judged, and nothing kept; the same command begins anew", file=sys.stderr)
        raise
    return found


def table(found: list[Verdict], title: str) -> Table:
    """Lay out the figures, a row each."""
    shown = tables.table("", "now (95 %)", "kept (95 %)", "at most", "this/other (95 %)", title=title)
    for one in found:
        most = "" if one.allowed is None else f"{one.allowed:.3f}"
        shown.add_row(one.title, str(one.now), str(one.before or ""), most, str(one.growth or ""))
    return shown


def _is_enough(found: dict[str, list[Round]]) -> bool:
    by_side = found["this"], found.get("other", [])
    for one in verdict.judge(*by_side, {}, verdict.SLACK):
        judged = one.growth or one.now
        if judged.width / judged.median > _NARROW * one.seen:
            return False
    return True
