"""The soak through the gateway: records are answers, and whatever is not as it must be is found."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.gateway import asking, soak_run
from benchmarks.gateway.asking import Load
from benchmarks.gateway.soak import summary, table, verdict
from benchmarks.gateway.soak_run import Outage, Sample, Settings, Soak, Stored
from store.writing.state import State

KINDS = {("raw", 200): (90, 225), ("raw", 500): (2, 2), ("typed", 200): (8, 16)}  # requests, rows
IDS = (17, 23)


def a_soak() -> Soak:
    """One of a hundred requests that holds."""
    requests, rows = ({kind: both[index] for kind, both in KINDS.items()} for index in (0, 1))
    load = Load((), 100, 100, 100, Counter(requests), Counter(rows), ids=IDS)
    return Soak(
        Settings(requests=100, kills=1),
        load,
        samples=[Sample(float(n), n, max(0, n - 20), 100.0 + n / 50, 60.0) for n in range(101)],
        outages=[Outage(50.0, 50, 5.0)],
        writers={1},
        seconds=100.0,
        caught_up_s=1.0,
        stored=Stored(requests, rows, IDS, (100, 243, 2)),
    )


def test_a_soak_in_which_every_answer_has_its_record_holds() -> None:
    soak = a_soak()
    assert soak.findings == []
    assert verdict(soak).startswith("✓ 100 answers, 1 a second, and as many records, each the answer's own; 20 records")
    figures = json.loads(json.dumps(summary(soak)))
    assert figures["holds"] and figures["answers"] == figures["records"] == {
        "raw 200": 90,
        "raw 500": 2,
        "typed 200": 8,
    }
    assert table(soak).row_count == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: replace(s.stored, requests={**s.stored.requests, ("raw", 200): 89}), "89 records, and 90 answered"),
        (lambda s: replace(s.stored, requests={**s.stored.requests, ("raw", 499): 1}), "1 records, and 0 answered"),
        (lambda s: replace(s.stored, rows={**s.stored.rows, ("raw", 200): 226}), "226 rows of records"),
        (lambda s: replace(s.stored, ids=(18, 22)), "others than the answers"),
        (lambda s: replace(s.stored, usage=(101, 243, 2)), "usage has (101, 243, 2)"),
    ],
    ids=["lost", "too many", "rows", "another", "usage"],
)
def test_a_record_too_few_too_many_or_another_is_found(change: object, said: str) -> None:
    soak = a_soak()
    soak.stored = change(soak)  # type: ignore[operator]
    assert [finding for finding in soak.findings if said in finding]
    assert verdict(soak).startswith("✗ FAILED: ")


def test_whatever_else_is_wrong_is_found() -> None:
    soak = a_soak()
    soak.load.broken, soak.load.wrong = 1, Counter({("raw", 503): 2})
    soak.writer, soak.writers, soak.outages = State(duplicates=3), {1, 2}, []
    soak.samples = [replace(each, gateway_mb=100.0 + each.answered / 5) for each in soak.samples]
    assert len(soak.findings) == 6, soak.findings
    grown = [finding for finding in soak.findings if "grew" in finding]
    assert grown == ["the gateway grew from 107.5 to 117.5 MB, by more than 5%"]


def test_a_mixture_has_every_kind_in_its_share() -> None:
    made = asking.mixture("sum", "Bearer x")
    assert Counter((sent.door, sent.right) for sent in made) == {("raw", 200): 88, ("raw", 500): 2, ("typed", 200): 10}
    assert Counter(sent.rows for sent in made if sent.right == 200) == {1: 22, 2: 32, 3: 22, 4: 22}


@pytest.mark.heavy
def test_a_short_soak_holds_while_the_database_is_killed() -> None:
    """All of it but its length, for which memory is too young."""
    soak = soak_run.run(Settings(requests=3000, kills=1, away_s=1.0, connections=8, limit=1.0, look_s=0.02))
    assert soak.findings == []
    assert soak.load.answers[("raw", 200)] == soak.stored.requests[("raw", 200)] == 2640
    assert soak.outages[0].away_s > 1.0
