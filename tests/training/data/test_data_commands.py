"""The commands of the stages: what a user does wrong is said in words, and nothing that was there is touched."""

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import yaml

from contracts import layout
from contracts.judging.metric import AUC, BRIER, Predicted
from contracts.samples import Group, Split
from tests.command_lines import run_here
from tests.training.data import deliveries
from training.data import expecting, gate, kept, parameters, places, verdict, webhook
from training.data.verdict import Outcome, Verdict
from training.errors import DataError
from training.families.flights.pipeline import stages

FAMILY = "flights"
LATE = Outcome("t", "expect_column_mean_to_be_between", "late", {"max_value": 1}, False, 2.0, None, (), None)


def run(data: Path, *arguments: str | Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """`python -m training data …` with its data, artifacts and parameters in `data`."""
    environment = {**os.environ, "DATA_DIR": str(data), "ARTIFACTS_DIR": str(data / "artifacts"), **more}
    return run_here(["training", "data", *map(str, arguments)], environment)


def parameters_of(folder: Path, **changed: Mapping[str, object]) -> Path:
    held = yaml.safe_load(parameters.path_of(FAMILY).read_text())
    for stage, values in changed.items():
        held[stage] |= values
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(held))
    return path


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deliveries.write(tmp_path_factory.mktemp("delivered"))


def test_raw_is_what_was_delivered_of_the_months_that_were_chosen(delivered: Path, tmp_path: Path) -> None:
    params = parameters_of(tmp_path, ingest={"source": str(delivered), "months": [2, 3]})
    done = run(tmp_path, "ingest", FAMILY, "--params", params)
    assert done.returncode == 0 and f"Wrote {59 * 9} flights of 2 months" in done.stdout, done.stderr
    raw = tmp_path / "raw" / FAMILY
    for name in ("flights.csv.zip", "weather.csv"):
        assert set(pd.read_csv(raw / name)["month"]) == {2, 3}
    assert (raw / "planes.csv").read_bytes() == (delivered / "planes.csv").read_bytes()
    before = {path.name: path.read_bytes() for path in raw.iterdir()}
    assert run(tmp_path, "ingest", FAMILY, "--params", params).returncode == 0
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == before, "the same bytes, for the same version"


def test_transform_and_sample_keep_every_month(delivered: Path, tmp_path: Path) -> None:
    params = parameters_of(tmp_path, ingest={"source": str(delivered)}, sample={"rows": 10})
    interim = tmp_path / "interim" / FAMILY
    interim.mkdir(parents=True)
    (interim / "carrier_delays.parquet").write_text("of another stage")
    assert run(tmp_path, "ingest", FAMILY, "--params", params).returncode == 0
    assert run(tmp_path, "transform", FAMILY).returncode == 0
    assert {path.name for path in interim.iterdir()} == {
        *("departures.parquet", "weather.parquet", "carrier_delays.parquet")
    }
    processed = tmp_path / "processed" / FAMILY
    interim.rename(processed.parent.mkdir() or processed)
    done = run(tmp_path, "sample", FAMILY, "--params", params)
    taken = pd.read_parquet(tmp_path / "sample" / FAMILY / stages.PREPARED)["departure"].dt.month.value_counts()
    assert done.returncode == 0 and len(taken) == 12 and taken.between(10, 11).all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"months": [0, 1]}, "months are numbers from 1 to 12, not [0, 1]"),
        ({"months": []}, "months are numbers from 1 to 12, not []"),
        ({"months": "all"}, "months are numbers from 1 to 12, not 'all'"),
        ({"months": [True]}, "months are numbers from 1 to 12, not [True]"),
        ({"source": "nowhere"}, "nowhere is no folder to take the flights from"),
        ({"source": "docs"}, "docs does not hold what was expected"),
    ],
)
def test_parameters_that_choose_nothing_are_refused(changed: Mapping[str, object], said: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / FAMILY
    raw.mkdir(parents=True)
    (raw / "flights.csv.zip").write_text("of before")
    done = run(tmp_path, "ingest", FAMILY, "--params", parameters_of(tmp_path, ingest=changed))
    assert done.returncode == 1 and f"error: {said}" in done.stderr and "Hint: " in done.stderr
    assert [path.name for path in raw.iterdir()] == ["flights.csv.zip"]


@pytest.mark.parametrize("rows", [0, -1, "many", None, 1.5])
def test_a_sample_of_nothing_is_refused(rows: object, tmp_path: Path) -> None:
    (tmp_path / "processed" / FAMILY).mkdir(parents=True)
    done = run(tmp_path, "sample", FAMILY, "--params", parameters_of(tmp_path, sample={"rows": rows}))
    assert done.returncode == 1 and f"error: rows is a number from 1 on, not {rows!r}" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "params.yaml cannot be read"),
        ("ingest: [", "params.yaml cannot be read"),
        ("ingest: 3", "has no parameters of ingest"),
        ("- ingest", "has no parameters of ingest"),
    ],
)
def test_parameters_that_are_none_are_refused(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "params.yaml").write_text(content)
    done = run(tmp_path, "ingest", FAMILY, "--params", tmp_path / "params.yaml")
    assert done.returncode == 1 and said in done.stderr


