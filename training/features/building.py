"""Training rows with their features: `python -m training features build FAMILY`. Runs where Feast is.

What is computed from rows becomes tables; Feast's point-in-time join gives each row what was known at its moment. Every
row is there once afterwards, or nothing is written.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from contracts import layout
from contracts.entities.declaration import Lookup
from training.errors import FeatureError
from training.features import declared, files, leakage, store
from training.features.declared import KNOWN, Features

_ROW, _MOMENT = "row", "event_timestamp"  # Feast looks for a moment of this name


def run(options: argparse.Namespace) -> int:
    """Do what the command says."""
    started, features = time.monotonic(), declared.of(options.family)
    say: Callable[[str], None] = (lambda line: None) if options.json else (lambda line: print(line, flush=True))
    known = build(options.family, features, say)
    target, seconds = declared.joined(options.family, features), time.monotonic() - started
    if options.json:
        count = len(files.read(target, ""))
        print(json.dumps({"file": str(target), "rows": count, "known": known, "seconds": round(seconds, 1)}))
        return 0
    print(f"Wrote {layout.shown(target)} in {seconds:.0f} s")
    print(f"Next: python -m training fit {options.family} --data.prepared {layout.shown(target)}")
    return 0


def build(family: str, features: Features, say: Callable[[str], None] = print) -> dict[str, float]:
    """Compute the tables, join, check, and write.

    Returns:
        {view: the share of the rows of which it knows something}.

    Raises:
        FeatureError: the rows are not there; a feature was computed with the future; rows were lost or doubled.
    """
    rows = files.read(declared.rows(family, features), f"python -m training data transform {family}")
    if rows.empty:
        raise FeatureError(f"{layout.shown(declared.rows(family, features))} has no rows")
    for name, table in features.computed(rows).items():
        files.write(table, declared.table(family, name))
        say(f"  {name}: {len(table):,} rows")
    compared = leakage.check_computed(features, rows)
    say(f"  no future in it: {compared:,} values are the same without what came after them")
    known, columns = {}, {}
    with tempfile.TemporaryDirectory(prefix="features-") as scratch:
        opened = store.offline(family, features, Path(scratch))
        for lookup in features.declaration.views:
            _check_table(family, lookup)
            found = joined(opened, lookup, rows, features.moment)
            columns |= {fill.name: found[fill.column] for fill in lookup.fills}
            known[lookup.view] = float(found[_time(lookup)].notna().mean())
            say(f"  {lookup.view}: known of {known[lookup.view]:.1%} of {len(found):,} rows")
    files.write(rows.assign(**columns), declared.joined(family, features))
    return known


def joined(opened: "store.FeatureStore", lookup: Lookup, rows: pd.DataFrame, moment: str) -> pd.DataFrame:
    """Join a view with rows, as of their moments, by Feast.

    Returns:
        A row for each of `rows`, in their order: the time of the view's row, NaN where none is known, and its values.

    Raises:
        FeatureError: rows were lost or doubled, or something was not known at its moment.
    """
    keys = pd.DataFrame({column: rows[name].to_numpy() for column, name in lookup.key.items()})
    moments = rows[moment].dt.as_unit("us").reset_index(drop=True)
    asked = keys.assign(**{_MOMENT: moments}).drop_duplicates(ignore_index=True)
    names = [_time(lookup), *(fill.column for fill in lookup.fills)]
    answer = opened.get_historical_features(asked, [f"{lookup.view}:{name}" for name in names]).to_df()
    if len(answer) != len(asked) or answer[[*keys, _MOMENT]].duplicated().any():
        raise FeatureError(f"{lookup.view}: {len(answer):,} rows came back of {len(asked):,}")
    answer[_MOMENT] = answer[_MOMENT].dt.as_unit("us")
    whole = keys.assign(**{_MOMENT: moments}).merge(answer, on=[*keys, _MOMENT], how="left", validate="many_to_one")
    if len(whole) != len(rows):
        raise FeatureError(f"{lookup.view}: {len(whole):,} rows of {len(rows):,}")
    leakage.check_joined(lookup, keys, moments, whole[_time(lookup)])
    return whole[names].set_axis(rows.index)


def _time(lookup: Lookup) -> str:
    assert lookup.as_of is not None  # of a view
    return lookup.as_of.column


def _check_table(family: str, lookup: Lookup) -> None:
    """Hold a table to what its view is declared as: Feast would say less of it, or nothing.

    Raises:
        FeatureError: it lacks a column, or two rows have the same key and moment: which one counts, nobody could say.
    """
    path = declared.table(family, lookup.table)
    table = files.read(path, f"python -m training data transform {family}")
    wanted = [*lookup.key, _time(lookup), KNOWN, *(fill.column for fill in lookup.fills)]
    if lacking := [name for name in wanted if name not in table]:
        raise FeatureError(
            f"{layout.shown(path)} has no column {', '.join(lacking)}", note=f"it has {', '.join(table)}"
        )
    if (twice := table.duplicated([*lookup.key, KNOWN])).any():
        row = table.loc[twice, [*lookup.key, KNOWN]].iloc[0]
        raise FeatureError(f"{layout.shown(path)} has two rows of {' '.join(map(str, row))}")
