"""What the network takes of a flight: categories as numbers of a vocabulary, and numbers, NaN where one is missing.

Training reads its rows through this file as well (training/families/flights/data.py), so that the two cannot differ.
It imports nothing but numpy.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CATEGORIES = ("carrier", "origin", "destination")
UNKNOWN = 0  # the number of a category that is in no vocabulary
# What a request brings, and what is believed of it; the network also takes the minute of the day and the day of the
# week, Monday is 0. In minutes, miles, years, °F, %, degrees, miles an hour, inches, millibars and miles; at last how
# late the carrier's, the route's and the airports' flights have lately arrived, in minutes, and how many did.
RANGES: Mapping[str, tuple[float, float]] = {
    "duration": (1, 1440),
    "distance": (1, 12500),
    "plane_year": (1903, 2100),
    "plane_seats": (1, 1000),
    "temp": (-80, 140),
    "dewp": (-120, 100),
    "humid": (0, 100),
    "wind_dir": (0, 360),
    "wind_speed": (0, 250),
    "wind_gust": (0, 300),
    "precip": (0, 20),
    "pressure": (850, 1100),
    "visib": (0, 200),
    "carrier_delay": (-600, 3000),
    "carrier_arrivals": (1, 10000),
    "route_delay": (-600, 3000),
    "route_arrivals": (1, 10000),
    "origin_delay": (-600, 3000),
    "origin_arrivals": (1, 10000),
    "destination_delay": (-600, 3000),
    "destination_arrivals": (1, 10000),
}
NUMBERS = ("minute", "weekday", *RANGES)  # the columns of `numbers`, in their order

_YEARS = (2007, 2100)  # from then on clocks change as they do today
_LONGEST = 40  # characters of a departure, and of what an error repeats of a request
_EST, _EDT = timedelta(hours=-5), timedelta(hours=-4)
_SUNDAY = 6

Vocabularies = Mapping[str, Mapping[str, int]]  # {category: {name: its number}}


class FeatureError(Exception):
    """A flight is not what a request may bring; says what was found, and what is expected."""


def read_vocabularies(path: Path) -> Vocabularies:
    """Read {category: names}; a name's number is its place, counted from 1."""
    names = json.loads(path.read_text(encoding="utf-8"))
    return {category: {name: place for place, name in enumerate(names[category], 1)} for category in CATEGORIES}


def encode(
    texts: Mapping[str, Sequence[str]],
    departures: Sequence[datetime],
    numbers: Mapping[str, NDArray[np.floating]],
    vocabularies: Vocabularies,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return categories [N, 3] and numbers [N, 23] of N flights.

    Args:
        texts: {category: [N]}.
        departures: As the clocks in New York show them.
        numbers: {a name of RANGES: [N]}.
    """
    categories = [[vocabularies[name].get(text, UNKNOWN) for text in texts[name]] for name in CATEGORIES]
    columns = [
        np.array([at.hour * 60 + at.minute for at in departures]),
        np.array([at.weekday() for at in departures]),
        *(numbers[name] for name in RANGES),
    ]
    return np.stack(categories, axis=1).astype(np.int32), np.stack(columns, axis=1).astype(np.float32)


def check_number(name: str, value: float) -> None:
    """Refuse a number that nobody can have measured; NaN is a missing one.

    Raises:
        FeatureError: it is infinite, or out of its range.
    """
    low, high = RANGES[name]
    if not (math.isnan(value) or low <= value <= high):
        raise FeatureError(f"{name} is {value:g}, outside of {low:g} to {high:g}; NaN where it is not known")


def read_text(name: str, value: bytes) -> str:
    """Decode a text.

    Raises:
        FeatureError: it is not UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise FeatureError(f"{name} is not UTF-8: {shown(value)}") from None


def read_departure(text: str) -> datetime:
    """Read a scheduled departure; return what the clocks in New York show then.

    Args:
        text: "2013-11-03T05:40", as they show it; or the same with an offset, as in "2013-11-03T05:40-05:00".

    Raises:
        FeatureError: it is no such time, or one that does not exist, as their hour from 2:00 of a Sunday in March.
    """
    try:
        if not len(text) <= _LONGEST or "T" not in text:  # a day alone would be midnight
            raise ValueError
        at = datetime.fromisoformat(text)
    except ValueError:
        raise FeatureError(f'departure is no time: {shown(text)}; as in "2013-11-03T05:40"') from None
    if not _YEARS[0] < at.year < _YEARS[1]:
        raise FeatureError(f"departure is in {at.year}, outside of {_YEARS[0] + 1} to {_YEARS[1] - 1}")
    if at.tzinfo is not None:
        return _in_new_york(at)
    begin, _ = _summer(at.year)
    if begin <= at < begin + timedelta(hours=1):
        raise FeatureError(f"departure does not exist: {text}, as clocks go from 2:00 to 3:00 on that day")
    return at


def shown(value: object) -> str:
    """Return the start of what a client sent, in ASCII and on one line."""
    return ascii(value[:_LONGEST] if isinstance(value, str | bytes) else value)


def _in_new_york(at: datetime) -> datetime:
    utc = at.astimezone(UTC).replace(tzinfo=None)
    begin, end = _summer(at.year)
    return utc + (_EDT if begin - _EST <= utc < end - _EDT else _EST)


def _summer(year: int) -> tuple[datetime, datetime]:
    """Return when clocks are put forward and back: at 2:00 of the second Sunday in March and the first in November.

    By the law of 2007, as a machine may have no database of time zones.
    """
    march, november = datetime(year, 3, 8, 2), datetime(year, 11, 1, 2)  # clocks, not instants
    return tuple(day + timedelta(days=_SUNDAY - day.weekday()) for day in (march, november))  # type: ignore[return-value]