def test_only_lines_of_another_month_are_left_out(delivered: Path, tmp_path: Path) -> None:
    """What says of no month that it is one of them is for the gate to see; names may be in quotes, lines blank."""
    folder = tmp_path / "as it came"
    shutil.copytree(delivered, folder)
    columns, *lines = (folder / "weather.csv").read_text().splitlines()
    quoted = ",".join(f'"{name}"' for name in columns.split(","))
    at = columns.split(",").index("month")
    january, february = (next(line for line in lines if line.split(",")[at] == month) for month in "12")
    odd = ["", "EWR", *(",".join([*january.split(",")[:at], month, "1"]) for month in ("13", "NA", '"1"', "2.0"))]
    (folder / "weather.csv").write_text("\n".join([quoted, january, february, *odd]))
    with zipfile.ZipFile(folder / "flights.csv.zip", "a") as archive:
        archive.writestr("__MACOSX/._flights.csv", "what macOS adds")
    chosen = parameters_of(tmp_path, ingest={"source": str(folder), "months": [1, 3]})
    done = run(tmp_path, "ingest", FAMILY, "--params", chosen)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "raw" / FAMILY / "weather.csv").read_text().splitlines() == [quoted, january, *odd]


@pytest.mark.parametrize("broken", ["no zip", "two members", "a password", "empty", "not UTF-8", "missing"])
def test_a_delivery_that_is_none_is_refused(delivered: Path, broken: str, tmp_path: Path) -> None:
    folder = deliveries.changed(delivered, tmp_path / "broken", "planes.csv", lambda rows: rows)
    archive = folder / "flights.csv.zip"
    if broken == "no zip":
        archive.write_text("a,b\n1,2\n")
    elif broken == "missing":
        archive.unlink()
    elif broken == "not UTF-8":
        (folder / "weather.csv").write_bytes(b"origin,month\n\xff,1\n")
    elif broken == "a password":
        held = bytearray(archive.read_bytes())
        for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            held[held.index(mark) + at] |= 1
        archive.write_bytes(held)
    elif broken == "empty":
        archive.write_bytes(b"")
    else:
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr("more.csv", "a")
    done = run(tmp_path, "ingest", FAMILY, "--params", parameters_of(tmp_path, ingest={"source": str(folder)}))
    assert done.returncode == 1 and "does not hold what was expected" in done.stderr
    assert not (tmp_path / "raw" / FAMILY).exists()


def test_a_family_without_stages_is_not_offered(tmp_path: Path) -> None:
    done = run(tmp_path, "ingest", layout.DEFAULT_FAMILY)
    assert done.returncode == 2 and f"choose from {FAMILY}" in done.stderr.replace("'", "")


def test_data_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    for command in ("transform", "sample"):
        done = run(tmp_path, command, FAMILY)
        assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr, command


def test_dvc_tracks_data_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(layout.ROOT))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="DATA_DIR names another folder"):
        places.of(FAMILY)
    monkeypatch.delenv("DATA_DIR")
    assert places.of(FAMILY).raw == (layout.ROOT / "data").resolve() / "raw" / FAMILY


