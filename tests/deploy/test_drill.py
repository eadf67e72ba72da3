"""A drill counts what clients notice, and says so when they notice something."""

import csv
import json
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tritonclient.http import InferenceServerClient

from contracts import repository
from contracts.golden import GoldenRequest
from deploy.drill import releases, results
from deploy.drill.events import EVENTS, Action, chosen
from deploy.drill.results import DrillResult, Event
from deploy.drill.run import DrillSettings, drill
from deploy.drill.server_copy import DrillCopy, next_version
from deploy.drill.traffic import SentRequest
from deploy.errors import DrillError
from deploy.triton import payload
from deploy.triton.settings import ADMIN_HEADER
from tests.conftest import FAMILY, MODEL, Workspace, new_workspace


def requests(connection: int, *moments: tuple[float, float], error: str = "") -> list[SentRequest]:
    return [SentRequest(connection, "http", start_s, end_s, error) for start_s, end_s in moments]


def event_result(event: Event, sent: list[SentRequest], connections: int = 1) -> results.EventResult:
    ordered = tuple(sorted(sent, key=lambda request: request.end_s))
    return DrillResult(datetime.now(UTC), "model", connections, ordered, (event,)).event_results[0]


@pytest.mark.parametrize(
    ("retries", "told"),
    [(False, "retries off; errors expected during crashes"), (True, "retries on; no errors expected")],
)
def test_the_picture_says_what_is_expected_in_plain_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: bool, told: str
) -> None:
    from matplotlib.figure import Figure

    texts = list[str]()

    def note(figure: Figure, *_: object, **__: object) -> None:
        figure.canvas.draw()
        found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
        texts.extend(artist.get_text() for artist in found)  # type: ignore[attr-defined]  # those that have one

    monkeypatch.setattr(Figure, "savefig", note)
    events = (Event("new version", 1.0, 2.0, None), Event("server killed", 5.0, 6.0, 10.0))
    sent = requests(0, (0, 0.9), (0.9, 1.1), (1.1, 5.1), (5.6, 7.0)) + requests(0, (5.1, 5.6), error="refused")
    ordered = tuple(sorted(sent, key=lambda request: request.end_s))
    results._draw(DrillResult(datetime.now(UTC), "model", 1, ordered, events, retries=retries), tmp_path / "drill.png")
    shown = "\n".join(texts)
    assert told in shown and "server killed\n1 errors, recovered in 2.0 s" in shown and "new version\n0 errors" in shown
    assert {"HTTP", "errors (1)", "request latency [ms]"} <= {*texts}
    assert "mathdefault" not in shown, "a power of ten is mathematical text, which the project's style has off"


def test_an_upgrade_that_nobody_noticed_holds() -> None:
    found = event_result(Event("new version", 1.0, 2.0, None), requests(0, (0, 0.9), (0.9, 1.1), (1.1, 2.5)))
    assert (found.requests, found.failures, found.held) == (3, 0, True)
    assert found.gap_ms == pytest.approx(1400)
    assert found.recovery_s == pytest.approx(0.1)
    assert (found.p99_before_ms, found.p99_during_ms, found.p99_after_ms) == pytest.approx((900, 200, 1400))


def test_one_failure_is_one_too_many_for_an_upgrade() -> None:
    sent = requests(0, (0, 0.9), (1.2, 2.5)) + requests(0, (0.9, 1.2), error="no such model")
    found = event_result(Event("new version", 1.0, 2.0, None), sent)
    assert found.problem == "1 of 3 requests failed: no such model"
    assert found.errors == {"no such model": 1}


def test_a_crash_is_over_when_the_last_connection_is_answered_for_good() -> None:
    quick = requests(0, (0, 0.9), (1.3, 1.4)) + requests(0, (0.9, 1.3), error="refused")
    slow = requests(1, (0, 0.9), (1.5, 1.6), (3.0, 3.5)) + requests(1, (1.6, 3.0), error="refused")
    found = event_result(Event("server killed", 1.0, 3.5, 2.0), quick + slow, connections=2)
    assert found.recovery_s == pytest.approx(2.5)
    assert found.problem == "back after 2.5 s, and not 2 s"
    assert found.gap_ms == pytest.approx(2100)  # of connection 0, from 1.4 to the end
    assert found.gap_all_ms == pytest.approx(1900)


