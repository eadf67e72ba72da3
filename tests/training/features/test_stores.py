"""Features are the same for training and for serving, at the same moment; no row is lost or doubled."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts import layout
from tests.training import made_up_flights as made_up
from tests.training.features import pairs
from tests.training.features.stores import Running, Store, ingest, post, running
from training.families.flights import data
from training.families.flights.features import serving
from training.families.flights.tables import source

SOME = pd.to_datetime(["2013-06-08T15:00Z", "2013-06-08T18:30Z", "2013-06-09T04:10Z"])


def assert_same(store: Store) -> None:
    """Hold the rows that Feast joined against those that are joined without it, to the bit."""
    own = data.DataModule()
    same = data.DataModule(prepared=str(store.data / "processed" / "flights" / "departures.parquet"))
    assert len(same.flights) == len(own.flights) == len(pd.read_parquet(store.interim / "departures.parquet"))
    for name in serving.RANGES:
        one, other = (flights[name].to_numpy(float) for flights in (same.flights, own.flights))
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert same.fingerprint == own.fingerprint


def test_the_training_rows_are_those_that_are_joined_without_feast_to_the_bit(
    features_up: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = features_up.store.data / source.FOLDER
    raw.symlink_to(features_up.store.root / "raw")
    made_up.take_for_the_real_ones(raw, monkeypatch)
    assert_same(features_up.store)


def test_the_server_says_what_training_was_given_at_the_same_moment(features_up: Running) -> None:
    rows = pairs.asked(features_up.store, [*SOME], 5)
    joined = pairs.offline(features_up, rows)
    count, known = pairs.compare(joined, pairs.online(features_up, rows))
    assert count > 30 and 10 < known < count


@pytest.mark.parametrize("route", ["push", "write-to-online-store", "materialize", "materialize-incremental", "docs"])
def test_the_server_has_no_routes_that_write(features_up: Running, route: str) -> None:
    assert post(f"{features_up.url}/{route}", {"end_ts": "2013-06-09T00:00:00Z"})[0] == 404


@pytest.mark.slow
def test_of_all_flights_no_row_is_lost_and_ten_thousand_pairs_are_the_same_online(
    tmp_path: Path, data_tools: Path
) -> None:
    store = Store(tmp_path, data_tools)
    ingest(store, source.locate(layout.data()))
    chance = np.random.default_rng(1)
    begin = pd.Timestamp("2013-01-02T00:00Z")
    moments = sorted(begin + pd.Timedelta(minutes=int(minute)) for minute in chance.integers(0, 363 * 24 * 60, 40))
    with running(store, build=True) as up:
        assert_same(store)
        rows = pairs.asked(store, moments, 170)
        count, known = pairs.compare(pairs.offline(up, rows), pairs.online(up, rows))
    assert count >= 10_000 and 0.2 < known / count < 0.98
