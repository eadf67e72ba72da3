"""A delay counts from the arrival on: what is joined is what was known at a departure, and nothing of the future."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training import made_up_flights as made_up
from tests.training.made_up_flights import NEW_YORK, flight
from training.errors import DataError
from training.families.flights import data
from training.families.flights.entities import DELAYS, HOUR_S, ROLLING
from training.families.flights.features import serving
from training.families.flights.tables import delays, departures, prepared, source

NOON = datetime(2013, 7, 1, 12, tzinfo=NEW_YORK)
HOUR = timedelta(hours=1)
NO_HOURS = [made_up.weather(NOON, "EWR")]


def flights(folder: Path, *lines: str) -> pd.DataFrame:
    return departures.departures(made_up.tables(folder, [*lines], NO_HOURS))


def to_boston(at: datetime, delay: int, number: int, carrier: str = "UA", origin: str = "EWR") -> str:
    """A flight that is scheduled to take an hour."""
    arrives = int((at + HOUR).astimezone(NEW_YORK).strftime("%H%M"))
    return flight(at, origin, "BOS", arrives, delay, carrier, number)


def known_at_noon(folder: Path, *lines: str) -> dict[str, Any]:
    """What is known of delays to a flight to Boston at noon, after others."""
    found = delays.joined(flights(folder, *lines, to_boston(NOON, 0, 1)))
    [own] = found[found["flight"] == "1"].to_dict("records")
    return own


def test_a_flight_counts_from_its_actual_arrival_on_and_not_from_its_scheduled_one(tmp_path: Path) -> None:
    """Scheduled for 11:00, it comes at 12:01; that of another carrier, scheduled for 13:00, is there by 11:59."""
    late, early = to_boston(NOON - 2 * HOUR, 61, 2), to_boston(NOON, -61, 3, carrier="DL")
    own = known_at_noon(tmp_path, late, early)
    assert np.isnan(own["carrier_delay"]) and np.isnan(own["carrier_arrivals"])
    assert (own["origin_delay"], own["origin_arrivals"]) == (-61, 1)
    on_time = known_at_noon(tmp_path, to_boston(NOON - 2 * HOUR, 60, 2))  # at noon to the minute
    assert (on_time["carrier_delay"], on_time["carrier_arrivals"]) == (60, 1)


def test_a_window_ends_with_the_newest_arrival_and_is_forgotten_when_it_is_old(tmp_path: Path) -> None:
    [hours] = [rolling.window_s // HOUR_S for rolling in ROLLING if rolling.of == "carrier"]
    old, new = to_boston(NOON - (hours + 2) * HOUR, 10, 2), to_boston(NOON - (hours + 1) * HOUR + HOUR / 60, 20, 3)
    own = known_at_noon(tmp_path, old, new)
    assert (own["carrier_delay"], own["carrier_arrivals"]) == (15, 2)  # one 3 h 50 before noon, one 2 h 39
    own = known_at_noon(tmp_path, to_boston(NOON - (hours + 1) * HOUR - HOUR / 60, 0, 2))
    assert np.isnan(own["carrier_delay"]) and own["route_delay"] == 0


def test_arrivals_of_one_minute_are_one_row_and_a_route_is_both_its_ends(tmp_path: Path) -> None:
    both = [to_boston(NOON - 3 * HOUR, delay, 2 + delay) for delay in (10, 31)]
    other = to_boston(NOON - 3 * HOUR, 100, 9, origin="JFK")
    found = delays.tables(flights(tmp_path, to_boston(NOON - 3 * HOUR + timedelta(minutes=21), 10, 7), *both, other))
    carrier = found["carrier_delays"]
    assert carrier["known"].is_unique and carrier["carrier_arrivals"].tolist() == [1, 3, 4]
    assert carrier["carrier_delay"].tolist() == [10, 17, 37.75]
    assert found["route_delays"].groupby(["origin", "destination"]).size().to_dict() == {
        ("EWR", "BOS"): 2,
        ("JFK", "BOS"): 1,
    }
    assert (carrier["known"].dt.as_unit("s").astype("int64") == carrier["time"]).all()


def test_a_flight_of_which_nobody_knows_when_it_arrived_counts_for_nothing(tmp_path: Path) -> None:
    nowhere = flight(NOON - 4 * HOUR, "EWR", "ZZZ", 900, 50, number=5)  # no time zone is known of it
    own = known_at_noon(tmp_path, nowhere)
    assert np.isnan(own["carrier_delay"])


def test_no_flight_knows_of_itself_and_each_row_is_what_a_loop_over_the_past_finds(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    begin = datetime(2013, 7, 1, 10, tzinfo=UTC)
    lines = [
        to_boston(begin + timedelta(minutes=int(minute)), int(chance.integers(-60, 400)), number, carrier, origin)
        for number, minute in enumerate(chance.integers(0, 1800, 60))
        for carrier, origin in [(str(chance.choice(["UA", "DL"])), str(chance.choice(["EWR", "JFK"])))]
    ]
    found = delays.joined(flights(tmp_path, *lines))
    arrived = delays.arrived(found)
    assert (arrived > found["departure_utc"]).mean() > 0.9
    for _, row in found.iterrows():
        for rolling in ROLLING:
            seen = arrived[
                (found[[*rolling.key]] == row[[*rolling.key]]).all(axis=1) & (arrived <= row["departure_utc"])
            ]
            newest, window = seen.max(), pd.Timedelta(seconds=rolling.window_s)
            counted = found["delay"][seen[seen > newest - window].index] if len(seen) else pd.Series(dtype=float)
            if len(seen) and row["departure_utc"] - newest > window:
                counted = counted[:0]
            mean, count = row[list(rolling.features)]
            assert (np.isnan(count) and counted.empty) or count == len(counted)
            assert (np.isnan(mean) and counted.empty) or mean == np.float32(counted.mean())


def test_the_order_of_rows_makes_no_difference(tmp_path: Path) -> None:
    whole = departures.departures(departures.read(made_up.write_year(tmp_path)))
    shuffled = whole.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(delays.joined(shuffled).loc[whole.index], delays.joined(whole))


@pytest.fixture
def year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> data.DataModule:
    made_up.take_for_the_real_ones(made_up.write_year(tmp_path / source.FOLDER), monkeypatch)
    return data.DataModule()


def test_training_has_forgotten_the_delays_of_some_flights_as_when_the_store_is_gone(year: data.DataModule) -> None:
    columns = [serving.NUMBERS.index(name) for name in DELAYS]
    for name, least, most in (("train", 0.05, 0.15), ("val", 0, 0), ("test", 0, 0)):
        given = np.concatenate([group.inputs["numbers"][:, columns] for group in year.split(name).groups])
        known = year.part(name)[[*DELAYS]].notna().any(axis=1).to_numpy()
        assert known.any() and least <= np.isnan(given[known]).all(axis=1).mean() <= most


def test_prepared_flights_are_the_very_data_that_is_joined_here(year: data.DataModule, tmp_path: Path) -> None:
    path = tmp_path / "departures.parquet"
    year.flights.sample(frac=1, random_state=0).to_parquet(path)
    same = data.DataModule(prepared=str(path))
    assert same.fingerprint == year.fingerprint
    for own, other in zip(year.split("train").groups, same.split("train").groups, strict=True):
        np.testing.assert_array_equal(own.inputs["numbers"], other.inputs["numbers"])
    assert same.tables().keys() == year.tables().keys()
    year.flights.assign(temp=year.flights["temp"].where(year.flights.index != 7, 0.5)).to_parquet(path)
    assert data.DataModule(prepared=str(path)).fingerprint != year.fingerprint


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda whole: whole.drop(columns="carrier_delay"), "has no column carrier_delay"),
        (lambda whole: whole[:0], "has no rows"),
        (lambda whole: whole.assign(temp="warm"), "temp in"),
        (lambda whole: whole.assign(origin_delay=9e9), "origin_delay in .* is 9e.09, outside of -600 to 3000"),
        (lambda whole: whole.assign(carrier=whole["carrier"].where(whole.index > 3)), "lacks carrier in 4 of its rows"),
    ],
)
def test_a_prepared_file_that_lacks_something_is_refused(
    year: data.DataModule, tmp_path: Path, change: Any, told: str
) -> None:
    change(year.flights).to_parquet(tmp_path / "departures.parquet")
    with pytest.raises(DataError, match=told):
        prepared.read(tmp_path / "departures.parquet")


def test_what_is_no_file_of_flights_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("carrier,flight\n")
    for name, told in (("rows.parquet", "is no Parquet file"), ("none.parquet", "there is no")):
        with pytest.raises(DataError, match=rf"{told}(.|\n)*python -m training features build flights"):
            prepared.read(tmp_path / name)
