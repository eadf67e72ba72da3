"""The pipeline does what something has changed for, and a gate stops it by name; nothing is lost that was there."""

import json
import re
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from contracts import layout
from tests.training.data import checkouts, deliveries
from tests.training.data.checkouts import Checkout


@pytest.fixture
def heard() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook, and what it was told."""
    told: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/secret", told
        server.shutdown()


@pytest.fixture
def checkout(tmp_path: Path, data_tools: Path) -> Checkout:
    """A checkout whose raw data is a delivery in delivered/."""
    made = checkouts.new(tmp_path / "checkout", data_tools)
    deliveries.write(made.root / "delivered")
    (made.root / ".gitignore").open("a").write("/delivered/\n")
    made.set("ingest", source="delivered")
    made.commit("its own data")
    return made


def test_a_gate_stops_it_and_what_was_there_stays(
    checkout: Checkout, heard: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    url, told = heard
    checkout.variables["DATA_WEBHOOK"] = url
    repro = (checkout.programs / "dvc", "repro", checkout.stage("transform"))
    checkout.must(*repro)
    raw, before = checkout.lies("raw"), checkout.lies("interim")
    assert sorted(before) == ["departures.parquet", "weather.parquet"] and not told
    checkout.commit("a version")
    shutil.rmtree(checkout.root / "delivered")
    change = deliveries.some({"carrier": "ZZ"})
    deliveries.changed(deliveries.write(tmp_path / "good"), checkout.root / "delivered", "flights.csv.zip", change)
    done = checkout.run(*repro)
    name = "expect_column_values_to_be_in_set"
    assert done.returncode != 0 and f"flights.{name}(carrier): 1 row is not so" in done.stderr
    assert "Traceback" not in done.stderr and url not in done.stdout + done.stderr
    [message] = told
    assert [each["expectation"] for each in message["failed"]] == [name] and "carrier" in message["text"]
    assert checkout.lies("interim") == before, "what was made of the data before is as it was"
    changed = checkout.must("git", "diff", "--name-only").split()
    assert changed == ["training/families/flights/pipeline/dvc.lock"], "DVC takes back nothing that git knows"

    checkout.must("git", "checkout", "--quiet", ".")
    checkout.dvc("checkout", "--allow-missing")
    assert checkout.lies("raw") == raw, "and of the raw data DVC has the version before"


def test_a_family_made_from_this_one_has_a_pipeline_beside_it(checkout: Checkout) -> None:
    (checkout.pipeline / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    checkout.python("training", "new", "ferries", "--like", "flights")
    listed = checkout.dvc("stage", "list", "--recursive", ".")
    for family in ("flights", "ferries"):
        assert f"families/{family}/pipeline/dvc.yaml:ingest " in listed and f"data/raw/{family}" in listed
    assert not (checkout.root / "training" / "families" / "ferries" / "pipeline" / "dvc.lock").exists()


def test_every_file_that_a_stage_depends_on_is_there() -> None:
    """A file that was moved would stop the pipeline of everybody."""
    folder = layout.ROOT / "training" / "families" / "flights" / "pipeline"
    held = yaml.safe_load((folder / "dvc.yaml").read_text())
    names = held["vars"][0] | {"ingest.source": "training", "train.preset": "lightgbm"}
    found = [
        re.sub(r"\$\{([\w.]+)\}", lambda match: names[match[1]], path)
        for stage in held["stages"].values()
        for path in stage["deps"]
    ]
    ours = [path for path in found if not path.startswith("data/")]
    assert len(ours) > 15 and [path for path in ours if not (layout.ROOT / path).exists()] == []
