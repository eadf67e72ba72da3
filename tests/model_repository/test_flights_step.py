"""A flight is refused with what is wrong with it, or answered; its neighbours are answered either way."""

import importlib.util
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.entities import records
from tests.tracked import MODEL_REPOSITORY
from training.families.flights.features import serving

STEP = MODEL_REPOSITORY / "flights_preprocess"
KNOWN = {"carrier": b"UA", "origin": b"EWR", "destination": b"IAH", "departure": b"2013-10-01T05:15"}


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The step as the backends have it."""
    monkeypatch.setitem(sys.modules, "features", serving)
    monkeypatch.setitem(sys.modules, "records", _module("records"))
    module = _module("step")
    made = module.Step(STEP, {})
    made.module = module
    return made


def _module(name: str) -> Any:
    found = importlib.util.spec_from_file_location(f"flights_{name}", STEP / "1" / f"{name}.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def request(*rows: dict[str, Any]) -> dict[str, np.ndarray]:
    """A request of flights, each the known one but for what is given."""
    whole = [{**KNOWN, **dict.fromkeys(serving.RANGES, np.nan), **row} for row in rows]
    texts = {name: np.array([[row[name]] for row in whole], np.object_) for name in KNOWN}
    return texts | {name: np.array([[row[name]] for row in whole], np.float32) for name in serving.RANGES}


def as_records(*texts: bytes) -> dict[str, np.ndarray]:
    """A request of records, one a row."""
    found = np.empty((len(texts), 1), np.object_)
    found[:, 0] = texts
    return {records.NAME: found}


def record(**changed: Any) -> dict[str, Any]:
    """The known flight as an object; what is changed to ... is left out."""
    plain = {name: text.decode() for name, text in KNOWN.items()} | dict.fromkeys(serving.RANGES)
    return {name: value for name, value in {**plain, **changed}.items() if value is not ...}


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


# What JSON has, and no record is too long for.
IN_JSON = [
    (row, told)
    for row, told in BAD
    if told[:6] not in ("carrie", "wind_s") and max(len(str(value)) for value in row.values()) < 99
]


@pytest.mark.parametrize(("row", "told"), IN_JSON, ids=[str(n) for n in range(len(IN_JSON))])
def test_the_same_is_refused_in_the_same_words_of_a_record(step: Any, row: dict[str, Any], told: str) -> None:
    plain = {name: value.decode() if isinstance(value, bytes) else value for name, value in row.items()}
    good, bad = (as_records(json.dumps(record(**changed)).encode()) for changed in ({}, plain))
    before, refused, after = step.answer([good, bad, good])
    assert isinstance(refused, step.module.Refused) and told in str(refused)
    np.testing.assert_array_equal(before["numbers"], after["numbers"])


NESTED = b"[" * 4000 + b"]" * 4000
BAD_RECORDS: list[tuple[Any, str]] = [
    (b"", "records: no JSON, Expecting value at character 0 of 0"),
    (b"not json", "records: no JSON, Expecting value at character 0 of 8: b'not json'"),
    (b'{"carrier": "UA"', "records: no JSON, Expecting ',' delimiter at character 16 of 16"),
    (b'{"carrier": "UA"} {}', "records: no JSON, Extra data at character 18"),
    (b"{'carrier': 'UA'}", "records: no JSON"),
    (b"\xef\xbb\xbf{}", "records: no JSON"),
    (b"\xff\xfe{}", "records: not UTF-8: b'\\xff\\xfe{}'"),
    (b"[]", "records: a list, expected an object of 25 fields"),
    (b"7", "records: a number, 7, expected an object"),
    (b'"UA"', "records: a text, 'UA', expected an object"),
    (b"null", "records: null, expected an object"),
    (b"true", "records: a truth value, True, expected an object"),
    (b"{}", "records: carrier, origin, destination and 22 more missing; expected the 25 inputs of a flight"),
    (NESTED, "records: nested too deeply: b'[[[["),
    (b'{"carrier": "' + b"U" * (1 << 20) + b'"}', "records: 1,048,591 bytes, 8,192 at most"),
    (record(temp=...), "records: temp missing; expected the 25 inputs of a flight, null for an unknown number"),
    (record(tempo=1), "records: unknown field 'tempo'; expected the 25 inputs"),
    (record(temp=..., tmp=50, t=1), "records: temp missing, unknown fields 'tmp', 't'; expected"),
    (record(temp="50"), "records: temp is a text, '50', expected a number, or null where it is not known"),
    (record(temp=True), "records: temp is a truth value, True, expected a number"),
    (record(temp=[50]), "records: temp is a list, expected a number"),
    (record(temp={"value": 50}), "records: temp is an object, expected a number"),
    (record(carrier=None), "records: carrier is null, expected a text"),
    (record(carrier=7), "records: carrier is a number, 7, expected a text"),
    (record(departure=1380000000), "records: departure is a number, 1380000000, expected a text"),
    (record(carrier="\ud83d"), "records: carrier is no Unicode: '\\ud83d'"),
    (record(temp=float("nan")), "records: NaN is no JSON, expected a number, or null where it is not known"),
    (record(temp=float("inf")), "records: Infinity is no JSON"),
    (record(temp=float("-inf")), "records: -Infinity is no JSON"),
    (record(temp=1e39), "temp is 1e+39, outside of -80 to 140"),
    (json.dumps(record(temp=7)).replace("7", "1e400").encode(), "temp is inf, outside of -80 to 140"),
    (json.dumps(record()).encode("utf-16"), "records: not UTF-8: b'\\xff\\xfe{\\x00"),
    (record(carrier="\x00", temp="\x00"), "records: temp is a text, '\\x00', expected a number"),
    (record(temp=10**400), "temp is inf, outside of -80 to 140"),
    (b'{"temp": -' + b"9" * 5000 + b"}", "records: a number with too many digits"),
    (json.dumps(record())[:-1].encode() + b', "temp": 50}', "records: 'temp' is given 2 times, expected once"),
    (b'{"a": 1, "a": 1, "a\\nb": {}}', "records: 'a' is given 2 times, expected once"),
    (record(**{"a\x1b[0m\nb": 1}), "unknown field 'a\\x1b[0m\\nb'"),
    (record(**{"x" * 5000: 1}), "unknown field '" + "x" * 40 + "'"),
]


@pytest.mark.parametrize(("bad", "told"), BAD_RECORDS, ids=[str(n) for n in range(len(BAD_RECORDS))])
def test_a_bad_record_is_refused_with_what_was_found_and_expected_and_its_neighbours_are_answered(
    step: Any, bad: Any, told: str
) -> None:
    text, good = bad if isinstance(bad, bytes) else json.dumps(bad).encode(), json.dumps(record()).encode()
    before, refused, among, after = step.answer(
        [as_records(good), as_records(text), as_records(good, text), request({})]
    )
    assert isinstance(refused, step.module.Refused) and told in (said := str(refused))
    assert said.isascii() and "\n" not in said and len(said) < 250
    assert isinstance(among, step.module.Refused) and str(among) == f"flight 1 of 2, from 0: {said}"
    for name in ("categories", "numbers"):
        np.testing.assert_array_equal(before[name], after[name])


BOTH = "expected records alone, or all 25 inputs of a flight without it"


def test_a_request_brings_all_columns_or_records_and_is_told_what_it_brought(step: Any) -> None:
    columns, text = request({}), as_records(json.dumps(record()).encode())
    some = {name: values for name, values in columns.items() if name not in ("temp", "dewp")}
    told = {
        "records and carrier, origin, destination and 22 more are given": {**columns, **text},
        "records and temp are given": {**text, "temp": columns["temp"]},
        "neither records nor a field is given": {},
        "temp, dewp missing": some,
    }
    for each, (said, bad) in zip(step.answer([*told.values()]), told.items(), strict=True):
        assert isinstance(each, step.module.Refused) and str(each) == f"{said}; {BOTH}", bad.keys()


def test_records_are_encoded_to_the_byte_as_columns_in_whatever_company(step: Any) -> None:
    random = np.random.default_rng(0)
    rows = []
    for number in range(300):
        row: dict[str, Any] = {
            name: np.nan if random.random() < 0.1 else np.float32(random.uniform(*serving.RANGES[name]))
            for name in serving.RANGES
        }
        row["temp"] = [-0.0, np.float32(140), np.float32(1e-45), 0.0][number % 4]
        row["departure"] = (
            f"2013-{1 + number % 12:02}-{1 + number % 28:02}T{3 + number % 20:02}:{number % 60:02}".encode()
        )
        row["carrier"] = [b"UA", b"", "Zoë".encode(), b'"\\'][number % 4]
        rows.append(row)
    parts = [request(*rows[start : start + 1 + start % 7]) for start in range(0, 290, 5)]
    texts = [records.of_columns(part) for part in parts]
    mixed = step.answer([each for pair in zip(parts, texts, strict=True) for each in pair])
    for place, part in enumerate(parts):
        [alone] = step.answer([part])
        for other in mixed[2 * place : 2 * place + 2]:
            for name in ("categories", "numbers"):
                assert other[name].dtype == alone[name].dtype
                assert other[name].tobytes() == alone[name].tobytes()


def test_a_number_that_float32_rounds_into_its_range_is_as_good_in_a_record_as_in_a_column(step: Any) -> None:
    within = 140.0000001  # of float32 it is 140
    for bad, sent in ((False, within), (True, 140.1)):
        text = as_records(json.dumps(record(temp=sent)).encode())
        for answer in step.answer([text, request({"temp": sent})]):
            assert isinstance(answer, step.module.Refused) is bad


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
