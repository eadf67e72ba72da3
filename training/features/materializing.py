"""The newest row of each key into the online store: `python -m training features materialize FAMILY`.

It goes on where the last one ended, and reads no further back than rows may still be served (intervals.py). To do it
twice writes the same; one that was killed is done again from where it began, as its end is noted last. One runs at a
time.
"""

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow.compute
import pyarrow.parquet

from contracts import layout
from contracts.entities.declaration import Lookup
from contracts.files.locks import locked
from training.errors import FeatureError
from training.families import Features
from training.features import declared, store
from training.features.command_line import PROGRAM
from training.features.declared import KNOWN
from training.features.intervals import interval, told


@dataclass(frozen=True)
class Written:
    """What was written of a view: of rows that became known between two moments, the newest of each key."""

    view: str
    since: datetime
    until: datetime
    keys: int


def run(options: argparse.Namespace) -> int:
    """Do what the command says."""
    started, features = time.monotonic(), declared.of(options.family)
    say: Callable[[str], None] = (lambda line: None) if options.json else (lambda line: print(line, flush=True))
    written = materialize(
        options.family, features, options.store, to=options.to, again=options.again, anew=options.anew, say=say
    )
    if options.json:
        print(json.dumps([asdict(each) for each in written], default=datetime.isoformat))
        return 0
    until = max((each.until for each in written), default=None)
    print(f"The online store has what was known by {told(until)}, in {time.monotonic() - started:.1f} s")
    print(f"Next: {PROGRAM} serve {options.family}{'' if options.store == 'sqlite' else f' --store {options.store}'}")
    return 0


def materialize(
    family: str,
    features: Features,
    name: str,
    *,
    to: datetime | None = None,
    again: bool = False,
    anew: bool = False,
    say: Callable[[str], None] = print,
) -> list[Written]:
    """Write the newest row of each key, of all views.

    Args:
        name: Of the store's configuration.
        to: Up to when; None, or later: the newest row that is known by now.
        again: Also what was written before, as far back as it may be served.
        anew: Empty the online store first.

    Raises:
        FeatureError: a table is not there, the store cannot be reached, or it is further already.
    """
    ends = {lookup.view: newest(family, lookup) for lookup in features.declaration.views}
    home = declared.home(family)
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "materialize.lock"):
        opened = store.opened(family, features, name)
        with store.reached(name):
            if anew:
                with _silenced():
                    opened.apply(opened.list_entities(), objects_to_delete=opened.list_feature_views(), partial=False)
                opened = store.opened(family, features, name)
            written = []
            for lookup in features.declaration.views:
                before, served = last(opened, lookup.view), store.ttl(lookup)
                since, until = interval(
                    lookup.view, newest=ends[lookup.view], before=before, served=served, to=to, again=again
                )
                written.append(Written(lookup.view, since, until, _keys(family, lookup, since, until)))
                with _silenced():
                    opened.materialize(since, until, [lookup.view])
                say(f"  {lookup.view}: {written[-1].keys:,} keys, since {told(since)}")
    return written


def last(opened: Any, view: str) -> datetime | None:
    """Return up to when a view was materialised; None: never."""
    found = opened.get_feature_view(view).most_recent_end_time
    return None if found is None else found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)


def newest(family: str, lookup: Lookup) -> datetime:
    """Return when the newest row of a view's table became known.

    Raises:
        FeatureError: there is no table, or nothing in it.
    """
    path = declared.table(family, lookup.table)
    try:
        column = pyarrow.parquet.read_table(path, columns=[KNOWN])[KNOWN]
    except (FileNotFoundError, ValueError) as error:
        hint = f"{PROGRAM} build {family}"
        raise FeatureError(f"there is no table {layout.shown(path)}", note=str(error)[:200], hint=hint) from error
    if not len(column):
        raise FeatureError(f"{layout.shown(path)} has no rows")
    found: datetime = pd.Timestamp(pyarrow.compute.max(column).as_py()).to_pydatetime()
    return found.astimezone(UTC)


def _keys(family: str, lookup: Lookup, since: datetime, until: datetime) -> int:
    within = [(KNOWN, ">=", pd.Timestamp(since)), (KNOWN, "<=", pd.Timestamp(until))]
    table = pyarrow.parquet.read_table(declared.table(family, lookup.table), columns=list(lookup.key), filters=within)
    return int(table.group_by(list(lookup.key)).aggregate([]).num_rows)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep Feast's own lines and bars away."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