@pytest.mark.parametrize("link", ["data", "data/raw"])
def test_dvc_keeps_nothing_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    """It would say so once the stage is done, and has replaced what was there."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(DataError, match=f"{link} is a link"):
        places.of(FAMILY)


def test_an_address_that_is_none_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "hooks/secret", "https:///secret"):
        done = run(tmp_path, "validate", FAMILY, "raw", "--webhook", url)
        assert done.returncode == 1 and "the webhook is no address" in done.stderr and "secret" not in done.stderr


def test_a_webhook_that_does_not_answer_changes_nothing_of_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Verdict(FAMILY, "raw", {"t": 3}, (LATE,), "docs/index.html")
    text = str(gate.stop(found, "http://127.0.0.1:9/secret"))
    assert text.startswith("the raw data of flights did not pass its gate: 1 of 1 expectations failed")
    assert "t.expect_column_mean_to_be_between(late): found 2.0; expected " in text
    assert "the webhook was not told: 127.0.0.1: " in text and "secret" not in text


def test_a_webhook_that_sends_on_was_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a redirected POST urllib makes a GET: the other address answers, and was told nothing."""
    asked = []

    class Moved(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append("POST")
            self.send_response(301)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            asked.append("GET")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Moved) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        reason = webhook.tell(f"http://127.0.0.1:{server.server_port}/secret", Verdict(FAMILY, "raw", {}, (LATE,), ""))
        server.shutdown()
    assert reason == "127.0.0.1: Moved Permanently" and asked == ["POST"]


def test_a_verdict_for_machines_is_json_also_where_a_figure_is_none() -> None:
    found = Verdict(FAMILY, "raw", {"t": 0}, (replace(LATE, observed=float("nan"), examples=(float("inf"), 1)),), "")
    told = json.loads(verdict.as_json(found), parse_constant=pytest.fail)["outcomes"][0]
    assert told["observed"] is None and told["examples"] == [None, 1]


def test_what_could_not_be_asked_comes_last_and_is_no_pass() -> None:
    unasked = replace(LATE, observed=None, exception="the column late is not there", table="a")
    found = Verdict(FAMILY, "raw", {"a": 0, "t": 3}, (unasked, LATE, replace(LATE, success=True)), "docs")
    assert found.failed == (LATE, unasked)
    assert unasked.told == "could not be asked: the column late is not there"
    assert webhook.payload(found)["text"].count("\n") == 2  # type: ignore[attr-defined]


def test_what_made_texts_of_numbers_is_shown() -> None:
    """The library says that '>=' is not supported, and not which value it was."""
    table = pd.DataFrame({"temp": ["50.0", "50,5", None, "50,5"], "dewp": [1.0, 2.0, 3.0, 4.0]})
    assert expecting.texts(table, ["dewp", "temp"]) == 'temp has 2 of 3 values that are no numbers, as ["50,5"]'
    assert expecting.texts(table, ["dewp", None, "gone"]) is None


def test_a_verdict_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = Verdict(FAMILY, "raw", {"t": 3}, (LATE, replace(LATE, observed=float("nan"))), "docs")
    path = tmp_path / "verdict.json"
    from dataclasses import asdict

    path.write_text(json.dumps(asdict(found)))
    assert repr(verdict.read(path)) == repr(found)
    assert found.figures() == {"t": {"rows": 3, "mean(late)": 2.0}}, "what is no number is no figure"


def test_figures_and_curves_are_of_the_test_split_and_its_segments() -> None:
    late, probability = np.array([0, 0, 1, 1, 0, 1, 0, 0]), np.array([0.1, 0.2, 0.8, 0.9, 0.3, 0.4, 0.1, 0.2])
    parts = {"October": slice(0, 4), "November": slice(4, 6), "December": slice(6, 8)}
    groups = [Group({"x": probability[part]}, late[part], name=name) for name, part in parts.items()]
    values = [probability[part, None] for part in parts.values()]
    predicted, split = Predicted([], values, late), Split(tuple(groups))
    figures = kept._figures((AUC, BRIER), predicted, split)
    assert [figures[name]["samples"] for name in ("test", *parts)] == [8, 4, 2, 2]
    assert figures["October"]["auc"] == 1 and figures["test"]["auc_low"] <= figures["test"]["auc"] == 1
    assert "auc" not in figures["December"] and figures["December"]["brier"] > 0, "of one class there is none"
    json.dumps(figures, allow_nan=False)
    curves = kept._curves(AUC, predicted, split)
    assert [row[0] for row in curves["segments"][1]] == list(parts)
    heading, points = curves["roc"]
    assert heading == ("false_positive_rate", "true_positive_rate") and points[0] == (0, 0) and points[-1] == (1, 1)
    rates = np.array(points, dtype=float)
    assert (np.diff(rates, axis=0) >= 0).all() and np.trapezoid(rates[:, 1], rates[:, 0]) == pytest.approx(1)
    assert [row[1] for row in curves["calibration"][1]] == sorted(late.tolist())
