"""Entities are filled from tables as a declaration says: the right row, a declared default, or an error that tells."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts import manifest
from contracts.entities import example, given, releases
from contracts.entities.declaration import TEXT, AsOf, Declaration, Entity, Fill, Lookup
from contracts.entities.filling import Filled, fill
from contracts.entities.tables import Found, Tables
from contracts.errors import EntityError, ManifestError, SpecError
from tests.ferries import ENTITIES, HOUR_S, MIDNIGHT, released, tables
from tests.small_releases import published

ROW = {"line": "A", "pier": "North", "departure": "2013-11-03T03:10"}
TIDES = ENTITIES.lookups[2]


def filled(*changes: Mapping[str, object], declaration: Declaration = ENTITIES) -> Filled:
    return fill(declaration, [{**ROW, **change} for change in changes or ({},)], Tables(declaration, tables()))


def sent(name: str, *changes: Mapping[str, object]) -> Any:
    return filled(*changes).inputs[name][:, 0].tolist()


def test_an_example_has_what_a_request_had_and_keys_of_the_tables() -> None:
    def made(known: Mapping[str, Any], *entities: Entity, **lookup: Any) -> Any:
        declared = replace(ENTITIES, entities=(*ENTITIES.entities, *entities), **lookup)
        return example.row(declared, Tables(declared, tables()), known)

    asked = {"line": "B", "pier": "South", "departure": "2013-11-03T01:30:00-04:00", "tide": 2.0}
    assert made(asked) == {name: asked[name] for name in ("line", "pier", "departure")}
    assert filled(made(asked)).inputs["built"][0, 0] == 1980
    assert made({"departure": ROW["departure"]}) == {**ROW, "pier": "North"}, "the first that the tables have"
    assert made({"line": "A"}) is None, "a time would be guessed"
    # Of a boat that is not sent, one with the line's other values is taken; where none has them, any that is whole.
    boat, fills = Entity("boat", "text", sent=False), (Fill("metres"),)
    found = Lookup("rota", {"line": "line", "boat": "boat"}, (Fill("since", dtype="int64"),))
    known = {"departure": ROW["departure"], "pier": "North"}
    declared = {"lookups": (found, replace(TIDES, fills=fills))}
    assert made({**known, "line": "B"}, boat, **declared)["boat"] == "Ada"
    assert made({**known, "line": "Z"}, boat, **declared)["line"] == "A"


def test_a_row_of_entities_becomes_the_inputs_of_the_model() -> None:
    found = filled({}, {"line": "B", "pier": "South", "passengers": 7})
    assert {name: (values.shape, str(values.dtype)) for name, values in found.inputs.items()} == {
        **dict.fromkeys(("line", "pier", "departure"), ((2, 1), "object")),
        **dict.fromkeys(("passengers", "built"), ((2, 1), "int32")),
        **dict.fromkeys(("tonnes", "tide"), ((2, 1), "float32")),
    }
    assert found.inputs["built"][:, 0].tolist() == [2001, 1980]  # by way of the boat, which is not sent
    assert np.isnan(found.inputs["tonnes"][0, 0]) and found.inputs["tonnes"][1, 0] == 100.5
    assert found.defaults == (("passengers", "tonnes"), ())


@pytest.mark.parametrize(
    ("departure", "boat_built"),
    [
        ("2013-11-03T00:00", 2001),
        ("2013-11-02T23:59:59", 1980),
        ("2013-11-03T04:00Z", 2001),  # the same moment as the first
        (datetime.fromtimestamp(MIDNIGHT - 1, UTC), 1980),
    ],
)
def test_the_newest_row_counts_that_was_there_by_then(departure: object, boat_built: int) -> None:
    without_tides = replace(ENTITIES, lookups=ENTITIES.lookups[:2])
    assert filled({"departure": departure}, declaration=without_tides).inputs["built"] == boat_built


def test_an_hour_is_known_when_it_is_over_and_forgotten_when_it_is_old() -> None:
    # The hour from midnight on has 0 metres, the next 0.5; each is known an hour later, and no older than three.
    times = [f"2013-11-03T{hour}-05:00" for hour in ("00:00", "00:59", "01:00", "10:00", "11:00")]
    assert sent("tide", *({"departure": time} for time in times)) == [0.0, 0.0, 0.5, 4.5, 4.5]
    with pytest.raises(EntityError, match=r"tide is not known of pier North, departure 2013-11-03T11:01-05:00"):
        filled({"departure": "2013-11-03T11:01-05:00"})
    with pytest.raises(EntityError, match="no default is declared"):
        filled({"departure": "2013-11-03T00:59:59-04:00"})  # of the first hour nothing is known while it lasts


def test_one_pier_is_not_taken_for_the_next() -> None:
    """Sorted by key and time, the last row of the North pier lies before the first of the South one."""
    early = {"departure": "2013-11-03T00:30-04:00"}
    for pier in ("North", "South"):
        with pytest.raises(EntityError, match=f"tide is not known of pier {pier}"):
            filled({**early, "pier": pier})


def test_the_tables_find_what_pandas_finds() -> None:
    """Its merge_asof is another one's join as of a time."""
    import pandas as pd

    random, count = np.random.default_rng(0), 3000
    table = {
        "pier": random.choice(np.array(["East", "North", "South", "West"]), 400),
        "time": MIDNIGHT + random.choice(48 * HOUR_S, 400, replace=False),
        "metres": random.normal(size=400),
    }
    keys = {"pier": random.choice(np.array(["A", "East", "North", "Northern", "South", "Z"]), count)}
    at = MIDNIGHT + random.integers(-HOUR_S, 50 * HOUR_S, count)
    found = Tables(ENTITIES, tables() | {"tides": table}).find(TIDES, keys, at)
    asked = pd.DataFrame({**keys, "known_at": at - HOUR_S, "row": np.arange(count)}).sort_values("known_at")
    expected = pd.merge_asof(
        *(asked, pd.DataFrame(table).sort_values("time")),
        left_on="known_at", right_on="time", by="pier", tolerance=2 * HOUR_S,
    ).sort_values("row")  # fmt: skip
    metres = expected["metres"].to_numpy()
    assert np.array_equal(found.known["tide"], ~np.isnan(metres)) and 500 < found.known["tide"].sum() < 2000
    known = found.known["tide"]
    assert np.array_equal(found.values["tide"][known], metres[known].astype(np.float32))


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Pacific/Apia", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "UTC"]
)
def test_times_exist_where_another_library_says_so(zone: str) -> None:
    from dateutil import tz

    entity, other, random = Entity("at", "time", zone=zone), tz.gettz(zone), np.random.default_rng(0)
    half_hours = random.choice(np.arange(6 * 365 * 48), 400, replace=False)  # 2008 to 2013: one in 2,000 is in a gap
    moments = [datetime(2008, 1, 1) + timedelta(minutes=30 * int(number)) for number in half_hours]
    strange = [datetime(2011, 12, 30, 12), datetime(2013, 3, 10, 2, 30), datetime(2013, 11, 3, 1, 30)]
    for moment in [*moments, *strange, datetime(2013, 4, 7, 1, 45), datetime(2013, 7, 7, 2, 30)]:
        told = ""
        try:
            assert given.value(entity, moment.isoformat()) == moment.replace(tzinfo=other)
        except EntityError as error:
            told = "gap" if "does not exist" in str(error) else "twice"
        exists, ambiguous = tz.datetime_exists(moment, other), tz.datetime_ambiguous(moment, other)
        assert told == ("gap" if not exists else "twice" if ambiguous else ""), moment


