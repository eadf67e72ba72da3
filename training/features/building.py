"""Training rows with their features: `python -m training features build FAMILY`. Runs where Feast is.

What is computed from rows becomes tables; Feast's point-in-time join gives each row what was known at its moment. Every
row is there once afterwards, or nothing is written.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from contracts import layout
from training.errors import FeatureError
from training.families import Features
from training.features import declared, files, leakage
from training.features.joining import joins, time_of


def run(options: argparse.Namespace) -> int:
    """Do what the command says."""
    started, features = time.monotonic(), declared.of(options.family)
    say: Callable[[str], None] = (lambda line: None) if options.json else (lambda line: print(line, flush=True))
    count, known = build(options.family, features, say)
    target, seconds = declared.joined(options.family, features), time.monotonic() - started
    if options.json:
        print(json.dumps({"file": str(target), "rows": count, "known": known, "seconds": round(seconds, 1)}))
        return 0
    print(f"Wrote {layout.shown(target)}: {count:,} rows, in {seconds:.0f} s")
    print(f"Next: python -m training fit {options.family} --data.prepared {layout.shown(target)}")
    return 0


def build(family: str, features: Features, say: Callable[[str], None] = print) -> tuple[int, dict[str, float]]:
    """Compute the tables, join, check, and write.

    Returns:
        How many rows there are, and {view: the share of them of which it knows something}.

    Raises:
        FeatureError: the rows are not there; a feature was computed with the future; rows were lost or doubled.
    """
    source = declared.rows(family, features)
    rows = files.read(source, f"python -m training data transform {family}")
    if rows.empty:
        raise FeatureError(f"{layout.shown(source)} has no rows")
    compared = leakage.check_computed(features, rows)
    say(f"  no future in them: {compared:,} values are the same without what came after them")
    for name, table in features.computed(rows).items():
        files.write(table, declared.table(family, name))
        say(f"  {name}: {len(table):,} rows")
    known: dict[str, float] = {}
    columns: dict[str, Any] = {}
    with joins(family, features) as opened:
        for lookup in features.declaration.views:
            found = opened.join(lookup, rows, features.moment)
            columns |= {fill.name: found[fill.column] for fill in lookup.fills}
            known[lookup.view] = float(found[time_of(lookup)].notna().mean())
            say(f"  {lookup.view}: known of {known[lookup.view]:.1%} of {len(found):,} rows")
    files.write(rows.assign(**columns), declared.joined(family, features))
    return len(rows), known
