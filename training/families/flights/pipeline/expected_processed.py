"""What is expected of what training reads: every flight that arrived, once, and no feature made of the future."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import great_expectations.expectations as gx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.families.flights.entities import ROLLING, Rolling
from training.families.flights.features import serving
from training.families.flights.pipeline.stages import PREPARED

_OFTEN_KNOWN = ("duration", "temp", "wind_speed", "pressure", *(name for each in ROLLING for name in each.features))
_FLIGHT = ["departure_utc", "carrier", "flight", "origin", "destination"]
# How well a feature by itself may tell late flights from others, as an AUC: the best honest one, how late the carrier
# has been in the last hours, reaches 0.71, and one that knows the answer 1.
_MOST_TELLING = 0.85


def tables(family: Any, parameters: Mapping[str, Mapping[str, Any]]) -> Mapping[str, pd.DataFrame]:
    """Return the departures, a row each feature with what it tells, and a row each view with what was not yet known."""
    flights = pd.read_parquet(family.processed / PREPARED)
    before = pd.read_parquet(family.interim / PREPARED, columns=["departure"])
    month = flights["departure"].dt.month
    counted = flights.assign(month=month, rows_before=len(before), rows_now=len(flights))
    return {"departures": counted, "features": _features(flights), "views": _views(flights, family.interim)}


def suites(parameters: Mapping[str, Mapping[str, Any]]) -> Mapping[str, list[Any]]:
    """Return what is expected of the departures, of each feature and of each view, for the months of `ingest`."""
    months: list[int] = parameters["ingest"]["months"]
    return {
        "departures": [
            *(gx.ExpectColumnToExist(column=name) for name in ("departure", *_FLIGHT, "late", *serving.RANGES)),
            gx.ExpectColumnPairValuesToBeEqual(column_A="rows_now", column_B="rows_before"),
            gx.ExpectCompoundColumnsToBeUnique(column_list=_FLIGHT),
            gx.ExpectColumnDistinctValuesToEqualSet(column="month", value_set=sorted(set(months))),
            gx.ExpectColumnValuesToBeInSet(column="origin", value_set=["EWR", "JFK", "LGA"]),
            *(gx.ExpectColumnValuesToNotBeNull(column=name) for name in ("departure", *_FLIGHT, "late", "distance")),
            # Some hours have no weather, and at the begin of a day few flights have arrived lately.
            *(gx.ExpectColumnValuesToNotBeNull(column=name, mostly=0.2) for name in _OFTEN_KNOWN),
            # What serving refuses in a request is in no row of training.
            *(
                gx.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
                for name, (low, high) in serving.RANGES.items()
            ),
            gx.ExpectColumnMeanToBeBetween(column="late", min_value=0.02, max_value=0.5),
            gx.ExpectColumnMeanToBeBetween(column="duration", min_value=60, max_value=360),
        ],
        "features": [
            gx.ExpectColumnValuesToBeUnique(column="feature"),
            gx.ExpectColumnValuesToBeBetween(column="telling", min_value=0, max_value=_MOST_TELLING),
        ],
        "views": [
            gx.ExpectColumnDistinctValuesToEqualSet(column="view", value_set=[rolling.table for rolling in ROLLING]),
            gx.ExpectColumnValuesToBeBetween(column="not_of_then", min_value=0, max_value=0),  # nothing of the future
        ],
    }


def _features(flights: pd.DataFrame) -> pd.DataFrame:
    """Return a row each feature: how well it tells late flights from others by itself."""
    late = flights["late"].to_numpy(bool)
    return pd.DataFrame(
        {"feature": name, "telling": _telling(flights[name], late)} for name in serving.RANGES if name in flights
    )


def _views(flights: pd.DataFrame, interim: Path) -> pd.DataFrame:
    """Return a row each table of rolling delays: how many flights have another value than was known at departure.

    It is not asked how the values were joined: pandas looks them up once more.
    """
    rows = [{"view": rolling.table, "not_of_then": _not_of_then(flights, interim, rolling)} for rolling in ROLLING]
    return pd.DataFrame(rows)


def _not_of_then(flights: pd.DataFrame, interim: Path, rolling: Rolling) -> int | None:
    key, names = [*rolling.key], [*rolling.features]
    if not {*key, *names} <= set(flights):
        return None
    own = flights[["departure_utc", *key, *names]].assign(at=_instants(flights["departure_utc"]))
    table = pd.read_parquet(interim / f"{rolling.table}.parquet", columns=["known", *key, *names])
    table = table.assign(at=_instants(table["known"])).sort_values("at")
    age = pd.Timedelta(seconds=rolling.window_s)
    both = pd.merge_asof(own.sort_values("at"), table, on="at", by=key, tolerance=age, suffixes=("", "_then"))
    differs = np.zeros(len(both), bool)
    for name in names:
        now, then = both[name].to_numpy(np.float64), both[f"{name}_then"].to_numpy(np.float64)
        differs |= (now != then) & ~(np.isnan(now) & np.isnan(then))
    return int(differs.sum())


def _instants(moments: "pd.Series[Any]") -> "pd.Series[Any]":
    return pd.to_datetime(moments, utc=True).dt.as_unit("us")


def _telling(values: "pd.Series[Any]", late: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of a column, or of its opposite (Mann-Whitney); NaN is left out."""
    there = values.notna().to_numpy()
    ranks, positive = values[there].rank().to_numpy(), late[there]
    count = int(positive.sum())
    if not 0 < count < len(positive):
        return float("nan")
    area = (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count))
    return float(max(area, 1 - area))
