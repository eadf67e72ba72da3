"""A feature that was computed with the future is found, whatever its event time says."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training import made_up_flights as made_up
from training.errors import FeatureError
from training.families import Features
from training.families.flights.feature_views import FEATURES
from training.families.flights.tables import delays, departures
from training.features import leakage

Tables = Mapping[str, pd.DataFrame]
CARRIER = next(lookup for lookup in FEATURES.declaration.views if lookup.table == "carrier_delays")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return departures.departures(departures.read(made_up.write_year(tmp_path_factory.mktemp("year"))))


def planted(change: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]) -> Features:
    """The features of flights, but for that of the carrier, which is changed with the rows at hand."""

    def computed(flights: pd.DataFrame) -> Tables:
        found = delays.tables(flights)
        return {**found, "carrier_delays": change(found["carrier_delays"], flights)}

    return replace(FEATURES, computed=computed)


def scheduled(table: pd.DataFrame, flights: pd.DataFrame) -> pd.DataFrame:
    """The event time of a delay is when the flight was scheduled to arrive: before anybody knew of it."""
    early = delays.tables(flights.assign(delay=0.0))["carrier_delays"][["carrier", "time", "known"]]
    values = flights.assign(arrives=flights["departure_utc"] + pd.to_timedelta(flights["duration"], unit="min"))
    means = values.groupby(["carrier", "arrives"])["delay"].mean()
    keys = pd.MultiIndex.from_frame(early[["carrier", "known"]].astype({"known": means.index.levels[1].dtype}))
    return early.assign(carrier_delay=means.reindex(keys).to_numpy(), carrier_arrivals=1.0)


def of_the_year(table: pd.DataFrame, flights: pd.DataFrame) -> pd.DataFrame:
    """A value is scaled by the mean of all that there is."""
    return table.assign(carrier_delay=table["carrier_delay"] - table["carrier_delay"].mean())


def ahead(table: pd.DataFrame, flights: pd.DataFrame) -> pd.DataFrame:
    """A value is that of the next row of the same carrier."""
    return table.assign(carrier_delay=table.groupby("carrier")["carrier_delay"].shift(-1))


def filled_backwards(table: pd.DataFrame, flights: pd.DataFrame) -> pd.DataFrame:
    """What is not known of a carrier yet is taken from later."""
    first = table.drop_duplicates("carrier").assign(known=flights["departure_utc"].min(), time=0)
    return pd.concat([first, table])


def test_what_is_computed_from_arrivals_alone_has_no_future_in_it(rows: pd.DataFrame) -> None:
    assert leakage.check_computed(FEATURES, rows) > 100


@pytest.mark.parametrize("change", [scheduled, of_the_year, ahead, filled_backwards])
def test_a_planted_future_is_found(
    rows: pd.DataFrame, change: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
) -> None:
    with pytest.raises(FeatureError, match="computed with the future") as refused:
        leakage.check_computed(planted(change), rows)
    assert "carrier_delays of" in str(refused.value)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, None), (60, "known only after it"), (-3 * 3600, None), (-3 * 3600 - 60, "older than")]
)
def test_a_row_that_was_joined_from_the_future_or_from_long_ago_is_found(seconds: int, told: str | None) -> None:
    moments = pd.Series(pd.to_datetime(["2013-07-01T12:00Z"] * 3))
    at = moments.dt.as_unit("s").astype("int64")
    times = pd.Series([np.nan, float(at[1] + seconds), float(at[2])])
    arguments: Any = (CARRIER, pd.DataFrame({"carrier": ["UA", "DL", "B6"]}), moments, times)
    if told is None:
        leakage.check_joined(*arguments)
        return
    with pytest.raises(FeatureError, match=rf"1 values\n.*carrier_delays of DL at 2013-07-01T12:00:00\+00:00: {told}"):
        leakage.check_joined(*arguments)
