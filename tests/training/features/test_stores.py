"""Features are the same for training and for serving, at the same moment; no row is lost or doubled."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts import layout
from tests.training import made_up_flights as made_up
from tests.training.features import pairs
from tests.training.features.stores import Store, ingest, post
from training.families.flights import data, source
from training.families.flights.features import serving

SOME = pd.to_datetime(["2013-06-08T15:00Z", "2013-06-08T18:30Z", "2013-06-09T04:10Z"])


def test_the_training_rows_are_those_that_are_joined_without_feast_to_the_bit(
    built: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = built.root / "data" / source.FOLDER
    if not raw.exists():
        raw.symlink_to(built.root / "raw")
    made_up.take_for_the_real_ones(raw, monkeypatch)
    own = data.DataModule()
    path = built.data / "processed" / "flights" / "departures.parquet"
    same = data.DataModule(prepared=str(path))
    assert len(same.flights) == len(own.flights) == len(pd.read_parquet(built.interim / "departures.parquet"))
    for name in serving.RANGES:
        np.testing.assert_array_equal(
            same.flights[name].to_numpy(float), own.flights[name].to_numpy(float), err_msg=name
        )
    assert same.fingerprint == own.fingerprint


def test_the_server_says_what_training_was_given_at_the_same_moment(built: Store) -> None:
    rows = pairs.asked(built, [*SOME], 5)
    joined = pairs.offline(built, rows)
    built.must("materialize", "--to", "2013-06-08T12:00Z")
    with built.served() as url:
        count, known = pairs.compare(joined, pairs.online(built, url, rows))
        assert count > 30 and 10 < known < count
        status, _ = post(f"{url}/materialize", {"end_ts": "2013-06-09T00:00:00Z"})
        assert status == 404  # it is not there to be written to
        assert post(f"{url}/push", {})[0] == post(f"{url}/write-to-online-store", {})[0] == 404


def real(root: Path, tools: Path, **more: Any) -> Store:
    """A store of all flights of 2013."""
    store = Store(root, tools, **more)
    ingest(store, source.locate(layout.data()))
    store.must("build")
    return store
