"""What is expected of what training reads: every flight that arrived, once, and no feature made of the future."""

from collections.abc import Mapping
from typing import Any

import great_expectations.expectations as gx
import numpy as np
import pandas as pd

from training.families.flights.features import serving
from training.families.flights.stages import PREPARED

_KNOWN = "_known"  # how a column ends that says when the features before it became known
_FLIGHT = ["departure_utc", "carrier", "flight", "origin", "destination"]
# How well a feature by itself may tell late flights from others, as an AUC; the best honest one, a delay of the hours
# before, reaches 0.7, and a delay that is the flight's own 1.
_MOST_TELLING = 0.85


def tables(family: Any, parameters: Mapping[str, Mapping[str, Any]]) -> Mapping[str, pd.DataFrame]:
    """Return the departures, and a row each feature: what it tells, and by how long it was known before a departure."""
    flights = pd.read_parquet(family.processed / PREPARED)
    before = pd.read_parquet(family.interim / PREPARED, columns=["departure"])
    month = flights["departure"].dt.month
    counted = flights.assign(month=month, rows_before=len(before), rows_now=len(flights))
    return {"departures": counted, "features": _features(flights)}


def suites(parameters: Mapping[str, Mapping[str, Any]]) -> Mapping[str, list[Any]]:
    """Return what is expected of the departures and of each feature, for the months of `ingest`."""
    months: list[int] = parameters["ingest"]["months"]
    return {
        "departures": [
            *(gx.ExpectColumnToExist(column=name) for name in ("departure", *_FLIGHT, "late", *serving.RANGES)),
            gx.ExpectColumnPairValuesToBeEqual(column_A="rows_now", column_B="rows_before"),
            gx.ExpectCompoundColumnsToBeUnique(column_list=_FLIGHT),
            gx.ExpectColumnDistinctValuesToEqualSet(column="month", value_set=sorted(set(months))),
            gx.ExpectColumnValuesToBeInSet(column="origin", value_set=["EWR", "JFK", "LGA"]),
            *(gx.ExpectColumnValuesToNotBeNull(column=name) for name in ("late", "duration", "distance")),
            # What serving refuses in a request is in no row of training.
            *(
                gx.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
                for name, (low, high) in serving.RANGES.items()
            ),
            gx.ExpectColumnMeanToBeBetween(column="late", min_value=0.02, max_value=0.5),
            gx.ExpectColumnMeanToBeBetween(column="duration", min_value=60, max_value=360),
        ],
        "features": [
            gx.ExpectColumnValuesToBeBetween(column="telling", min_value=0, max_value=_MOST_TELLING),
            gx.ExpectColumnValuesToBeBetween(column="known_before_s", min_value=0),
        ],
    }


def _features(flights: pd.DataFrame) -> pd.DataFrame:
    """Return a row each number: its AUC, whichever way it points, and the least seconds between known and departure."""
    late = flights["late"].to_numpy(bool)
    rows = []
    for name in flights.select_dtypes("number").columns.difference(["late", "month"]):
        rows.append({"feature": name, "telling": _telling(flights[name], late), "known_before_s": np.nan})
    for name in (column for column in flights.columns if column.endswith(_KNOWN)):
        least = (flights["departure_utc"] - pd.to_datetime(flights[name], utc=True)).min()
        rows.append({"feature": name, "telling": np.nan, "known_before_s": least.total_seconds()})
    return pd.DataFrame(rows)


def _telling(values: pd.Series, late: np.ndarray[Any, Any]) -> float:
    """Return the area under the ROC curve of a column, or of its opposite (Mann-Whitney); NaN is left out."""
    there = values.notna().to_numpy()
    ranks, positive = values[there].rank().to_numpy(), late[there]
    count = int(positive.sum())
    if not 0 < count < len(positive):
        return float("nan")
    area = (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count))
    return float(max(area, 1 - area))
