"""What somebody delivers: the four files of a year with every day in it, as expected; and with one fault."""

import csv
import io
import shutil
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from tests.training import made_up_flights as made_up
from tests.training.made_up_flights import NEW_YORK, ROUTES, flight, weather

FLIGHTS, WEATHER = "flights.csv.zip", "weather.csv"
Row = dict[str, str]


def write(folder: Path, hours: tuple[int, ...] = (8, 14, 20)) -> Path:
    """Write 3,285 flights: each day of 2013 at three hours from three airports, late when there was wind."""
    chance = np.random.default_rng(0)
    flights, weathers = [], []
    for day in range(365):
        for hour in hours:
            at = datetime(2013, 1, 1, hour, tzinfo=NEW_YORK) + timedelta(days=day)
            for origin, (carrier, number, destination, tail) in ROUTES.items():
                wind = float(chance.integers(0, 22))  # as in New York, about 10 miles an hour
                weathers.append(weather(at - timedelta(hours=2), origin, 45 + day % 30, wind))
                delay = 45 if chance.random() < 0.02 * wind else -5
                clock = (at + timedelta(hours=3)).strftime("%H%M")
                later = at + timedelta(minutes=int(chance.integers(60)))
                flights.append(flight(later, origin, destination, int(clock), delay, carrier, number + hour, tail))
    return made_up.write(folder, flights, weathers)


def changed(delivery: Path, into: Path, name: str, change: Callable[[list[Row]], list[Row]]) -> Path:
    """Copy a delivery with the rows of one file changed."""
    shutil.copytree(delivery, into)
    rows = _rows(delivery / name)
    changed = change(rows)
    _write(into / name, list((changed or rows)[0]), changed)
    return into


def without_column(name: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [{key: value for key, value in row.items() if key != name} for row in rows]


def each(column: str, value: Callable[[str], object]) -> Callable[[list[Row]], list[Row]]:
    """Change a column wherever there is a value."""
    return lambda rows: [row | {column: str(value(row[column]))} if row[column] != "NA" else row for row in rows]


def some(values: Mapping[str, str], count: int = 1) -> Callable[[list[Row]], list[Row]]:
    """Change the last rows."""
    return lambda rows: rows[:-count] + [row | values for row in rows[-count:]]


def without_month(month: int) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [row for row in rows if row["month"] != str(month)]


def twice(rows: list[Row]) -> list[Row]:
    """Have the first hundred rows in it once more."""
    return rows + rows[:100]


def _rows(path: Path) -> list[Row]:
    return list(csv.DictReader(io.StringIO(_text(path))))


def _text(path: Path) -> str:
    if path.suffix != ".zip":
        return path.read_text()
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0]).decode()


def _write(path: Path, columns: list[str], rows: list[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if path.suffix != ".zip":
        path.write_text(text.getvalue())
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", text.getvalue())