def test_what_hangs_on_something_unknown_gets_its_default() -> None:
    found = filled({"line": "Z"})
    assert found.inputs["built"] == 1990 and np.isnan(found.inputs["tonnes"]).all()
    assert {"built", "tonnes"} < {*found.defaults[0]}


def test_a_time_is_sent_with_its_offset_or_as_seconds() -> None:
    twice = [{"departure": f"2013-11-03T01:30{offset}"} for offset in ("-04:00", "-05:00")]
    seconds = replace(
        ENTITIES,
        entities=(*ENTITIES.entities[:2], replace(ENTITIES.entities[2], dtype="int64"), ENTITIES.entities[3]),
    )
    assert sent("departure", *twice) == ["2013-11-03T01:30:00-04:00", "2013-11-03T01:30:00-05:00"]
    assert filled(*twice, declaration=seconds).inputs["departure"][:, 0].tolist() == [
        MIDNIGHT + 90 * 60,
        MIDNIGHT + 150 * 60,
    ]
    other = datetime(2013, 11, 3, 9, 30, tzinfo=timezone(timedelta(hours=3)))
    assert sent("departure", {"departure": other}) == ["2013-11-03T01:30:00-05:00"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"departure": "2013-03-10T02:30"}, r"does not exist in America/New_York.*\n.*2013-03-10T03:30:00-04:00"),
        ({"departure": "2013-11-03T01:30"}, r"twice in America/New_York.*\n.*01:30:00-04:00 or .*01:30:00-05:00"),
        ({"departure": "2013-11-03"}, "a day without a time"),
        ({"departure": "soon"}, "a time in ISO 8601"),
        ({"departure": 1383451200}, "a time in ISO 8601"),
        ({"departure": "9999-12-31T23:59"}, "out of range|not known"),
        ({"departure": datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))}, "out of range"),
        ({"pier": "north"}, "known are North, South\nHint: is 'North' meant"),
        ({"pier": "Nor\0th"}, "no control characters"),
        ({"line": "A\ud800"}, "no control characters"),
        ({"line": "A" * 300}, "1 to 256 characters"),
        ({"line": "   "}, "1 to 256 characters"),
        ({"line": b"A"}, "must be a text"),
        ({"line": True}, "must be a text"),
        ({"line": 1.0}, "must be a text"),
        ({"line": None}, r"line \(the letter on its bow\) is missing"),
        ({"line": ""}, "is missing"),
        ({"lines": "A"}, "has no entity 'lines'\nNote: .*\nHint: is line meant"),
        ({"passengers": 501}, "at least 0 and at most 500"),
        ({"passengers": -1}, "at least 0 and at most 500"),
        ({"passengers": 2**40}, "no int32 can be"),
        ({"passengers": "9" * 5000}, "must be a whole number"),
        ({"passengers": True}, "must be a whole number"),
        ({"passengers": 1.5}, "must be a whole number"),
        ({"passengers": "1_0"}, "must be a whole number"),
    ],
)
def test_what_is_no_entity_is_refused_with_the_reason(wrong: Mapping[str, object], told: str) -> None:
    with pytest.raises(EntityError, match=f"(?s){told}") as refused:
        filled(wrong)
    assert len(str(refused.value)) < 500
    with pytest.raises(EntityError, match=r"^row 2: "):
        filled({}, wrong)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e39, "1e400", "nan", 10**400, "0x1F", True, None])
