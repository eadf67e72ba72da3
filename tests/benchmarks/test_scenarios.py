"""Scenarios: what is sent when, what became of it, recorded traffic; Locust and k6 against a real server."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import MeasurementError
from benchmarks.scenarios import recording, scenario
from benchmarks.scenarios.scenario import SCENARIOS, Scenario
from benchmarks.scenarios.tally import Limits, Tally, merged, outcome
from contracts.golden import GoldenRequest
from tests.benchmarks.conftest import Site


@pytest.mark.parametrize("name", SCENARIOS)
def test_as_many_are_due_as_the_rate_says_and_the_same_each_time(name: str) -> None:
    of = scenario.named(name, 200, 60)
    due_s = of.due_s(0)
    assert of.seconds == pytest.approx(60)
    assert abs(len(due_s) - of.requests) < 4 * of.requests**0.5
    assert np.all(np.diff(due_s) >= 0) and due_s[0] >= 0 and due_s[-1] <= 60
    assert np.array_equal(due_s, scenario.named(name, 200, 60).due_s(0))


def test_the_shapes_are_what_their_names_say() -> None:
    def per_s(of: Scenario, begin_s: float, end_s: float) -> float:
        due_s = of.due_s(0)
        return float(((due_s >= begin_s) & (due_s < end_s)).sum()) / (end_s - begin_s)

    spike, ramp = scenario.spike(500, 100), scenario.ramp(500, 100)
    assert per_s(spike, 0, 35) == pytest.approx(100, rel=0.1)
    assert per_s(spike, 42, 58) == pytest.approx(500, rel=0.1)
    assert per_s(spike, 65, 100) == pytest.approx(100, rel=0.1)
    assert per_s(ramp, 0, 50) == pytest.approx(125, rel=0.1)
    assert per_s(ramp, 50, 100) == pytest.approx(375, rel=0.1)
    assert scenario.mixed(1, 1).are_urgent(10_000, 0).mean() == pytest.approx(0.2, rel=0.1)
    assert not scenario.steady(1, 1).are_urgent(100, 0).any()


@pytest.mark.parametrize(("name", "per_s", "seconds"), [("steddy", 1, 1), ("steady", 0, 1), ("ramp", 1, float("nan"))])
def test_what_is_no_scenario_is_said(name: str, per_s: float, seconds: float) -> None:
    with pytest.raises(MeasurementError, match="scenario"):
        scenario.named(name, per_s, seconds)


def test_percentiles_are_exact_to_a_percent_however_many_processes_counted() -> None:
    latencies = np.random.default_rng(0).lognormal(1, 1, 20_000)
    parts = []
    for part in np.array_split(latencies, 3):
        tally = Tally()
        for latency_ms in part.tolist():
            tally.answered(latency_ms)
        parts.append({"all": Tally.of(json.loads(json.dumps(tally.as_json())))})
    found = merged(parts)["all"]
    assert found.requests == 20_000
    for percent in (50, 95, 99, 99.9):
        assert found.percentile_ms(percent) == pytest.approx(np.percentile(latencies, percent), rel=0.02)


def test_what_is_beyond_a_limit_is_said_and_what_is_not_passes() -> None:
    tally = Tally()
    for latency_ms in (1.0,) * 95 + (50.0,) * 5:
        tally.answered(latency_ms)
    of = outcome("all", tally, 10)
    assert of.per_s == 10
    assert not of.findings(Limits(p95_ms=2, p99_ms=60))
    assert "p99 is 49.9" in of.findings(Limits(p99_ms=20))[0]
    tally.failed("refused")
    [told] = outcome("all", tally, 10).findings(Limits(p99_ms=60))
    assert "0.99% of 101 failed" in told and "refused" in told
    assert not outcome("all", tally, 10).findings(Limits(errors=0.01))
    assert outcome("all", Tally(), 10).findings(Limits()) == ["all: nothing was sent"]
    failed = Tally()
    failed.failed("no answer")
    assert "p99 is nan" in outcome("all", failed, 1).findings(Limits(p99_ms=1, errors=1))[0]


def test_recorded_traffic_is_read_as_it_was_written(tmp_path: Path) -> None:
    inputs = {
        "image": np.array([[b"\x89PNG\xff\x00"]], np.object_),
        "text": np.array([["grün".encode()]], np.object_),
        "x": np.array([[1.5, -2]], np.float32),
    }
    request = GoldenRequest("model", inputs, {"y": np.zeros(1)})
    path = tmp_path / "traffic.jsonl"
    path.write_text("\n".join(recording.line(at_s, request, n % 2) for n, at_s in enumerate((10.0, 10.5, 12.0))) + "\n")
    read = recording.read(path, speed=2)
    assert [(each.at_s, each.priority) for each in read] == [(0, 0), (0.25, 1), (1, 0)]
    assert read[0].request is read[2].request, "equal ones are held once"
    for name, values in inputs.items():
        assert np.array_equal(read[0].request.inputs[name], values)
        assert read[0].request.inputs[name].dtype == values.dtype


GOOD = '{"at_s": 1, "model": "m", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("not JSON", "line 2"),
        ("[]", "line 2"),
        ('{"at_s": 2, "model": "m"}', "no 'inputs'"),
        ('{"at_s": 2, "model": "m", "inputs": []}', "no inputs"),
        (GOOD.replace('"at_s": 1', '"at_s": 0.5'), "behind 1"),
        (GOOD.replace('"at_s": 1', '"at_s": NaN'), "line 2"),
        (GOOD.replace("FP32", "FP33"), "FP33"),
        (GOOD.replace('"shape": [1]', '"shape": [2]'), "reshape"),
        (GOOD.replace('"FP32", "data": [1]', '"BYTES", "b64": ["%"]'), "line 2"),
        (GOOD.replace("}]}", '}], "priority": -1}'), "negative"),
    ],
)
def test_a_line_that_is_no_request_is_named(line: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "traffic.jsonl").write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(MeasurementError) as caught:
        recording.read(tmp_path / "traffic.jsonl")
    assert told in str(caught.value) and "line 2" in str(caught.value)


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    for path, content in ((tmp_path / "missing", None), (tmp_path / "empty", b"\n"), (tmp_path / "binary", b"\xff\n")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(MeasurementError):
            recording.read(path)
    with pytest.raises(MeasurementError, match="--speed"):
        recording.read(tmp_path / "missing", speed=0)


def outcomes(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    figures = json.loads(done.stdout.splitlines()[-1])
    return {each["name"]: each for each in figures["outcomes"]}


def sent(of: Scenario) -> int:
    return len(of.due_s(0))


@pytest.mark.heavy
def test_locust_shares_the_load_and_holds_what_it_is_asked(any_model: Site) -> None:
    """A master and two workers: together they send exactly what is due, and a limit of a microsecond fails."""
    common = ("scenario", "steady", "--rate", "40", "--seconds", "3", "--model", "words", "priced")
    two = any_model.bench(*common, "--p99-ms", "60000", "--processes", "2")
    assert two.returncode == 0, two.stdout + two.stderr
    assert outcomes(two)["all"]["requests"] == sent(scenario.steady(40, 3))
    assert "✓ all requests hold the limits" in two.stdout
    failing = any_model.bench(*common, "--p95-ms", "0.001", "--grpc")
    assert failing.returncode == 1
    assert "p95 is" in failing.stdout and outcomes(failing)["all"]["errors"] == {}
    assert outcomes(failing)["all"]["requests"] == sent(scenario.steady(40, 3))


@pytest.mark.heavy
def test_locust_sees_wrong_answers(any_model: Site) -> None:
    """`swapping` mixes up what comes together, which a closed loop of one would never see."""
    done = any_model.bench("scenario", "--rate", "400", "--seconds", "2", "--model", "swapping", "--connections", "32")
    assert done.returncode == 1
    assert any("wrong answer" in error for error in outcomes(done)["all"]["errors"]), done.stdout


@pytest.mark.heavy
def test_what_waits_to_be_sent_is_part_of_the_latency(any_model: Site) -> None:
    """One caller, a model that takes 2 ms, a request each 1 ms: counted from when it was sent, all would look well."""
    done = any_model.bench("scenario", "--rate", "1000", "--seconds", "1", "--model", "swapping", "--connections", "1")
    found = outcomes(done)["all"]
    assert found["late"] > 0.8 * found["requests"] == 0.8 * sent(scenario.steady(1000, 1))
    assert found["p99_ms"] > 300 and found["errors"] == {}


@pytest.mark.heavy
def test_recorded_traffic_is_sent_at_its_own_times(any_model: Site, tmp_path: Path) -> None:
    requests = [*any_model.sent("words").rows, *any_model.sent("tokens").rows]
    lines = [recording.line(0.1 * place, request) for place, request in enumerate(requests)]
    (tmp_path / "traffic.jsonl").write_text("\n".join(lines))
    done = any_model.bench("scenario", "--traffic", str(tmp_path / "traffic.jsonl"), "--speed", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(done)["all"]["requests"] == len(requests)
    took_s = outcomes(done)["all"]["requests"] / outcomes(done)["all"]["per_s"]
    assert took_s == pytest.approx(0.05 * (len(requests) - 1)), "twice as fast as it was recorded"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("scenario", "steddy"), "there is no scenario 'steddy'"),
        (("scenario", "--model", "nobody"), "nobody"),
        (("scenario", "--traffic", "missing.jsonl"), "cannot be read"),
        (("scenario", "--with", "k6", "--page", "8089"), "Locust's"),
    ],
)
def test_a_mistake_is_said_without_a_traceback(arguments: Sequence[str], told: str, any_model: Site) -> None:
    done = any_model.bench(*arguments)
    assert done.returncode != 0
    assert told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow  # k6 is downloaded on first use
@pytest.mark.heavy
def test_k6_holds_what_it_is_asked_and_sees_wrong_answers(any_model: Site, tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    common = ("--with", "k6", "--seconds", "3")
    passed = any_model.bench("scenario", "mixed", "--rate", "60", "--model", "words", "--keep", str(folder), *common)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    found = outcomes(passed)
    assert sum(each["requests"] for each in found.values()) == pytest.approx(180, abs=5)
    assert found["priority 1"]["requests"] > 10 and found["priority 1"]["errors"] == {}
    assert json.loads((folder / "plan.json").read_text())["urgent"] == 0.2
    failing = any_model.bench("scenario", "--rate", "60", "--model", "words", "--p99-ms", "0.001", *common)
    assert failing.returncode == 1 and re.search(r"p99 is .* \(limit: 0.001 ms\)", failing.stdout)
    dropping = any_model.bench("scenario", "--rate", "1000", "--model", "swapping", "--connections", "1", *common)
    assert dropping.returncode == 1
    assert outcomes(dropping)["all"]["errors"]["no free caller"] > 500
    wrong = any_model.bench("scenario", "--rate", "400", "--model", "swapping", *common)
    assert wrong.returncode == 1
    assert outcomes(wrong)["all"]["errors"]["a wrong answer"] > 0
