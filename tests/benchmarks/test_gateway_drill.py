"""The drill through the gateway: nothing fails, and who fails is found."""

from datetime import UTC, datetime

import pytest

from benchmarks.gateway import drill
from benchmarks.gateway.drill import EVENTS, Outcome
from benchmarks.gateway.hurried import TIMEOUT_S, Hurried, Told
from deploy.drill.results import DrillResult, Event
from deploy.drill.run import DrillSettings
from deploy.drill.traffic import SentRequest
from tests.conftest import Workspace

RIGHT = Told(200, None, 0.1)
SHED = Told(503, "1", 0.9)


def hurried(*told: Told) -> Hurried:
    found = Hurried.__new__(Hurried)  # one that has asked
    found.told = [*told]
    return found


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        (RIGHT, None),
        (SHED, None),
        (Told(503, None, 0.9), "status 503"),
        (Told(504, None, 0.9), "status 504"),
        (Told(404, None, 0.1), "status 404"),
        (Told(0, None, 0.1), "no answer at all"),
        (Told(200, None, TIMEOUT_S + 1), "told after 2.0 s, with a deadline of 1 s"),
    ],
)
def test_callers_in_a_hurry_get_an_answer_or_when_to_come_back(told: Told, fault: str | None) -> None:
    assert told.fault == fault
    found = hurried(RIGHT, SHED, told).findings
    assert found == ([f"1 callers in a hurry: {fault}"] if fault else [])


def test_a_drill_in_which_nobody_met_the_gap_shows_nothing() -> None:
    assert hurried(RIGHT, RIGHT).findings == ["no caller in a hurry met a server that was gone"]


def test_one_request_that_failed_is_one_too_many() -> None:
    sent = (SentRequest(0, "http", 0.0, 1.0, ""), SentRequest(0, "http", 1.0, 2.0, "gone"))
    sent = (*sent, SentRequest(0, "http", 2.0, 3.0, ""))
    result = DrillResult(datetime.now(UTC), "model", 1, sent, (Event("server killed", 1.0, 2.5, None),), retries=True)
    outcome = Outcome(result, 1, hurried(RIGHT, SHED))
    assert outcome.findings == ["server killed: 1 of 3 requests failed: gone"]
    assert outcome.as_json()["hurried"]["statuses"] == {"200": 1, "503": 1}


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize("servers", [1, 2])
def test_a_whole_drill_through_the_gateway_holds(released: Workspace, servers: int) -> None:
    settings = DrillSettings(released.repository, requests=500, connections=4, quiet_s=0.3)
    outcome = drill.drill(settings, servers)
    assert outcome.findings == []
    assert [found.event for found in outcome.result.event_results] == [name for name, _ in EVENTS]
    assert {sent.protocol for sent in outcome.result.sent} == {"http"}
