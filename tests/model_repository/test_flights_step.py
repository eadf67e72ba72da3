"""A flight is refused with what is wrong with it, or answered; its neighbours are answered either way."""

import importlib.util
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tracked import MODEL_REPOSITORY
from training.families.flights.features import serving

STEP = MODEL_REPOSITORY / "flights_preprocess"
KNOWN = {"carrier": b"UA", "origin": b"EWR", "destination": b"IAH", "departure": b"2013-10-01T05:15"}


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The step as the backends have it."""
    monkeypatch.setitem(sys.modules, "features", serving)
    found = importlib.util.spec_from_file_location("flights_step", STEP / "1" / "step.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    made = module.Step(STEP, {})
    made.module = module
    return made


def request(*rows: dict[str, Any]) -> dict[str, np.ndarray]:
    """A request of flights, each the known one but for what is given."""
    whole = [{**KNOWN, **dict.fromkeys(serving.RANGES, np.nan), **row} for row in rows]
    texts = {name: np.array([[row[name]] for row in whole], np.object_) for name in KNOWN}
    return texts | {name: np.array([[row[name]] for row in whole], np.float32) for name in serving.RANGES}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"departure": b"2013-03-10T02:30"}, "departure does not exist: 2013-03-10T02:30, as clocks go from 2:00 to 3:00"),
    ({"departure": b"2013-02-29T12:00"}, "departure is no time: '2013-02-29T12:00'; as in"),
    ({"departure": b"2013-10-01T24:30"}, "departure is no time"),
    ({"departure": b"2013-10-01"}, "departure is no time: '2013-10-01'"),  # a day alone
    ({"departure": b""}, "departure is no time: ''"),
    ({"departure": b"tomorrow\n[error] forged"}, "departure is no time: 'tomorrow\\n[error] forged'"),
    ({"departure": b"9" * 100_000}, "departure is no time: '" + "9" * 40 + "'"),
    ({"departure": b"1066-10-14T09:00"}, "departure is in 1066, outside of 2008 to 2099"),
    ({"departure": "2013-10-01T05:15\U0001f600".encode()}, "departure is no time: '2013-10-01T05:15\\U0001f600'"),
    ({"carrier": b"\xff\xfe"}, "carrier is not UTF-8: b'\\xff\\xfe'"),
    ({"origin": b"SFO"}, "origin is 'SFO'; flights leave from EWR, JFK, LGA"),
    ({"origin": b"EWR\x00"}, "origin is 'EWR\\x00'"),
    ({"temp": 900.0}, "temp is 900, outside of -80 to 140; NaN where it is not known"),
    ({"wind_speed": np.inf}, "wind_speed is inf"),
    ({"distance": -1.0}, "distance is -1, outside of 1 to 12500"),
    ({"humid": 1e30}, "humid is 1e+30"),
]


@pytest.mark.parametrize(("row", "told"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_what_no_flight_can_be_is_refused_and_its_neighbours_are_answered(
    step: Any, row: dict[str, Any], told: str
) -> None:
    before, refused, among, after = step.answer([request({}), request(row), request({}, row), request({})])
    assert isinstance(refused, step.module.Refused) and told in (said := str(refused))
    assert said.isascii() and "\n" not in said and len(said) < 200
    assert isinstance(among, step.module.Refused) and str(among) == f"flight 1 of 2, from 0: {said}"
    for answered in (before, after):
        np.testing.assert_array_equal(answered["categories"], before["categories"])


@pytest.mark.parametrize("name", ["carrier", "destination"])
@pytest.mark.parametrize("value", [b"", b"ZZ", b"ua", b"\x00", "\U0001f6eb".encode(), b"U" * 100_000])
def test_a_category_that_nobody_knows_is_the_unknown_one(step: Any, name: str, value: bytes) -> None:
    [answered] = step.answer([request({name: value})])
    column = serving.CATEGORIES.index(name)
    known = step.answer([request({})])[0]["categories"]
    assert answered["categories"][0, column] == serving.UNKNOWN
    assert known[0, column] != serving.UNKNOWN
    assert (np.delete(answered["categories"], column) == np.delete(known, column)).all()


def test_what_is_not_known_is_nan_and_the_rest_is_as_it_was_sent(step: Any) -> None:
    [answered] = step.answer([request({"temp": 50.5}, {"visib": 0.0})])
    numbers = dict(zip(serving.NUMBERS, answered["numbers"].T.tolist(), strict=True))
    assert answered["numbers"].dtype == np.float32 and answered["categories"].dtype == np.int32
    assert numbers["minute"] == [315, 315] and numbers["weekday"] == [1, 1]  # a Tuesday
    assert numbers["temp"][0] == 50.5 and np.isnan(numbers["temp"][1]) and numbers["visib"][1] == 0
    assert np.isnan(numbers["pressure"]).all()


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("2013-11-03T05:40", "05:40"),
        ("2013-11-03T05:40:00-05:00", "05:40"),
        ("2013-11-03T10:40Z", "05:40"),
        ("2013-11-03T01:30", "01:30"),  # twice, and the same to the model
        ("2013-11-03T01:30-04:00", "01:30"),
        ("2013-11-03T06:30+00:00", "01:30"),
        ("2013-07-01T02:40-07:00", "05:40"),  # as clocks in Los Angeles show it
        ("2013-03-10T03:00", "03:00"),
        ("2013-03-10T06:59Z", "01:59"),
        ("2013-03-10T07:00Z", "03:00"),
        ("2008-01-01T00:10Z", "19:10"),  # on the last day of 2007
    ],
)
def test_a_departure_is_what_the_clocks_in_new_york_show(text: str, clock: str) -> None:
    assert serving.read_departure(text).strftime("%H:%M") == clock


def test_clocks_change_as_the_database_of_time_zones_says() -> None:
    from zoneinfo import ZoneInfo

    zone, hours = ZoneInfo("America/New_York"), np.arange(1200000000, 1900000000, 3600 * 7)
    for seconds in hours[::20]:
        instant = datetime.fromtimestamp(int(seconds), ZoneInfo("UTC"))
        assert serving.read_departure(instant.isoformat()) == instant.astimezone(zone).replace(tzinfo=None)


def test_a_step_without_a_readable_vocabulary_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "vocabularies.json").write_text('{"carrier": ["UA"]}')
    with pytest.raises(KeyError, match="origin"):
        serving.read_vocabularies(tmp_path / "vocabularies.json")
