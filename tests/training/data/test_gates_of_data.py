"""Every kind of fault in a delivery, and in what was made of it, is found by the expectation that is there for it."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts import layout
from tests.training.data import deliveries
from tests.training.data.deliveries import FLIGHTS, WEATHER, each, some, twice, without_column, without_month
from training.data import verdict
from training.data.verdict import Verdict
from training.families.flights.pipeline import stages
from training.families.flights.tables import delays

FAMILY = "flights"
EVERY_MONTH = {"ingest": {"months": list(range(1, 13))}}


@dataclass(frozen=True)
class Fault:
    """A change of a file, and the expectations that it breaks."""

    name: str
    change: Callable[[Any], Any]
    found: tuple[str, ...]
    file: str = FLIGHTS


def _km(miles: str) -> str:
    return f"{float(miles) * 1.609:.0f}"


def _celsius(fahrenheit: str) -> str:
    return f"{(float(fahrenheit) - 32) / 1.8:.2f}"


COLUMNS = "expect_table_columns_to_match_set()"
RAW = (
    Fault("a column is missing", without_column("tailnum"), (f"flights.{COLUMNS}",)),
    Fault("a column is missing that others are asked of", without_column("arr_delay"), (
        f"flights.{COLUMNS}",
        "flights.expect_column_values_to_not_be_null(arr_delay)",
        "flights.expect_column_stdev_to_be_between(arr_delay)",
        "flights.expect_column_median_to_be_between(arr_delay)",
    )),
    Fault("a column is new", lambda rows: [r | {"gate": "A1"} for r in rows], (f"flights.{COLUMNS}",)),
    Fault("kilometres", each("distance", _km), ("flights.expect_column_mean_to_be_between(distance)",)),
    Fault("seconds", each("arr_delay", lambda v: 60 * int(v)), (
        "flights.expect_column_stdev_to_be_between(arr_delay)",
        "flights.expect_column_median_to_be_between(arr_delay)",
    )),
    Fault("hours", each("air_time", lambda v: int(v) / 60), ("flights.expect_column_median_to_be_between(air_time)",)),
    Fault("degrees Celsius", each("temp", _celsius), ("weather.expect_column_max_to_be_between(temp)",
        "weather.expect_column_pair_values_a_to_be_greater_than_b()"), WEATHER),
    Fault("metres a second", each("wind_speed", lambda v: float(v) / 2.237), (
        "weather.expect_column_mean_to_be_between(wind_speed)",), WEATHER),
    Fault("inches of mercury", each("pressure", lambda v: float(v) / 33.86), (
        "weather.expect_column_values_to_be_between(pressure)",), WEATHER),
    Fault("rows twice", twice, ("flights.expect_compound_columns_to_be_unique()",)),
    Fault("hours twice", twice, ("weather.expect_compound_columns_to_be_unique()",), WEATHER),
    Fault("a month is missing", without_month(4), (
        "flights.expect_column_distinct_values_to_equal_set(month)",
        "flights.expect_column_unique_value_count_to_be_between(date)",
    )),
    Fault("days are missing", lambda rows: [r for r in rows if (r["month"], r["day"]) != ("6", "9")], (
        "flights.expect_column_unique_value_count_to_be_between(date)",)),
    Fault("a carrier nobody knows", some({"carrier": "ZZ"}), (
        "flights.expect_column_values_to_be_in_set(carrier)",)),
    Fault("an airport nobody knows", some({"origin": "PHL"}), (
        "flights.expect_column_values_to_be_in_set(origin)",)),
    Fault("a code that is none", some({"dest": "?"}), ("flights.expect_column_values_to_match_regex(dest)",)),
    Fault("a day of the future", some({"year": "2014", "month": "12", "day": "31"}), (
        "flights.expect_column_max_to_be_between(date)",
        "flights.expect_column_unique_value_count_to_be_between(date)",
    )),
    Fault("an hour of the future", some({"time_hour": "2014-02-01T12:00:00Z"}), (
        "flights.expect_column_max_to_be_between(time_hour)",)),
    Fault("a plane of the future", some({"year": "2031"}), (
        "planes.expect_column_values_to_be_between(year)",), "planes.csv"),
    Fault("no rows", lambda rows: [], (
        "planes.expect_table_row_count_to_be_between()",), "planes.csv"),
    Fault("a carrier is missing", some({"carrier": ""}), ("flights.expect_column_values_to_not_be_null(carrier)",)),
    Fault("no pressure at all", each("pressure", lambda v: "NA"), (
        "weather.expect_column_values_to_not_be_null(pressure)",), WEATHER),
    Fault("nothing arrives", each("arr_delay", lambda v: "NA"), (
        "flights.expect_column_values_to_not_be_null(arr_delay)",
        "flights.expect_column_stdev_to_be_between(arr_delay)",
        "flights.expect_column_median_to_be_between(arr_delay)",
    )),
)  # fmt: skip


def _leaks(flights: pd.DataFrame) -> pd.DataFrame:
    return flights.assign(wind_gust=flights["late"] * 10.0 + np.arange(len(flights)) % 3)


def _of_the_next(flights: pd.DataFrame) -> pd.DataFrame:
    """The delays of a carrier as they are when its next flight departs."""
    later = flights.sort_values("departure_utc").groupby("carrier")["carrier_delay"].shift(-1)
    return flights.assign(carrier_delay=later)


ONLY = "departures.expect_column_"
PROCESSED = (
    Fault("a column is missing", lambda t: t.drop(columns="temp"), (
        f"{ONLY}to_exist(temp)", f"{ONLY}values_to_not_be_null(temp)", f"{ONLY}values_to_be_between(temp)")),
    Fault("hours", lambda t: t.assign(duration=t["duration"] / 60), (f"{ONLY}mean_to_be_between(duration)",)),
    Fault("rows twice", lambda t: pd.concat([t, t[:50]]), (
        f"{ONLY}pair_values_to_be_equal()", "departures.expect_compound_columns_to_be_unique()")),
    Fault("rows are lost", lambda t: t[50:], (f"{ONLY}pair_values_to_be_equal()",)),
    Fault("a month is missing", lambda t: t[t["departure"].dt.month != 7], (
        f"{ONLY}pair_values_to_be_equal()", f"{ONLY}distinct_values_to_equal_set(month)")),
    Fault("an airport nobody knows", lambda t: t.assign(origin=t["origin"].where(t.index > t.index.min(), "PHL")), (
        f"{ONLY}values_to_be_in_set(origin)",)),
    Fault("no serving would take it", lambda t: t.assign(humid=t["humid"].where(t.index > t.index.min(), 101.0)), (
        f"{ONLY}values_to_be_between(humid)",)),
    Fault("a feature that knows the answer", _leaks, ("features.expect_column_values_to_be_between(telling)",)),
    Fault("what nobody knows yet", _of_the_next, (
        "views.expect_column_values_to_be_between(not_of_then)",
        "features.expect_column_values_to_be_between(telling)",
    )),
)  # fmt: skip

# One of each kind, which do not hide each other: found in one look, as each costs seconds.
TOGETHER = (
    *("a column is missing", "kilometres", "degrees Celsius", "rows twice", "a month is missing"),
    *("a carrier nobody knows", "an hour of the future", "a plane of the future"),
)
TOGETHER_RAW = [fault for fault in RAW if fault.name in TOGETHER]
TOGETHER_PROCESSED = [
    fault for fault in PROCESSED if fault.name in ("rows are lost", "an airport nobody knows") or "know" in fault.name
]


@dataclass
class Court:
    """Folders of data that are to be judged, all in one process; and the verdicts."""

    root: Path
    programs: Path

    def __post_init__(self) -> None:
        self.good = deliveries.write(self.root / "good")
        self.jobs: list[dict[str, Any]] = []
        made = self.root / "interim"
        made.mkdir()
        stages.transform(self.good, made)
        flights = pd.read_parquet(made / stages.PREPARED)
        for name, table in delays.tables(flights).items():
            table.to_parquet(made / f"{name}.parquet", index=False)
        self.flights = delays.joined(flights)

    def raw(self, key: str, *faults: Fault) -> None:
        folder = self.good
        for number, fault in enumerate(faults):
            folder = deliveries.changed(folder, self.root / f"{key}-{number}", fault.file, fault.change)
        self._ask(key, gate="raw", raw=str(folder))

    def processed(self, key: str, *faults: Fault) -> None:
        folder = self.root / f"{key}-processed"
        folder.mkdir()
        changed = reduce(lambda table, fault: fault.change(table), faults, self.flights)
        changed.to_parquet(folder / stages.PREPARED, index=False)
        self._ask(key, gate="processed", interim=str(self.root / "interim"), processed=str(folder))

    def _ask(self, key: str, **what: str) -> None:
        self.jobs.append(what | {"family": FAMILY, "parameters": EVERY_MONTH, "to": str(self.root / f"{key}.json")})

    def judge(self) -> dict[str, Verdict]:
        jobs = self.root / "jobs.json"
        jobs.write_text(json.dumps(self.jobs))
        command = [self.programs / "python", "-m", "tests.training.data.judging", jobs]
        done = subprocess.run(command, cwd=layout.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {Path(job["to"]).stem: verdict.read(Path(job["to"])) for job in self.jobs}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory, data_tools: Path) -> dict[str, Verdict]:
    court = Court(tmp_path_factory.mktemp("gates"), data_tools)
    court.raw("bad", *TOGETHER_RAW)
    court.processed("bad-features", *TOGETHER_PROCESSED)
    return court.judge()  # what else is expected is met, so that two looks tell of passing as well


@pytest.fixture(scope="module")
def each_alone(tmp_path_factory: pytest.TempPathFactory, data_tools: Path) -> dict[str, Verdict]:
    court = Court(tmp_path_factory.mktemp("faults"), data_tools)
    for number, fault in enumerate(RAW):
        court.raw(f"raw{number}", fault)
    for number, fault in enumerate(PROCESSED):
        court.processed(f"processed{number}", fault)
    return court.judge()


def names(found: Verdict) -> set[str]:
    return {outcome.name for outcome in found.failed}


def test_faults_of_every_kind_are_found_in_what_was_delivered(verdicts: dict[str, Verdict]) -> None:
    expected = {name for fault in TOGETHER_RAW for name in fault.found}
    assert names(verdicts["bad"]) == expected
    assert len(expected) >= len(TOGETHER_RAW)


def test_faults_of_every_kind_are_found_in_features(verdicts: dict[str, Verdict]) -> None:
    expected = {name for fault in TOGETHER_PROCESSED for name in fault.found}
    assert names(verdicts["bad-features"]) == expected


def test_it_says_what_was_found_in_place_of_what(verdicts: dict[str, Verdict]) -> None:
    told = {outcome.name: outcome.told for outcome in verdicts["bad"].failed}
    assert told["flights.expect_compound_columns_to_be_unique()"].startswith("198 rows are not so, as ")
    carrier = told["flights.expect_column_values_to_be_in_set(carrier)"]
    assert carrier.startswith('1 row is not so, as ["ZZ"]; expected ') and '"UA"' in carrier
    assert "tailnum" in told[f"flights.{COLUMNS}"]


def test_figures_are_numbers(verdicts: dict[str, Verdict]) -> None:
    figures = json.loads(json.dumps(verdicts["bad"].figures(), allow_nan=False))
    assert figures["flights"]["rows"] == 3285 - 270 + 100 and figures["flights"]["mean(distance)"] == 1609
    assert figures["weather"]["rows"] == 3285 and figures["planes"]["rows"] == 2


def test_the_data_docs_are_pages_that_name_what_failed(verdicts: dict[str, Verdict]) -> None:
    docs = Path(verdicts["bad"].docs)
    assert docs.is_file()
    pages = [page.read_text() for page in docs.parent.glob("validations/**/*.html")]
    assert len(pages) == 4  # a table each
    assert any("ZZ" in page and "carrier" in page for page in pages)


@pytest.mark.slow
@pytest.mark.parametrize("key", [f"raw{n}" for n in range(len(RAW))] + [f"processed{n}" for n in range(len(PROCESSED))])
def test_each_fault_alone_is_found_by_what_is_there_for_it(each_alone: dict[str, Verdict], key: str) -> None:
    faults = RAW if key.startswith("raw") else PROCESSED
    fault = faults[int(key.removeprefix("raw").removeprefix("processed"))]
    assert names(each_alone[key]) == set(fault.found), fault.name
