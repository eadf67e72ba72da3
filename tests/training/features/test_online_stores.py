"""Materialisation goes on, repeats itself and is killed without harm, into SQLite, Redis and PostgreSQL alike."""

import json
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from contracts import layout
from tests.training.features import pairs, servers
from tests.training.features.stores import Store, running

pytestmark = pytest.mark.slow

MOMENTS = pd.to_datetime(["2013-06-08T15:00Z", "2013-06-08T18:30Z", "2013-06-09T04:10Z"])
NOON = "2013-06-08T16:00Z"


def contents(path: Path) -> Mapping[str, list[str]]:
    """All that a SQLite online store holds, but for when it was written."""
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        columns = "entity_key, feature_name, value, event_ts"
        return {name: sorted(map(repr, connection.execute(f'SELECT {columns} FROM "{name}"'))) for (name,) in tables}


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def anywhere(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Iterator[Store]:
    """A store whose online values are in a real one of each kind."""
    started: Mapping[str, Callable[[], AbstractContextManager[Mapping[str, str]]]] = {
        "sqlite": lambda: nullcontext({}), "redis": lambda: servers.redis(tmp_path), "postgres": servers.postgres,
    }  # fmt: skip
    with started[request.param]() as variables:
        yield replace(store, name=request.param, environment=variables)


def test_the_values_are_the_same_wherever_they_are_kept(anywhere: Store) -> None:
    anywhere.must("build")
    rows = pairs.asked(anywhere, [*MOMENTS], 5)
    with running(anywhere, build=False) as up:
        count, known = pairs.compare(pairs.offline(up, rows), pairs.online(up, rows))
    assert count > 30 and 10 < known < count
    told = anywhere.must("status")["views"]["carrier_delays"]
    assert told["materialized"] == MOMENTS[-1].isoformat() and told["behind_s"] > 0 and told["served_s"] == 3 * 3600
    back = anywhere.run("materialize", "--to", NOON)
    assert back.returncode == 1 and "would be turned back" in back.stderr and "--anew" in back.stderr
    assert {each["until"] for each in anywhere.must("materialize", "--to", NOON, "--anew")} == {
        "2013-06-08T16:00:00+00:00"
    }


def test_it_goes_on_where_it_ended_and_to_do_it_twice_writes_the_same(store: Store) -> None:
    store.must("build")
    first = store.must("materialize", "--to", NOON)
    before = contents(store.online)
    again = store.must("materialize", "--to", NOON)
    assert contents(store.online) == before and any(before.values())
    assert again == first
    assert store.must("materialize", "--to", NOON, "--again") == first and contents(store.online) == before
    store.must("materialize", "--to", "2013-06-08T18:00Z")
    step_by_step = contents(store.online)
    store.must("materialize", "--to", "2013-06-08T18:00Z", "--anew")
    at_once = contents(store.online)
    assert step_by_step != before
    for table, rows in at_once.items():  # what is forgotten by now, it has no more
        assert {*rows} <= {*step_by_step[table]}


def test_ten_kills_leave_what_an_undisturbed_run_leaves(store: Store, tmp_path: Path) -> None:
    store.must("build")
    begin = time.monotonic()
    store.must("materialize", "--to", NOON)
    took, undisturbed = time.monotonic() - begin, contents(store.online)
    chance, killed = random.Random(0), 0
    for path in store.online.parent.iterdir():
        path.unlink()
    for number in range(10):
        # The import of Feast takes most of the time, and the writing is at the end.
        process = subprocess.Popen(
            store.words("materialize", "--to", NOON), env=store.variables, cwd=layout.ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(took * chance.uniform(0.6, 1.0))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        if number == 4:
            with running(store, build=False) as up:  # and it can be served in between
                assert up.url
    assert killed >= 5
    store.must("materialize", "--to", NOON)
    assert contents(store.online) == undisturbed


def test_two_at_once_write_one_after_the_other(store: Store) -> None:
    store.must("build")
    both = [
        subprocess.Popen(
            [*store.words("materialize", "--to", NOON), "--json"], env=store.variables, cwd=layout.ROOT,
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    told = [json.loads(process.communicate(timeout=300)[0]) for process in both]
    assert told[0] == told[1] and len(told[0]) == len(pairs.VIEWS)
    assert not [*store.online.parent.glob("*-journal")]


def test_the_zone_of_the_machine_makes_no_difference(store: Store) -> None:
    """Feast's SQLite store keeps times in the zone of its process, where some are twice and some are not at all."""
    store.must("build")
    found = []
    for zone in ("UTC", "America/New_York"):
        local = replace(store, environment={"TZ": zone})
        local.must("materialize", "--to", NOON, "--anew")
        found.append(contents(store.online))
    assert found[0] == found[1] and any(found[0].values())


@pytest.mark.parametrize(
    ("name", "variables", "told"),
    [
        ("redis", {"FEATURES_REDIS": "127.0.0.1:1"}, "the feature store redis cannot be used"),
        ("redis", {}, "FEATURES_REDIS is not set"),
        ("postgres", {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGUSER": "a", "PGPASSWORD": "b", "PGDATABASE": "c"},
         "the feature store postgres cannot be used"),
    ],
)  # fmt: skip
def test_a_store_that_is_gone_is_said_in_words(
    store: Store, name: str, variables: Mapping[str, str], told: str
) -> None:
    store.must("build")
    done = replace(store, name=name, environment=variables).run("materialize", "--to", NOON)
    assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr


def test_what_lacks_for_a_build_is_said_and_costs_nothing_that_was_there(store: Store) -> None:
    store.must("build")
    made = store.data / "processed" / "flights" / "departures.parquet"
    before, weather = made.read_bytes(), store.interim / "weather.parquet"
    whole = pd.read_parquet(weather)
    for change, told in (
        (lambda: pd.concat([whole, whole[:1]]).to_parquet(weather), "the table weather has two rows of"),
        (lambda: whole.drop(columns="temp").to_parquet(weather), "the table weather has no column temp"),
        (lambda: weather.write_text("origin,temp"), "is no Parquet file"),
        (weather.unlink, "there is no .*weather.parquet"),
    ):
        change()
        done = store.run("build")
        assert done.returncode == 1 and re.search(told, done.stderr) and "Traceback" not in done.stderr, done.stderr
        assert made.read_bytes() == before


def test_nothing_to_serve_and_a_port_that_is_taken_are_said(store: Store) -> None:
    store.must("build")
    done = store.run("serve")
    assert done.returncode == 1 and "is empty" in done.stderr and "features materialize flights" in done.stderr
    store.must("materialize", "--to", NOON)
    with store.served() as url:
        done = store.run("serve", "--port", url.rpartition(":")[2])
        assert done.returncode == 1 and "cannot be listened on" in done.stderr
