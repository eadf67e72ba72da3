"""What was known of each flight at its scheduled departure, and whether it came more than 30 minutes late.

A flight is joined with the weather of the last full hour before it, with its plane, and with the time zone of where it
goes. All joins in time are in UTC: by local time 1:30 of 3 November 2013 is two hours, and 2:30 of 10 March none.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from training.families.flights.entities import HOUR_S, PLANE, STALE_S, WEATHER
from training.families.flights.features import serving

LATE_MINUTES = 30
# They lie in airports.csv no more than they did in the FAA's list that it was made of.
_ZONES_LEFT_OUT = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")


@dataclass(frozen=True)
class Tables:
    """The files as they are, a row each flight, plane, airport, and hour of weather at an origin."""

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame
    airports: pd.DataFrame


def read(directory: Path) -> Tables:
    """Read the four files. "NA" is missing, but in no column of codes: none is called so."""
    codes = dict.fromkeys(("carrier", "tailnum", "origin", "dest", "faa", "tzone"), "str")
    files = ("flights.csv.zip", "weather.csv", "planes.csv", "airports.csv")
    return Tables(*(pd.read_csv(directory / name, dtype=codes) for name in files))


def departures(tables: Tables) -> pd.DataFrame:
    """Join the tables: a row each flight that arrived where it was bound for, in the order of their departures.

    Cancelled and diverted flights are left out, as they have no delay of their arrival: 9,430 of all.

    Returns:
        carrier, flight, origin, destination as text; departure, naive local time; departure_utc; duration in minutes
        and distance in miles; what is known of the plane and of the weather; the delay of the arrival in minutes, and
        late. Missing numbers are NaN.
    """
    flights = tables.flights[tables.flights["arr_delay"].notna()]
    local, utc = _departure(flights)
    found = pd.DataFrame(
        {
            "carrier": flights["carrier"],
            "flight": flights["flight"].astype("str"),
            "origin": flights["origin"],
            "destination": flights["dest"],
            "departure": local,
            "departure_utc": utc,
            "duration": (_arrival_utc(flights, local, utc, tables.airports) - utc) / pd.Timedelta(minutes=1),
            "distance": flights["distance"].astype("float64"),
            "tailnum": flights["tailnum"],
            "delay": flights["arr_delay"].astype("float64"),
            "late": flights["arr_delay"] > LATE_MINUTES,
        }
    )
    order = ["departure_utc", "origin", "carrier", "flight"]
    found = _with_planes(found, tables.planes).sort_values(order, kind="stable", ignore_index=True)
    return _believed(_with_weather(found, weather(tables)).drop(columns="tailnum"))


def _believed(flights: pd.DataFrame) -> pd.DataFrame:
    """Take numbers that nobody can have measured for missing: a wind of 1,048 miles an hour, say."""
    for name, (low, high) in serving.RANGES.items():
        if name in flights:
            flights[name] = flights[name].where(flights[name].between(low, high))
    return flights


def _departure(flights: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the scheduled departure, in naive local time and in UTC.

    The file's `time_hour` is the hour in UTC, and so tells the two hours of 3 November apart.
    """
    minute = pd.to_timedelta(flights["minute"], unit="m")
    days = pd.to_datetime(flights[["year", "month", "day"]])
    local = days + pd.to_timedelta(flights["hour"], unit="h") + minute
    return local, pd.to_datetime(flights["time_hour"], utc=True) + minute


def _arrival_utc(flights: pd.DataFrame, local: pd.Series, utc: pd.Series, airports: pd.DataFrame) -> pd.Series:
    """Return the scheduled arrival in UTC; NaT where nobody knows the airport's time zone.

    It is given as local time at the destination, without a day: the first such time after the departure. Of a doubled
    hour it is the first that is after the departure, and a time that does not exist is as much later.
    """
    zones = {**dict(zip(airports["faa"], airports["tzone"], strict=True)), **_ZONES_LEFT_OUT}
    clock = pd.to_timedelta(flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100, unit="m")
    parts = [
        _first_after(utc[part.index], clock[part.index], str(zone))
        for zone, part in flights.groupby(flights["dest"].map(zones))
    ]
    return pd.concat(parts).reindex(flights.index)


def _first_after(utc: pd.Series, clock: pd.Series, zone: str) -> pd.Series:
    """Return when the clocks of a zone show that time for the first time after `utc`."""
    day = utc.dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()
    found = pd.Series(pd.NaT, index=utc.index, dtype=utc.dtype)
    for days in (0, 1):
        local = day + pd.Timedelta(days=days) + clock
        for summer in (True, False):  # of a doubled hour the one in summer time is the first
            then = local.dt.tz_localize(zone, ambiguous=np.full(len(local), summer), nonexistent="shift_forward")
            found = found.fillna(then.dt.tz_convert("UTC").where(lambda then: then > utc))
    return found


def _with_planes(flights: pd.DataFrame, planes: pd.DataFrame) -> pd.DataFrame:
    known = planes[["tailnum", "year", "seats"]].set_axis(["tailnum", *PLANE], axis="columns")
    return flights.merge(known, on="tailnum", how="left", validate="many_to_one")


def weather(tables: Tables) -> pd.DataFrame:
    """Return origin, its weather by the hour, and two moments of each hour.

    They are `time`, UTC seconds since 1970 at which it begins, and `known`, the timestamp at which it is over.
    """
    begin = pd.to_datetime(tables.weather["time_hour"], utc=True).dt.as_unit("s")
    known = begin + pd.Timedelta(seconds=HOUR_S)
    return tables.weather[["origin", *WEATHER]].assign(time=begin.astype("int64"), known=known)


def _with_weather(flights: pd.DataFrame, hours: pd.DataFrame) -> pd.DataFrame:
    """Add the weather of the last full hour: it is over when the flight departs, at 6:00 as well as at 6:59."""
    hours = hours.assign(known=hours["known"].astype(flights["departure_utc"].dtype))
    return pd.merge_asof(
        flights,
        hours.sort_values("known"),
        left_on="departure_utc",
        right_on="known",
        by="origin",
        tolerance=pd.Timedelta(seconds=STALE_S),
    ).drop(columns=["known", "time"])
