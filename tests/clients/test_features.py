"""A feature server is asked for what a release says is in its views: what it says is believed or not, and counted.

The server here answers as Feast's does, or not at all; that Feast's does so is tested in tests/training/features.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import AsyncEntities, AsyncFeatureServer, Entities, FeatureServer, InvalidInputError
from clients.command_line import commands
from clients.filling import feature_server
from contracts import manifest
from contracts.entities.declaration import AsOf, Declaration, Fill, Lookup
from contracts.entities.filling import Filled
from contracts.entities.tables import Tables
from tests.clients.conftest import Run
from tests.clients.test_predict import Server
from tests.ferries import ENTITIES, HOUR_S, MIDNIGHT, released, tables

TIDES = replace(ENTITIES.lookups[2], view="tides")
CROWDS = Lookup(
    "crowds",
    {"pier": "pier"},
    (Fill("waiting", default="nan"),),
    AsOf("departure", most_age_s=1800),
    "crowds",
    kept=False,
)
DECLARED = Declaration("ferries", ENTITIES.entities, (*ENTITIES.lookups[:2], TIDES, CROWDS))
ROW = {"line": "A", "pier": "North", "departure": "2013-11-03T03:10"}
AT = MIDNIGHT + 4 * HOUR_S + 600
FRESH = {("tides", "North"): (AT - 600, {"metres": 7.25}), ("crowds", "North"): (AT - 60, {"waiting": 40})}

Rows = Mapping[tuple[str, str], tuple[int, Mapping[str, Any]]]  # {(view, pier): (event time, values)}


class Features:
    """Answers as Feast's feature server does, from rows; or as `instead` says."""

    def __init__(self) -> None:
        self.rows: Rows = FRESH
        self.asked: list[dict[str, Any]] = []
        self.instead: Callable[[BaseHTTPRequestHandler], None] | None = None
        features = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                features.asked.append(request)
                if features.instead:
                    features.instead(self)
                else:
                    send(self, 200, json.dumps(features.answer(request)).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        names, results = ["pier"], [{"values": request["entities"]["pier"], "statuses": [], "event_timestamps": []}]
        for view, feature in (name.split(":") for name in sorted(request["features"])):
            found = [self.rows.get((view, pier)) for pier in request["entities"]["pier"]]
            names.append(f"{view}__{feature}")
            times = [
                datetime.fromtimestamp(row[0] if row else 0, UTC).isoformat().replace("+00:00", "Z") for row in found
            ]
            values = [row[1].get(feature) if row else None for row in found]
            results.append({"values": values, "statuses": ["PRESENT"] * len(found), "event_timestamps": times})
        return {"metadata": {"feature_names": names}, "results": results}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take its time, where that is not what a test is about."""
    monkeypatch.setattr(feature_server, "TIMEOUT_S", 20.0)


@pytest.fixture
def features() -> Iterator[Features]:
    made = Features()
    yield made
    made.close()


def filled(url: str, *rows: Mapping[str, object]) -> tuple[Filled, Mapping[tuple[str, str], int]]:
    """Fill rows with threads and from asyncio; both must find the same."""
    source = Tables(DECLARED, tables())
    with FeatureServer(url) as server:
        found = Entities(DECLARED, source, features=server).fill(rows or [ROW])

    async def other() -> Filled:
        async with AsyncFeatureServer(url) as asked:
            same = await AsyncEntities(DECLARED, source, features=asked).fill(rows or [ROW])
            assert (asked.counts, bool(asked.failure)) == (server.counts, bool(server.failure))
            return same

    same = asyncio.run(other())
    for name, values in found.inputs.items():
        assert values.dtype == same.inputs[name].dtype
        np.testing.assert_array_equal(values, same.inputs[name])
    assert (found.defaults, found.instead) == (same.defaults, same.instead)
    return found, server.counts


def test_values_come_from_the_server_all_views_in_one_request(features: Features) -> None:
    found, counts = filled(features.url, ROW, {**ROW, "line": "B"})
    assert found.inputs["tide"].tolist() == [[7.25], [7.25]] and found.inputs["waiting"].tolist() == [[40], [40]]
    assert found.inputs["tide"].dtype == np.float32 and found.instead == ({}, {})
    assert counts == {("tides", ""): 2, ("crowds", ""): 2}
    first, _ = features.asked
    assert first["features"] == ["tides:metres", "crowds:waiting"] and first["entities"] == {"pier": ["North"] * 2}


@pytest.mark.parametrize(
    ("age", "why"),
    [(0, ""), (2 * HOUR_S, ""), (2 * HOUR_S + 1, "stale"), (-1, "future"), (AT, "unknown")],
)
def test_a_row_counts_if_it_was_known_by_then_and_is_no_older_than_declared(
    features: Features, age: int, why: str
) -> None:
    """The event time is when a row is known: of an hour that is declared to be known when it is over, the end."""
    features.rows = {**FRESH, ("tides", "North"): (AT - age, {"metres": 7.25})}
    found, counts = filled(features.url)
    assert found.inputs["tide"] == (1.5 if why else 7.25)  # the release's own table
    assert counts["tides", why] == 1 and found.instead[0] == ({"tides": why} if why else {})


def test_what_no_table_has_is_its_default_and_the_others_are_still_the_servers(features: Features) -> None:
    features.rows = {("tides", "North"): FRESH["tides", "North"]}
    found, counts = filled(features.url)
    assert np.isnan(found.inputs["waiting"]) and found.inputs["tide"] == 7.25
    assert "waiting" in found.defaults[0] and found.instead[0] == {"crowds": "unknown"}
    assert counts == {("tides", ""): 1, ("crowds", "unknown"): 1}


def test_a_row_with_nothing_in_it_is_a_row_and_not_replaced_by_an_older_one(features: Features) -> None:
    for nothing in (None, "NaN"):
        features.rows = {**FRESH, ("crowds", "North"): (AT - 60, {"waiting": nothing})}
        found, counts = filled(features.url)
        assert np.isnan(found.inputs["waiting"]) and counts["crowds", ""] == 1


def close(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def saying(body: object, status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, status, body if isinstance(body, bytes) else json.dumps(body).encode())


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that is right but for something."""
    request = {"features": ["tides:metres", "crowds:waiting"], "entities": {"pier": ["North"]}}
    features = Features()
    answer = features.answer(request)
    features.close()
    change(answer)
    return saying(answer)


@pytest.mark.parametrize(
    "instead",
    [
        *(close, hang),
        *(
            saying(b"", 500),
            saying(b"", 307),
            saying(b"<html>", 200),
            saying([]),
            saying({"results": []}),
            saying(b"\xff"),
        ),
        saying(b"[" * 100_000),
        changed(lambda answer: answer["results"].pop()),
        changed(lambda answer: answer["results"][1]["values"].append(1.0)),
        changed(lambda answer: answer["results"][2]["values"].__setitem__(0, "much")),
        changed(lambda answer: answer["results"][2]["values"].__setitem__(0, True)),
        changed(lambda answer: answer["results"][2]["values"].__setitem__(0, 1e300)),
        changed(lambda answer: answer["results"][2]["event_timestamps"].__setitem__(0, "yesterday")),
        changed(lambda answer: answer["results"][2]["event_timestamps"].__setitem__(0, None)),
    ],
)
def test_one_that_is_gone_or_says_nonsense_costs_no_prediction(
    features: Features, instead: Callable[[BaseHTTPRequestHandler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if instead is hang:
        monkeypatch.setattr(feature_server, "TIMEOUT_S", 0.5)
    features.instead = instead
    begin = time.monotonic()
    found, counts = filled(features.url)
    assert time.monotonic() - begin < 2 * feature_server.TIMEOUT_S + 5
    assert found.inputs["tide"] == 1.5 and np.isnan(found.inputs["waiting"])
    assert counts == {("tides", "unanswered"): 1, ("crowds", "unanswered"): 1}
    assert found.instead[0] == {"tides": "unanswered", "crowds": "unanswered"}


def test_one_that_hangs_is_left_alone_for_a_while_and_asked_again(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_server, "REST_S", 0.3)
    features.instead = saying(b"", 503)
    with FeatureServer(features.url) as server:
        entities = Entities(DECLARED, Tables(DECLARED, tables()), features=server)
        for _ in range(20):
            entities.fill([ROW])
        assert len(features.asked) == 1 and server.counts["tides", "unanswered"] == 20
        assert "HTTP 503" in server.failure
        features.instead = None
        time.sleep(0.35)
        assert entities.fill([ROW]).inputs["tide"] == 7.25 and server.failure == ""


def test_nobody_is_asked_of_what_is_refused_anyway(features: Features) -> None:
    with pytest.raises(InvalidInputError, match="no pier 'East'"):
        filled(features.url, {**ROW, "pier": "East"})
    assert not features.asked


def test_keys_that_differ_under_one_name_are_asked_one_after_the_other(features: Features) -> None:
    """Two lookups by `pier`: of where a boat leaves, and of where it goes."""
    there = replace(CROWDS, key={"pier": "to"}, fills=(Fill("waiting_there", "waiting", default="nan"),))
    to = replace(ENTITIES.entities[1], name="to")
    declared = replace(DECLARED, entities=(*DECLARED.entities, to), lookups=(*DECLARED.lookups, there))
    features.rows = {**FRESH, ("crowds", "South"): (AT - 60, {"waiting": 3})}
    with FeatureServer(features.url) as server:
        entities = Entities(declared, Tables(declared, tables()), features=server)
        found = entities.fill([{**ROW, "to": "South"}, {**ROW, "to": "North"}])
    assert found.inputs["waiting"][:, 0].tolist() == [40, 40]
    assert found.inputs["waiting_there"][:, 0].tolist() == [3, 40]
    assert [request["entities"]["pier"] for request in features.asked] == [["North", "North"], ["South", "North"]]


@pytest.mark.parametrize("url", ["127.0.0.1:6566", "grpc://127.0.0.1:6566", "http://", "http://a b", "http://x:0"])
def test_what_is_no_address_of_a_feature_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        FeatureServer(url)


def test_its_port_is_feasts_own_where_none_is_said() -> None:
    assert str(FeatureServer("http://localhost").address) == "http://localhost:6566"
    assert str(FeatureServer("http://[::1]/").address) == "http://[::1]:6566"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    directory = released(tmp_path)
    manifest.write(replace(manifest.read(directory), entities=DECLARED), directory)
    return directory


def test_predict_asks_and_says_what_fell_back_and_why(
    run: Run, features: Features, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    monkeypatch.setattr(Server, "infer", lambda self, model, inputs: answered(self, inputs))
    monkeypatch.setattr(commands, "connected", lambda options: server)
    words = ["predict", "ferries", *(f"{name}={value}" for name, value in ROW.items()), "--release", release]
    done = run(*words, "--features", features.url)
    assert done.returncode == 0 and "late 7.25" in done.stdout.decode(), done.stderr
    assert f"Rows from {features.url}: tides 1, crowds 1\n" in done.stderr.decode()
    features.rows = {("tides", "North"): (AT - 9 * HOUR_S, {"metres": 7.25})}
    monkeypatch.setenv("FEATURES_URL", features.url)
    done = run(*words, "--json")
    told = json.loads(done.stdout)
    assert told["outputs"]["late"] == 1.5 and told["instead"] == {"tides": "stale", "crowds": "unknown"}
    assert "tides 0 (1 stale), crowds 0 (1 unknown)" in done.stderr.decode()
    features.instead = saying(b"", 500)
    done = run(*words)
    assert done.returncode == 0 and "did not answer: HTTP 500" in done.stderr.decode()
    assert "(not known: tonnes, waiting" in done.stdout.decode().replace("passengers, ", "")


def answered(server: Server, inputs: Mapping[str, Any]) -> Any:
    from clients.core.answer import Answer

    late = inputs["tide"].astype(np.float32)
    return Answer({"late": late, "why": np.full(late.shape, b"tide", np.object_)}, "ferries", (server.version,))
