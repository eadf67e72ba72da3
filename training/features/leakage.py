"""Whether a feature was computed with the future. Two looks, as each misses what the other finds.

What was joined is compared with the moment: no value may have become known after it. That believes the event time.

So features are computed once more without the future: of all that happened, only what was known by some moment is kept,
and what was known of each key at that moment must be the very same. A window that looks ahead, a mean over the whole
year, or a schedule taken for the arrival are found by that, whatever their event time says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.entities.declaration import Lookup
from training.errors import FeatureError
from training.families import Features
from training.features.declared import KNOWN

MOMENTS = 8  # at which the past alone is computed with; each costs what computing everything does
_SHOWN = 3


@dataclass(frozen=True)
class Leak:
    """A value that was not known at its moment."""

    view: str
    key: str
    moment: pd.Timestamp
    why: str

    def __str__(self) -> str:
        return f"{self.view} of {self.key} at {self.moment.isoformat()}: {self.why}"


def check_joined(lookup: Lookup, keys: pd.DataFrame, moments: "pd.Series[pd.Timestamp]", times: pd.Series) -> None:
    """Hold joined rows against their moments.

    Args:
        keys: Of each row.
        moments: As of which they were joined, in UTC.
        times: Of the rows of the table that were joined, in UTC seconds; NaN where there was none.

    Raises:
        FeatureError: a row was known only after its moment, or has been forgotten by then.
    """
    assert lookup.as_of is not None
    at = moments.dt.as_unit("s").astype("int64")
    most = lookup.as_of.most_age_s
    early = times + lookup.as_of.lag_s > at
    late = (at - times > most) if most is not None else early & False
    for wrong, why in ((early, "known only after it"), (late, f"older than {most} s")):
        if wrong.any():
            found = [
                Leak(lookup.view, " ".join(map(str, keys.loc[row])), moments.loc[row], why)
                for row in wrong[wrong].index[:_SHOWN]
            ]
            raise _refused(found, int(wrong.sum()))


def check_computed(features: Features, rows: pd.DataFrame, moments: int = MOMENTS, seed: int = 0) -> int:
    """Compute the features with the past alone, as of some moments, and compare.

    Args:
        moments: How many, drawn among those of the rows, beside the first of all.

    Returns:
        How many values were compared.

    Raises:
        FeatureError: a value is another one without the future.
    """
    known, compared = features.known(rows), 0
    whole = features.computed(rows)
    views = {lookup.table: lookup for lookup in features.declaration.views if lookup.table in whole}
    chance = np.random.default_rng(seed)
    places = chance.choice(len(rows), min(moments, len(rows)), replace=False)
    for moment in (rows[features.moment].min(), *rows[features.moment].iloc[sorted(places)]):
        past = features.computed(rows[known <= moment])
        for name, lookup in views.items():
            before, after = (_newest(tables[name], lookup, moment) for tables in (past, whole))
            leaks = [*_differences(lookup, before, after, moment)]
            if leaks:
                raise _refused(leaks, len(leaks))
            compared += after.size
    return compared


def _newest(table: pd.DataFrame, lookup: Lookup, moment: pd.Timestamp) -> pd.DataFrame:
    """Return what is said to be known of each key at a moment."""
    keys = list(lookup.key)
    values = [fill.column for fill in lookup.fills]
    seen = table[table[KNOWN] <= moment].sort_values(KNOWN, kind="stable")
    return seen.drop_duplicates(keys, keep="last").set_index(keys)[values].sort_index()


def _differences(lookup: Lookup, before: pd.DataFrame, after: pd.DataFrame, moment: pd.Timestamp) -> Iterator[Leak]:
    both = before.index.intersection(after.index)
    for key in before.index.symmetric_difference(after.index):
        why = "there is a row of it with the future alone" if key in after.index else "the future takes its row away"
        yield Leak(lookup.view, str(key), moment, why)
    for name in after:
        one, other = before.loc[both, name], after.loc[both, name]
        for key in both[((one != other) & ~(one.isna() & other.isna())).to_numpy()]:
            yield Leak(lookup.view, str(key), moment, f"{name} is {other[key]:g}, and {one[key]:g} without the future")


def _refused(leaks: list[Leak], count: int) -> FeatureError:
    return FeatureError(
        f"features were computed with the future: {count:,} values",
        note="; ".join(map(str, leaks[:_SHOWN])),
        hint="the event time of a value is when the newest of what it was computed from became known",
    )