def test_a_connection_that_is_not_answered_again_is_seen() -> None:
    sent = requests(0, (0, 0.9), (1.2, 2.5)) + requests(1, (0, 0.9)) + requests(1, (0.9, 2.5), error="timed out")
    found = event_result(Event("stub killed", 1.0, 2.0, 3.0), sent, connections=2)
    assert found.recovery_s is None
    assert found.problem == "not every connection was answered again: timed out"


def test_every_request_belongs_to_the_event_that_is_nearest() -> None:
    sent = tuple(requests(0, *((moment, moment + 1.0) for moment in range(10))))
    events = (Event("one", 2.0, 3.0, None), Event("other", 7.0, 8.0, None))
    counts = [f.requests for f in DrillResult(datetime.now(UTC), "model", 1, sent, events).event_results]
    assert counts == [5, 6]  # the one that ended at 5.0, just between them, is both's


def metadata(**inputs: str) -> dict[str, Any]:
    """Of a model with such inputs, as its server describes it."""
    return {"name": "any", "inputs": [{"name": n, "datatype": d, "shape": [-1, 2]} for n, d in inputs.items()]}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"x": "FP32", "y": "INT64"}, "zeros: no golden requests"),
        ({"image": "BYTES"}, "plain grey images: no golden requests"),
        ({"image": "BYTES", "scale": "FP32"}, "plain grey images, and zeros as scale: no golden requests"),
    ],
)
def test_what_is_made_up_is_called_by_its_name(inputs: dict[str, str], said: str) -> None:
    made = payload.made_up(metadata(**inputs), 3)
    assert str(made) == f"{said}; answers compared with the idle server's only"
    assert len(made.requests) == 3
    for request in made.requests:
        assert request.inputs.keys() == inputs.keys()
        assert {values.shape for values in request.inputs.values()} == {(1, 2)}


def test_an_answer_under_load_is_the_references_and_the_idle_servers() -> None:
    near, far = (np.array([[value]], np.float32) for value in (1.0, 1.5))
    known = GoldenRequest("any", {}, {"y": near}, {"y": 0.6})
    assert payload.fault(known, {"y": near * 1.0001}, {"y": near}) is None
    assert payload.fault(known, {"y": far}, {"y": near}) == "a wrong answer: the idle server gave another one"
    assert payload.fault(known, {"y": 2 * far}, {"y": 2 * far}) == "a wrong answer: y is 2 away, 0.6 at most"
    unknown = GoldenRequest("any", {}, {})
    assert payload.fault(unknown, {"y": far}, {"y": far}) is None
    assert payload.fault(unknown, {"y": far}, {"y": near}) == "a wrong answer: the idle server gave another one"


def test_some_of_the_events_happen_in_the_drills_order() -> None:
    assert chosen(()) == EVENTS
    assert [name for name, *_ in chosen(("server killed", "new version"))] == ["new version", "server killed"]
    with pytest.raises(DrillError, match=r"(?s)no event 'a flood'.*new version; "):
        chosen(("new version", "a flood"))


# How soon is no question for a test.
PATIENT = [(name, act, limit_s and 60.0) for name, act, limit_s in EVENTS]
LONG = (  # left to the slow test
    *("changes rolled back", "changes promoted"),
    *("bad models, server killed", "crashing model", "crash loop"),
)


@pytest.fixture
def settings(released: Workspace) -> DrillSettings:
    return DrillSettings(released.repository, requests=1000, connections=4, quiet_s=0.3)


