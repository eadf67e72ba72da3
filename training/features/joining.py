"""Feast's point-in-time join, some thousand rows at a time.

Feast joins each row with all rows of its key, and keeps the newest that counts: of a year, billions of pairs. Rows of
one month can only need what was known in it and as long before as the view is served: that is all it is given.
"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from contracts.entities.declaration import Lookup
from training.errors import FeatureError
from training.families import Features
from training.features import declared, files, leakage, store
from training.features.declared import KNOWN

_MOMENT = "event_timestamp"  # Feast looks for a moment of this name
_AT_ONCE = 20_000  # rows; more take longer, and fewer cost more calls


class Joins:
    """A store for joins alone, in a folder of its own: it needs no server and no other registry."""

    def __init__(self, family: str, features: Features, folder: Path) -> None:
        self._family, self._folder = family, folder
        self._store = store.offline(family, features, folder)

    def join(self, lookup: Lookup, rows: pd.DataFrame, moment: str) -> pd.DataFrame:
        """Join a view with rows, as of their moments.

        Returns:
            A row for each of `rows`, in their order: the time of the view's row, NaN where none is known, and its
            values.

        Raises:
            FeatureError: the view's table is none, rows were lost or doubled, or something was not known at its moment.
        """
        table = _table(self._family, lookup)
        keys = pd.DataFrame({column: rows[name].to_numpy() for column, name in lookup.key.items()})
        moments = rows[moment].dt.as_unit("us").reset_index(drop=True)
        asked = keys.assign(**{_MOMENT: moments}).drop_duplicates().sort_values(_MOMENT, ignore_index=True)
        begins = range(0, len(asked), _AT_ONCE)
        answer = pd.concat([self._ask(lookup, table, asked[begin : begin + _AT_ONCE]) for begin in begins])
        if len(answer) != len(asked) or answer.duplicated([*keys, _MOMENT]).any():
            raise FeatureError(f"{lookup.view}: {len(answer):,} rows came back of {len(asked):,}")
        whole = keys.assign(**{_MOMENT: moments}).merge(answer, on=[*keys, _MOMENT], how="left", validate="many_to_one")
        times = whole[time_of(lookup)]
        leakage.check_joined(lookup, keys, moments, times)
        return whole[[time_of(lookup), *(fill.column for fill in lookup.fills)]].set_axis(rows.index)

    def _ask(self, lookup: Lookup, table: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
        """Join rows of about one time with what was known by then."""
        oldest = asked[_MOMENT].iloc[0] - store.ttl(lookup) if store.ttl(lookup) else table[KNOWN].min()
        part = table[table[KNOWN].between(oldest, asked[_MOMENT].iloc[-1])]
        part.to_parquet(store.table_in(self._folder, lookup), index=False)
        names = [time_of(lookup), *(fill.column for fill in lookup.fills)]
        with _quiet():
            found = self._store.get_historical_features(asked, [f"{lookup.view}:{name}" for name in names]).to_df()
        return found.assign(**{_MOMENT: found[_MOMENT].dt.as_unit("us")})


@contextmanager
def joins(family: str, features: Features) -> Iterator[Joins]:
    """Open a store for joins."""
    with tempfile.TemporaryDirectory(prefix="features-") as scratch:
        yield Joins(family, features, Path(scratch))


def time_of(lookup: Lookup) -> str:
    """Return the column with the times of a view's rows."""
    assert lookup.as_of is not None  # of a view
    return lookup.as_of.column


def _table(family: str, lookup: Lookup) -> pd.DataFrame:
    """Read a view's table, and hold it to what is declared: Feast would say less of it, or nothing.

    Raises:
        FeatureError: it lacks a column, or two rows have the same key and moment: which one counts, nobody could say.
    """
    path = declared.table(family, lookup.table)
    table = files.read(path, f"python -m training data transform {family}")
    wanted = [*lookup.key, time_of(lookup), KNOWN, *(fill.column for fill in lookup.fills)]
    if lacking := [name for name in wanted if name not in table]:
        note = f"it has {', '.join(map(str, table))}"
        raise FeatureError(f"the table {lookup.table} has no column {', '.join(lacking)}", note=note)
    if (twice := table.duplicated([*lookup.key, KNOWN])).any():
        row = table.loc[twice, [*lookup.key, KNOWN]].iloc[0]
        raise FeatureError(f"the table {lookup.table} has two rows of {' '.join(map(str, row))}", note=str(path))
    return table[wanted]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of one library to another away, and have Ctrl-C be itself: DuckDB makes an error of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except RuntimeError as error:
            if "interrupted" in str(error).lower():
                raise KeyboardInterrupt from error
            raise
