"""Two results compared: noise is no change, the machine's change is nobody's, and what has changed is found."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results
from benchmarks.errors import MeasurementError
from benchmarks.reporting import comparing, measurements
from benchmarks.reporting.comparing import FIGURES, compare
from benchmarks.reporting.measurements import Measurement, Result
from tests.workspace import Workspace

SYSTEMS = ("ours", "in-process", "a", "b", "c", "d")


def result(
    random: np.random.Generator,
    change: float = 1.0,
    rounds: int = 5,
    systems: tuple[str, ...] = SYSTEMS,
    noise: float = 0.04,
    by_run: float = 0.0,
) -> Result:
    """A run on a machine of its own speed; of "ours" throughput is `change` times what it was.

    Args:
        noise: Of each round.
        by_run: Of each system in this run, the same in all of its rounds.
    """
    machine = random.normal(0, 0.15)
    found = []
    for system in systems:
        for connections in (1, 16, 64):
            figures, own = [], random.normal(0, by_run)
            for _ in range(rounds):
                drawn = {
                    name: float(np.exp(5 + (1 if more else -1) * machine + own + random.normal(0, noise)))
                    for name, more in FIGURES.items()
                }
                drawn["per_s"] *= change if system == "ours" else 1
                figures.append(drawn)
            found.append(Measurement("small", system, connections, tuple(figures), {}))
    return Result(Path("some.json"), "peers", {}, {}, tuple(found))


def test_two_runs_of_the_same_are_seldom_told_apart_although_the_machine_is_another() -> None:
    random = np.random.default_rng(0)
    wrong = sum(
        any(change.verdict in ("better", "worse") for change in compare(result(random), result(random)))
        for _ in range(30)
    )
    assert wrong <= 4, "of 30, where one or two are what it is made for"


def test_of_two_noisy_rounds_nothing_is_known_and_nothing_breaks() -> None:
    """The interval of so little would be wider than a float holds."""
    random, systems = np.random.default_rng(0), tuple("abcdefghijklmnop")
    before, after = (result(random, rounds=2, systems=systems, noise=noise) for noise in (0.01, 3.0))
    assert {change.verdict for change in compare(before, after)} == {"unknown"}


def test_what_a_system_is_by_chance_in_one_run_is_no_change_however_alike_its_rounds_are() -> None:
    random = np.random.default_rng(7)
    wrong = sum(
        any(
            change.verdict in ("better", "worse")
            for change in compare(result(random, noise=0.01, by_run=0.1), result(random, noise=0.01, by_run=0.1))
        )
        for _ in range(20)
    )
    assert wrong <= 4


@pytest.mark.parametrize(("by", "verdict"), [(0.8, "worse"), (1.25, "better")])
def test_what_has_changed_is_found_and_of_nobody_else(by: float, verdict: str) -> None:
    random = np.random.default_rng(1)
    changes = compare(result(random, noise=0.02), result(random, by, noise=0.02))
    assert {(c.connections, c.verdict) for c in changes if c.system == "ours" and c.figure == "per_s"} == {
        (connections, verdict) for connections in (1, 16, 64)
    }
    assert all(change.verdict != verdict for change in changes if change.system != "ours")


def test_noise_is_said_to_be_noise() -> None:
    random = np.random.default_rng(2)
    loud = compare(result(random, noise=0.3), result(random, noise=0.3))
    assert {change.verdict for change in loud} == {"unknown"}
    calm = compare(result(random, noise=0.001), result(random, noise=0.001))
    assert {change.verdict for change in calm} == {"the same"}


def test_one_system_alone_has_nothing_to_take_the_machine_off() -> None:
    random = np.random.default_rng(3)
    changes = compare(*(result(random, systems=("ours",)) for _ in range(2)))
    assert {change.others for change in changes} == {None}


def test_what_cannot_be_compared_is_refused() -> None:
    random = np.random.default_rng(4)
    one = result(random)
    with pytest.raises(MeasurementError, match="have nothing in common of nobody"):
        compare(one, one, "nobody")
    with pytest.raises(MeasurementError, match="measured in one round"):
        compare(one, result(random, rounds=1))


def written(path: Path, found: Result, **more: object) -> Path:
    told = {
        "schema": results.SCHEMA,
        "what": "peers",
        "origin": {"commit": "abc", "dirty": False, "machine": {"cpu": "A"}, "versions": {}},
        "measurements": [
            {"task": m.task, "system": m.system, "connections": m.connections, "rounds": m.rounds, "latency_us": {}}
            for m in found.measurements
        ],
        **more,
    }
    path.write_text(json.dumps(told))
    return path


def test_the_command_fails_where_something_is_worse_and_names_what_else_differs(
    tmp_path: Path, workspace: Workspace
) -> None:
    random = np.random.default_rng(5)
    other = {"commit": "def", "dirty": True, "machine": {"cpu": "B"}, "versions": {}}
    before = written(tmp_path / "a.json", result(random))
    after = written(tmp_path / "b.json", result(random, 0.7), origin=other)
    done = workspace.run_here("benchmarks", "compare", before, after, "--system", "ours")
    assert done.returncode == 1
    assert "worse by more than 5 %" in done.stdout and "a commit with changes beside it (def)" in done.stdout
    assert 'machine: {"cpu": "A"} and {"cpu": "B"}' in done.stdout
    same = workspace.run_here("benchmarks", "compare", before, before, "--json")
    assert same.returncode == 0 and json.loads(same.stdout)["worse"] == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no result"),
        ("[]", "is no result that says where it comes from"),
        ('{"schema": 99}', "is of schema 99, this reads up to 1"),
        ('{"schema": 1}', "has no measurements that can be read"),
        ('{"schema": 1, "measurements": []}', "its list of measurements is empty"),
        (
            '{"schema": 1, "measurements": [{"task": "a", "system": "b", "connections": 1, "rounds": []}]}',
            "without rounds",
        ),
        (
            '{"schema": 1, "measurements": [{"task": "a", "system": "b", "connections": 1, "rounds": [[]]}]}',
            "no measurements",
        ),
    ],
)
def test_a_file_that_is_no_result_is_named(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(MeasurementError, match=told):
        measurements.read(path)


def test_the_smallest_change_that_matters_is_what_one_says() -> None:
    random = np.random.default_rng(6)
    before, after = result(random, noise=0.001), result(random, 0.97, noise=0.001)
    by_least = {
        least: {c.verdict for c in compare(before, after, "ours", least) if c.figure == "per_s"}
        for least in (0.01, 0.05)
    }
    assert by_least == {0.01: {"worse"}, 0.05: {"the same"}}
    assert comparing.LEAST == 0.05


def test_what_else_differs_is_told() -> None:
    def told(graph: str, bodies: str, seconds: float, generator: str, settings: int, version: str) -> Result:
        task = {"name": "small", "graph_sha256": graph, "bodies_sha256": bodies}
        system = {"task": "small", "name": "a", "settings": {"workers": settings}, "versions": {"a": version}}
        found = {"seconds": seconds, "generator": {"program": generator}, "tasks": [task], "systems": [system]}
        return Result(Path("some.json"), "peers", {}, found, ())

    before = told("g", "b", 3, "wrk 4", 2, "1.0")
    assert not comparing.differences(before, before)
    assert comparing.differences(before, told("h", "c", 1, "wrk 5", 1, "1.1")) == [
        "seconds: 3 and 1",
        'generator: {"program": "wrk 4"} and {"program": "wrk 5"}',
        "the graph of small is another one",
        "small is asked otherwise",
        'small, a: versions: {"a": "1.0"} and {"a": "1.1"}',
        'small, a: settings: {"workers": 2} and {"workers": 1}',
    ]
    older = Result(Path("some.json"), "peers", {}, {**before.told, "tasks": [], "systems": []}, ())
    assert not comparing.differences(before, older), "what one does not say is no difference"