def test_upgrades_and_crashes_are_drilled_on_a_copy(
    settings: DrillSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the copy is made
    before = {path: path.stat().st_mtime_ns for path in settings.repository.rglob("*")}
    result = drill(settings, [event for event in PATIENT if event[0] not in LONG])
    assert result.passed, result.verdict()
    new, _, bad, back, changed, *_ = result.event_results
    assert not any(f.failures for f in result.event_results if f.limit_s is None)
    assert new.detail == f"{MODEL}: version 1 → 2"
    assert "onnxruntime cannot load" in bad.detail
    assert back.detail == f"{MODEL}: version 2 → 1"
    assert changed.detail == f"{MODEL}: version 1 → 4"
    assert len(result.sent) >= 1000
    assert {r.protocol for r in result.sent} == {"http", "grpc"}
    assert {path: path.stat().st_mtime_ns for path in settings.repository.rglob("*")} == before
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if f"{tmp_path}/drill-" in " ".join(p.info["cmdline"] or [])
    ]

    folder = results.save(result, tmp_path / "drill")
    assert {path.name for path in folder.iterdir()} == {"requests.csv", "drill.json", "drill.png"}
    assert json.loads((folder / "drill.json").read_text())["passed"] is True
    with (folder / "requests.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(result.sent)


@pytest.mark.slow
@pytest.mark.parametrize("ensembles", [False, True], ids=["one process", "ensembles"])
def test_a_whole_drill_holds(settings: DrillSettings, ensembles: bool) -> None:
    result = drill(replace(settings, ensembles=ensembles), PATIENT)
    assert result.passed, result.verdict()
    details = {found.event: found.detail for found in result.event_results}
    assert details["changes rolled back"] == f"{MODEL}: version 4 → 1"
    assert details["changes promoted"] == f"{MODEL}: version 1 → 4"
    told = "left out with its reason: drill_typo, drill_no_dims, drill_import; served: drill_talks"
    assert details["bad models, server killed"] == told
    assert details["crashing model"].startswith("left out after 2 restarts")
    assert details["crash loop"].startswith("kills until `deploy status` said 'crash loop': 1;")


def unload_and_load(copy: DrillCopy) -> str:
    """The upgrade that drops requests: Triton's own unload before the load."""
    key = (copy.root / "artifacts" / "server" / "admin.key").read_text().strip()
    with InferenceServerClient(copy.http) as client:
        client.unload_model(FAMILY, headers={ADMIN_HEADER: key})
        client.load_model(FAMILY, headers={ADMIN_HEADER: key})
    return "unloaded and loaded"


def change_behind_its_back(copy: DrillCopy) -> str:
    """What serves is not what its release says, as a server with one configuration for all versions would do."""
    releases.publish_changed_release(copy)
    newest = repository.versions(copy.directory)[-1]
    (copy.directory / str(newest) / "release" / MODEL / "config.pbtxt").unlink()
    shutil.copy(copy.directory / "config.pbtxt", copy.directory / str(newest) / "release" / MODEL)
    return releases.as_released(copy, "")


def publish_and_do_not_load(copy: DrillCopy) -> str:
    with next_version(copy.directory):
        pass
    return releases.as_released(copy, "")


@pytest.fixture(scope="module")
def troubled(release: Path, tmp_path_factory: pytest.TempPathFactory) -> DrillResult:
    """A drill of a command that fails, and of an upgrade that drops requests."""
    workspace = new_workspace(tmp_path_factory.mktemp("troubled"))
    shutil.copytree(release, workspace.model / "1")
    events: list[tuple[str, Action, float | None]] = [
        ("nonsense", lambda copy: copy.must("rollback", "nothing"), None),
        ("not loaded", publish_and_do_not_load, None),
        ("unload", unload_and_load, None),
        ("changed", change_behind_its_back, None),
    ]
    return drill(DrillSettings(workspace.repository, requests=1000, connections=4, quiet_s=0.3), events)


def test_an_upgrade_that_drops_requests_is_found_out(troubled: DrillResult) -> None:
    assert not troubled.passed and not troubled.event_results[2].held
    assert troubled.event_results[2].failures > 0
    assert troubled.verdict().startswith("FAILED")
    assert "unload: " in troubled.verdict()


def test_a_command_that_fails_is_found_out(troubled: DrillResult) -> None:
    assert not troubled.passed and not troubled.event_results[0].held
    assert "there is no model nothing" in troubled.verdict()
    assert troubled.event_results[0].failures == 0


def test_a_configuration_that_is_not_its_releases_is_found_out(troubled: DrillResult) -> None:
    assert not troubled.event_results[3].held
    assert f"{MODEL} does not run with the configuration of release 3" in troubled.event_results[3].problem
    assert troubled.event_results[3].failures == 0


def test_another_release_that_answers_is_found_out(troubled: DrillResult) -> None:
    problem = troubled.event_results[1].problem
    assert "release 2 of " in problem and "it is 1 that does" in problem


def test_without_a_release_there_is_nothing_to_drill(workspace: Workspace) -> None:
    done = workspace.run("deploy", "drill", "--repository", workspace.repository)
    assert done.returncode == 1
    assert "nothing is published" in done.stderr
    assert "Traceback" not in done.stderr
