"""How late flights have lately arrived: by carrier, by route, by airport of origin and of destination.

A flight counts from its arrival on, its actual one, in UTC: before, nobody knows how late it will be. So a row of a
table has the moment at which the newest arrival of its window became known, and a flight is joined with the newest row
that was known at its departure. Who took the schedule for that moment would train on the future.

It needs pandas and numpy alone, and is the same code for a training run and for the feature store.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.entities.tables import Tables
from training.families.flights.entities import ENTITIES, ROLLING, Rolling

_DECLARED = replace(ENTITIES, lookups=tuple(found for found in ENTITIES.lookups if not found.kept))


def arrived(flights: pd.DataFrame) -> "pd.Series[Any]":
    """Return the moment at which each flight arrived, in UTC: from then on its delay is known; NaT where nobody knows.

    Args:
        flights: As departures.py has them.
    """
    minutes = pd.to_timedelta(flights["duration"] + flights["delay"], unit="min")
    return (flights["departure_utc"] + minutes).dt.as_unit("s")


def tables(flights: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Compute the rolling delays of flights, in whatever order they are.

    Returns:
        {table: its key as text; `time`, UTC seconds since 1970, and `known`, the same as a timestamp; the mean delay in
        minutes and the number of arrivals}: a row for each moment at which a flight of a key arrived.
    """
    moments = arrived(flights)
    seen = flights[moments.notna()].assign(time=_seconds(moments.dropna()))
    return {rolling.table: _table(seen, rolling) for rolling in ROLLING}


def joined(flights: pd.DataFrame) -> pd.DataFrame:
    """Add to each flight the delays that were known at its departure; NaN where none were."""
    columns = {name: _arrays(table) for name, table in tables(flights).items()}
    source, at = Tables(_DECLARED, columns), _seconds(flights["departure_utc"])
    added = {}
    for lookup in _DECLARED.lookups:
        keys = {column: flights[name].to_numpy(str) for column, name in lookup.key.items()}
        found = source.find(lookup, keys, at)
        for name, values in found.values.items():
            added[name] = np.where(found.known[name], values, np.nan).astype(np.float64)
    return flights.assign(**added)


def _table(seen: pd.DataFrame, rolling: Rolling) -> pd.DataFrame:
    """Compute the arrivals of the window that ends with each arrival, of one key after the other.

    Delays are whole minutes, and so are their sums exact, in whatever order they are added up.
    """
    key = seen.groupby([*rolling.key], sort=True).ngroup().to_numpy(np.int64)
    time, delay = seen["time"].to_numpy(), seen["delay"].to_numpy().astype(np.int64)
    order = np.lexsort((time, key))
    key, time, total = key[order], time[order], np.concatenate([[0], np.cumsum(delay[order])])
    # All keys on one line, further apart than a window is long.
    place = key * (np.ptp(time) + rolling.window_s + 1) + time if len(time) else time
    last = np.flatnonzero(np.append(place[1:] != place[:-1], True)[: len(place)])  # of several at once
    first = np.searchsorted(place, place[last] - rolling.window_s, side="right")
    count = last + 1 - first
    # What a float32 can be: no rounding on the way to the model makes a difference.
    mean = ((total[last + 1] - total[first]) / count).astype(np.float32).astype(np.float64)
    values = dict(zip(rolling.features, (mean, count.astype(np.float64)), strict=True))
    keys = {column: seen[column].to_numpy()[order[last]] for column in rolling.key}
    moments = pd.to_datetime(time[last], unit="s", utc=True)
    return pd.DataFrame({**keys, "time": time[last], "known": moments, **values})


def _arrays(table: pd.DataFrame) -> Mapping[str, NDArray[Any]]:
    return {
        str(name): values.to_numpy(str if name in ("carrier", "origin", "destination") else None)
        for name, values in table.drop(columns="known").items()
    }


def _seconds(moments: "pd.Series[Any]") -> NDArray[np.int64]:
    seconds: NDArray[np.int64] = moments.dt.as_unit("s").astype("int64").to_numpy()
    return seconds
