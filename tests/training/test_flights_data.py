"""Flights are joined in time as it passed, split by time, and are to training what they are to serving."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training import made_up_flights as made_up
from tests.training.made_up_flights import NEW_YORK, flight, weather
from training.errors import DataError
from training.families.flights import data, features
from training.families.flights.examples import requests
from training.families.flights.features import serving
from training.families.flights.tables import departures, source

NOON = datetime(2013, 7, 1, 12, tzinfo=NEW_YORK)


@pytest.fixture
def year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> data.DataModule:
    made_up.take_for_the_real_ones(made_up.write_year(tmp_path / source.FOLDER), monkeypatch)
    return data.DataModule()


def joined(folder: Path, flights: list[str], hours: list[str] | None = None) -> pd.DataFrame:
    return departures.departures(made_up.tables(folder, flights, hours or [weather(NOON, "EWR")]))


@pytest.mark.parametrize("minute", [0, 59])
def test_the_weather_is_that_of_the_last_hour_that_is_over(tmp_path: Path, minute: int) -> None:
    hours = [weather(NOON + timedelta(hours=h), "EWR", temp=50 + h) for h in (-2, -1, 0, 1)]
    found = joined(tmp_path, [flight(NOON + timedelta(minutes=minute), "EWR", "IAH", 1500, 0)], hours)
    assert found["temp"].tolist() == [49]  # from 11:00 to 12:00, at 12:59 as well


def test_weather_of_another_airport_or_of_many_hours_ago_is_none(tmp_path: Path) -> None:
    hours = [weather(NOON - timedelta(hours=1), "JFK"), weather(NOON - timedelta(hours=5), "EWR")]
    assert joined(tmp_path, [flight(NOON, "EWR", "IAH", 1500, 0)], hours)["temp"].isna().all()


def test_the_two_hours_from_one_to_two_of_3_november_have_each_its_own_weather(tmp_path: Path) -> None:
    first = datetime(2013, 11, 3, 5, tzinfo=UTC)  # 1:00 in summer time
    hours = [weather(first + timedelta(hours=h), "EWR", temp=60 + h) for h in (-1, 0, 1, 2)]
    half = timedelta(minutes=30)
    flights = [flight(first + timedelta(hours=h) + half, "EWR", "IAH", 500, 0, number=h + 1) for h in (0, 1, 2)]
    found = joined(tmp_path, flights, hours)
    assert found["departure"].dt.strftime("%H:%M").tolist() == ["01:30", "01:30", "02:30"]
    assert found["temp"].tolist() == [59, 60, 61]


@pytest.mark.parametrize(
    ("departure", "destination", "arrives", "minutes"),
    [
        (datetime(2013, 7, 1, 12, tzinfo=NEW_YORK), "IAH", 1500, 240),  # an hour behind
        (datetime(2013, 7, 1, 22, tzinfo=NEW_YORK), "LAX", 115, 375),  # on the next day there, too
        (datetime(2013, 7, 1, 12, tzinfo=NEW_YORK), "PHX", 1400, 300),  # no summer time there: three hours behind
        (datetime(2013, 1, 7, 12, tzinfo=NEW_YORK), "PHX", 1400, 240),  # and two in winter
        (datetime(2013, 7, 1, 12, tzinfo=NEW_YORK), "SJU", 1600, 240),  # which is not in airports.csv
        (datetime(2013, 3, 9, 23, tzinfo=NEW_YORK), "BOS", 310, 190),  # the hour from two to three is left out
        (datetime(2013, 11, 2, 23, tzinfo=NEW_YORK), "BOS", 130, 150),  # the first of two
        (datetime(2013, 11, 3, 5, 45, tzinfo=UTC), "BOS", 130, 45),  # the second: the first is over
    ],
)
def test_an_arrival_is_the_first_time_that_clocks_there_show_it(
    tmp_path: Path, departure: datetime, destination: str, arrives: int, minutes: int
) -> None:
    found = joined(tmp_path, [flight(departure, "JFK", destination, arrives, 0)])
    assert found["duration"].tolist() == [minutes]


def test_cancelled_and_diverted_flights_are_left_out_and_late_is_more_than_30_minutes(tmp_path: Path) -> None:
    delays = [("NA", 1), (30, 2), (31, 3)]
    found = joined(tmp_path, [flight(NOON, "EWR", "IAH", 1500, delay, number=number) for delay, number in delays])
    assert dict(zip(found["flight"], found["late"], strict=True)) == {"2": False, "3": True}


def test_what_nobody_knows_or_can_have_measured_is_missing(tmp_path: Path) -> None:
    hours = [weather(NOON - timedelta(hours=1), "EWR", wind=1048.4)]
    flights = [flight(NOON, "EWR", "IAH", 1500, 0, tail=tail, number=i) for i, tail in enumerate(("N1", "N2", "N7"))]
    found = joined(tmp_path, flights, hours).set_index("flight")
    assert found["wind_speed"].isna().all() and (found["temp"] == 50).all()
    assert found["plane_year"].tolist()[:1] == [1999] and found["plane_year"].isna().tolist() == [False, True, True]
    assert found["plane_seats"].isna().tolist() == [False, False, True]


def test_the_splits_are_in_the_order_of_time_a_group_each_month(year: data.DataModule) -> None:
    months = [[*year.split(name).segments] for name in ("train", "val", "test")]
    assert months[0][0] == "January" and months[0][-1] == "August" and len(months[0]) == 8
    assert months[1:] == [["September"], ["October", "November", "December"]]
    last = [year.part(name)["departure_utc"].agg(["min", "max"]) for name in ("train", "val", "test")]
    assert last[0]["max"] < last[1]["min"] and last[1]["max"] < last[2]["min"]


def test_training_has_forgotten_some_categories_and_the_others_are_what_serving_makes_them(
    year: data.DataModule,
) -> None:
    train, test = (np.concatenate([g.inputs["categories"] for g in year.split(n).groups]) for n in ("train", "test"))
    names = features.names()
    assert (test[:, :2] != serving.UNKNOWN).all()
    assert set(test[:, 2]) == {names["destination"].index("IAH"), names["destination"].index("LAX"), 0}  # no XXX
    assert 0 < (train[:, :2] == serving.UNKNOWN).mean() < 0.03


def test_a_request_becomes_the_very_sample_that_training_has_of_the_flight(year: data.DataModule) -> None:
    asked = requests(10**6)
    categories, numbers = serving.encode(
        {name: [value.decode() for value in asked[name][:, 0]] for name in serving.CATEGORIES},
        [serving.read_departure(value.decode()) for value in asked["departure"][:, 0]],
        {name: asked[name][:, 0] for name in serving.RANGES},
        serving.read_vocabularies(features.VOCABULARIES),
    )
    groups = year.split("test").groups
    np.testing.assert_array_equal(categories, np.concatenate([group.inputs["categories"] for group in groups]))
    np.testing.assert_array_equal(numbers, np.concatenate([group.inputs["numbers"] for group in groups]))


def test_other_features_are_other_data(year: data.DataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = year.fingerprint
    changed = tmp_path / "vocabularies.json"
    changed.write_text(features.VOCABULARIES.read_text().replace('"UA"', '"UB"'))
    monkeypatch.setattr(features, "VOCABULARIES", changed)
    assert year.fingerprint != before


def test_the_tables_of_a_release_have_each_flight_once_as_it_was_last_seen(year: data.DataModule) -> None:
    tables = year.tables()
    assert sorted(tables["schedule"]["flight"]) == ["1", "2", "3"]
    row = tables["schedule"]["flight"].tolist().index("1")
    assert tables["schedule"]["plane_seats"][row] == 150
    assert np.isnan(tables["schedule"]["plane_year"]).sum() == 2
    hours = pd.Series(tables["weather"]["time"])
    assert hours.min() == datetime(2013, 1, 1, 5, tzinfo=NEW_YORK).timestamp()
    assert not pd.Series(zip(tables["weather"]["origin"], hours, strict=True)).duplicated().any()


def test_files_that_are_not_the_originals_are_refused_with_both_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up.write(tmp_path / source.FOLDER, [], [])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(DataError) as refused:
        source.locate(tmp_path)
    assert "airports.csv is not the original" in str(refused.value) and "pip: " in str(refused.value)
    assert f"into {tmp_path / source.FOLDER}" in str(refused.value)