def test_absurd_numbers_are_refused(wrong: object) -> None:
    numbers = Declaration("net", (Entity("weight", "number"),))
    assert fill(numbers, [{"weight": "-1.5e3"}], Tables(numbers, {})).inputs["weight"] == -1500
    with pytest.raises(EntityError, match="weight"):
        fill(numbers, [{"weight": wrong}], Tables(numbers, {}))


def test_text_of_any_script_is_a_text() -> None:
    assert sent("line", {"line": "Перевоз ⛴️"}, {"line": "کشتی‌رانی"}) == ["Перевоз ⛴️", "کشتی‌رانی"]


def test_a_number_that_is_a_name_is_a_text() -> None:
    """As tables and JSON have the number of a bus."""
    assert sent("line", {"line": 1545}, {"line": np.int32(7)}) == ["1545", "7"]


def test_another_source_takes_the_place_of_the_tables() -> None:
    class Store:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def find(self, lookup: Lookup, keys: Mapping[str, NDArray[Any]], at: NDArray[np.int64] | None) -> Found:
            self.asked.append(f"{lookup.table} { ({name: values.tolist() for name, values in keys.items()}) } {at}")
            values = {"boat": np.array(["Cleo"]), "built": np.array([2020]), "tonnes": np.array([9.5]), "tide": [2]}
            wanted = [found.name for found in lookup.fills]
            return Found({name: np.asarray(values[name]) for name in wanted}, dict.fromkeys(wanted, np.array([True])))

    store = Store()
    found = fill(ENTITIES, [ROW], store)
    assert found.inputs["built"] == 2020 and found.inputs["tide"].dtype == np.float32
    at = MIDNIGHT + 4 * HOUR_S + 600
    assert store.asked == [
        f"rota {{'line': ['A']}} [{at}]",
        f"tides {{'pier': ['North']}} [{at}]",
        "boats {'name': ['Cleo']} None",  # whose key the first was asked for
    ]


