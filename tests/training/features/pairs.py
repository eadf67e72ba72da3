"""Pairs of an entity and a moment: what is joined for training, and what the feature server says of them then."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from clients import FeatureServer
from contracts.entities.declaration import Lookup
from contracts.entities.filling import Question
from tests.training.features.stores import Running, Store
from training.families.flights.feature_views import FEATURES

VIEWS = {lookup.view: lookup for lookup in FEATURES.declaration.views}


def asked(store: Store, moments: Sequence[pd.Timestamp], of_each: int, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Draw keys of each view for each moment, one in twenty of them a key that there is not."""
    chance, found = np.random.default_rng(seed), {}
    for view, lookup in VIEWS.items():
        known = pd.read_parquet(store.interim / f"{lookup.table}.parquet", columns=list(lookup.key)).drop_duplicates()
        parts = []
        for moment in moments:
            drawn = known.sample(min(of_each, len(known)), random_state=int(chance.integers(1 << 30)))
            strange = chance.random(len(drawn)) < 0.05
            drawn = drawn.assign(**{column: drawn[column].where(~strange, "ZZZ") for column in lookup.key})
            parts.append(drawn.drop_duplicates().assign(moment=moment))
        found[view] = pd.concat(parts, ignore_index=True)
    return found


def offline(up: Running, rows: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Join by Feast with DuckDB."""
    folder = up.store.root / "pairs"
    folder.mkdir(exist_ok=True)
    for view, frame in rows.items():
        frame.to_parquet(folder / f"{view}.asked.parquet")
    up.join(folder)
    return {view: pd.read_parquet(folder / f"{view}.found.parquet") for view in rows}


def online(up: Running, rows: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Materialise up to each moment, and ask the server then as clients do; (view, rows with the values)."""
    with FeatureServer(up.url, timeout_s=30) as server:
        for moment in sorted({moment for frame in rows.values() for moment in frame["moment"]}):
            up.materialize(moment.isoformat())
            for view, frame in rows.items():
                yield view, _answered(server, VIEWS[view], frame[frame["moment"] == moment])


def _answered(server: FeatureServer, lookup: Lookup, rows: pd.DataFrame) -> pd.DataFrame:
    at = rows["moment"].dt.as_unit("s").astype("int64").to_numpy()
    question = Question(lookup, {column: rows[column].to_numpy(str) for column in lookup.key}, at)
    found = server.answer([question])[id(question)]
    assert not server.failure, server.failure
    values = {name: np.where(found.known[name], column, np.nan) for name, column in found.values.items()}
    return rows.assign(**values, why=found.instead)


def compare(offline: Mapping[str, pd.DataFrame], online: Iterator[tuple[str, pd.DataFrame]]) -> tuple[int, int]:
    """Hold one against the other, to the bit of the float32 that the model takes; how many pairs, and of them known."""
    pairs = known = 0
    for view, rows in online:
        joined = offline[view].loc[rows.index]
        for fill in VIEWS[view].fills:
            one, other = (frame[fill.name].to_numpy(np.float32) for frame in (joined, rows))
            np.testing.assert_array_equal(one, other, err_msg=f"{view} {fill.name}")
        there = joined["time"].notna().to_numpy()
        np.testing.assert_array_equal(there, (rows["why"] == "").to_numpy(), err_msg=view)
        pairs, known = pairs + len(rows), known + int(there.sum())
    return pairs, known


def contents(path: Path) -> str:
    """All that a SQLite online store holds, but for when it was written."""
    import sqlite3

    with sqlite3.connect(path) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY 1")
        ]
        rows = {
            name: sorted(
                map(repr, connection.execute(f'SELECT entity_key, feature_name, value, event_ts FROM "{name}"'))
            )
            for name in tables
        }
    return json.dumps(rows)