KEYED = Lookup("boats", {"name": "line"}, (Fill("built"),))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Entity("a", "word"), "kinds: text"),  # type: ignore[arg-type]
        (lambda: Entity("a", "number", dtype="int64"), "cannot be sent as int64"),
        (lambda: Entity("a", "time"), "a time has a zone"),
        (lambda: Entity("a", "text", zone="UTC"), "a time has a zone"),
        (lambda: Entity("a", "time", zone="Mars/Base"), "no time zone 'Mars/Base'"),
        (lambda: Entity("a", "time", zone="../../etc"), "no time zone"),
        (lambda: Entity("a", "integer", values=("1",)), "at_least and at_most"),
        (lambda: Entity("a", "text", at_most=3), "no range"),
        (lambda: AsOf("a", lag_s=10, most_age_s=5), "there are none"),
        (lambda: Fill("a", dtype="complex64"), "complex64"),
        (lambda: Fill("a", dtype="int32", default="x"), "no int32"),
        (lambda: Fill("a", dtype="int32", default="nan"), "no int32"),
        (lambda: Fill("a", dtype=TEXT, default=1), "no object"),
        (lambda: Lookup("../x", {"a": "b"}, (Fill("c"),)), "cannot be called"),
        (lambda: Lookup("x", {}, (Fill("c"),)), "which row"),
        (lambda: Lookup("x", {"a": "b"}, ()), "nothing is taken"),
        (lambda: Declaration("net", ()), "entities"),
        (lambda: Declaration("net", (Entity("a", "text"), Entity("a", "text"))), "two of the name 'a'"),
        (lambda: Declaration("net", (Entity("a", "text"),), (KEYED,)), "has 'line'"),
        (lambda: Declaration("net", (Entity("line", "number"),), (KEYED,)), "no text or integer"),
        (
            lambda: Declaration("net", (Entity("line", "text"),), (replace(KEYED, as_of=AsOf("line")),)),
            "which is no time",
        ),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(make: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        make()


@pytest.mark.parametrize(
    ("table", "columns", "told"),
    [
        ("boats", None, "no table boats"),
        ("boats", {"built": None}, "has no column 'built'"),
        ("boats", {"built": np.array([1, 2, 3])}, "the same number of rows"),
        ("boats", {"name": np.array(["Ada", "Ada"])}, "two rows of name Ada"),
        ("boats", {"name": np.array([1.0, 2.0])}, "not text or an integer"),
        ("boats", {"built": np.array([1980, 2.0**40])}, "another one"),
        ("boats", {"built": np.array([1980.5, 2001])}, "another one"),
        ("boats", {"built": np.array(["old", "new"])}, "cannot be sent as int32"),
        ("boats", {"tonnes": np.array([1e300, 1.0])}, "another one"),
        ("tides", {"time": np.zeros(13)}, "not integers"),
        ("tides", {"time": np.zeros(13, int)}, "two rows of pier North, time 0"),
    ],
)
def test_tables_that_are_not_what_is_declared_are_refused(table: str, columns: Any, told: str) -> None:
    given = tables()
    changed = {} if columns is None else {**given.pop(table), **columns}
    if columns is not None:
        given[table] = {name: values for name, values in changed.items() if values is not None}
    else:
        del given[table]
    with pytest.raises(SpecError, match=told):
        Tables(ENTITIES, given)


def test_a_release_carries_its_declaration_and_tables(tmp_path: Path) -> None:
    directory = released(tmp_path)
    declaration, source = releases.read(directory)
    assert declaration == ENTITIES == manifest.verify(directory).entities
    again = fill(declaration, [ROW], source)
    for name, values in filled().inputs.items():
        assert np.array_equal(values, again.inputs[name], equal_nan=values.dtype.kind == "f")


def test_the_newest_release_that_declares_them_is_found(tmp_path: Path) -> None:
    assert releases.find(tmp_path, "ferries") is None
    released(tmp_path)
    published(tmp_path / "other", 1)
    assert releases.find(tmp_path, "ferries") == tmp_path / "net" / "1"
    assert releases.find(tmp_path, "net") is None
    released(tmp_path, 2)
    assert releases.find(tmp_path, "ferries") == tmp_path / "net" / "2"


def test_what_is_not_what_was_published_is_refused(tmp_path: Path) -> None:
    directory = released(tmp_path)
    table = directory / "tables" / "boats.npz"
    whole = table.read_bytes()
    table.unlink()
    with pytest.raises(ManifestError, match=r"boats\.npz: it is missing"):
        releases.read(directory)
    table.write_bytes(whole[:-1])
    with pytest.raises(ManifestError, match=r"boats\.npz: it is not what was published"):
        releases.read(directory)
    manifest.write(replace(manifest.read(directory), files=manifest.files_of(directory)), directory)
    with pytest.raises(ManifestError, match=r"boats\.npz is damaged"):
        releases.read(directory)


def test_a_release_without_a_declaration_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="takes no entities"):
        releases.read(published(tmp_path, 1))


def test_a_manifest_that_declares_what_cannot_be_is_refused(tmp_path: Path) -> None:
    directory = released(tmp_path)
    path = directory / manifest.FILE_NAME
    path.write_text(path.read_text().replace('"kind": "integer"', '"kind": "colour"'))
    with pytest.raises(ManifestError, match=r"declares what cannot be.*passengers"):
        manifest.read(directory)
