"""Scenarios: what is sent when, what became of it, recorded traffic; Locust and k6 against a real server."""

import argparse
import gzip
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from rich.console import Console

from benchmarks.errors import MeasurementError
from benchmarks.releases import child
from benchmarks.scenarios import command, plan, recording, scenario, with_k6, with_locust
from benchmarks.scenarios.plan import Call, Settings
from benchmarks.scenarios.scenario import SCENARIOS, Scenario
from benchmarks.scenarios.tally import Limits, Tally, findings, merged, outcome
from cli.installing import tool_environments
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


def at(at_s: float) -> str:
    return GOOD.replace('"at_s": 1', f'"at_s": {at_s}')


GOOD = '{"at_s": 1, "model": "m", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("not JSON", "line 2"),
        ("[]", "line 2"),
        ('{"at_s": 2, "model": "m"}', "no 'inputs'"),
        ('{"at_s": 2, "model": "m", "inputs": []}', "no inputs"),
        (GOOD.replace('"at_s": 1', '"at_s": NaN'), "line 2"),
        (GOOD.replace("FP32", "FP33"), "FP33"),
        (GOOD.replace('"shape": [1]', '"shape": [2]'), "reshape"),
        (GOOD.replace('"FP32", "data": [1]', '"BYTES", "b64": ["%"]'), "line 2"),
        (GOOD.replace("}]}", '}], "priority": -1}'), "negative"),
        (GOOD[:-9], "not whole: take it out"),
    ],
)
def test_a_line_that_is_no_request_is_named(line: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "traffic.jsonl").write_text(f"{GOOD}\n{line}")
    with pytest.raises(MeasurementError) as caught:
        recording.read(tmp_path / "traffic.jsonl")
    assert told in str(caught.value) and "line 2" in str(caught.value)


def test_lines_are_sent_by_their_times_whatever_their_order(tmp_path: Path) -> None:
    """Who writes a line when the answer is there does not write them in the order in which they began."""
    (tmp_path / "traffic.jsonl").write_text("\n".join(at(at_s) for at_s in (7.5, 7, 9, 8)))
    read = recording.read(tmp_path / "traffic.jsonl")
    assert [each.at_s for each in read] == [0, 0.5, 1, 2]
    assert recording.longest_pause_s(read) == 1 and recording.longest_pause_s(read[:1]) == 0


def test_another_systems_text_and_gzip_are_read_and_half_of_it_is_said(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + f"{at(0)}\r\n{at(1)}\r\n".encode()
    path = tmp_path / "traffic.jsonl"
    for content in (text, gzip.compress(text)):
        path.write_bytes(content)
        assert [each.at_s for each in recording.read(path)] == [0, 1]
    path.write_bytes(gzip.compress(text)[:-12])
    with pytest.raises(MeasurementError, match="cannot be read"):
        recording.read(path)


def test_times_of_two_clocks_are_no_traffic_of_fifty_years(tmp_path: Path) -> None:
    (tmp_path / "traffic.jsonl").write_text(f"{at(0)}\n{at(1_700_000_000)}\n")
    with pytest.raises(MeasurementError, match=r"would take 19,676 days.*\n.*one clock"):
        recording.read(tmp_path / "traffic.jsonl")


def test_only_the_outputs_that_were_asked_for_are_asked_for(tmp_path: Path) -> None:
    asked = at(1).replace("}]}", '}], "outputs": [{"name": "y"}]}')
    (tmp_path / "traffic.jsonl").write_text(f"{at(0)}\n{asked}\n")
    one, other = recording.read(tmp_path / "traffic.jsonl")
    assert (one.outputs, other.outputs) == ((), ("y",)) and one.request is not other.request


def test_what_came_all_at_once_has_no_rate_and_is_no_error() -> None:
    tally = Tally()
    tally.answered(1)
    found = outcome("all", tally, 0)
    assert not found.findings(Limits(p99_ms=2))
    shown = io.StringIO()
    Console(file=shown, width=120).print(command.table([found], ""))
    assert "–" in shown.getvalue() and "nan" not in shown.getvalue()


def test_a_scenario_of_which_nothing_judged_was_sent_has_not_passed() -> None:
    sent = outcome("all", Tally(), 1)
    assert findings([], "all", Limits()) == ["all: nothing was sent"]
    assert findings([sent], "priority 1", Limits()) == ["priority 1: nothing was sent"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_due_is_known_without_a_server(name: str) -> None:
    """So that a master knows what a worker that it lost should have sent, of each class."""
    settings = Settings(scenario.named(name, 100, 5), ("model",), Limits(), "")
    calls = [Call(GoldenRequest("model", {}, {}), {})]
    assert plan.due(settings) == Counter(each.of for each in plan.planned(settings, calls))


def test_a_program_that_is_stopped_ends_its_workers(tmp_path: Path) -> None:
    """As Locust's master does, which ends them where it is told to, and cannot where it is killed."""
    master = f"""
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
with subprocess.Popen(["sleep", "60"]) as worker:
    open("worker", "w").write(str(worker.pid))
    os.kill({os.getpid()}, signal.SIGUSR1)
    try:
        signal.pause()
    finally:
        worker.kill()
"""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            child.run([sys.executable, "-c", master], tmp_path)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not psutil.pid_exists(int((tmp_path / "worker").read_text()))


def test_what_an_earlier_run_counted_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text("[]")
    options = argparse.Namespace(
        connections=1, model=["nobody"], traffic=None, scenario="steady", rate=1, seconds=1,
        p95_ms=None, p99_ms=None, max_errors=0, processes=None, page=None,
    )  # fmt: skip
    with pytest.raises(MeasurementError, match="nothing was counted"):
        with_locust.run("http://127.0.0.1:1", options, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(MeasurementError, match="page cannot be at"):
        options.page = taken.getsockname()[1]
        with_locust.run("http://127.0.0.1:1", options, tmp_path)


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


@contextmanager
def answering_badly() -> Iterator[str]:
    """Answer with what cannot be read, or, asked for /never, not before the block ends."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/never":
                over.wait()
            with suppress(BrokenPipeError):  # who waited in vain is gone
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"no answer")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


@pytest.mark.slow  # k6 is downloaded on first use
@pytest.mark.parametrize(("path", "error"), [("never", "refused, or no answer"), ("unreadable", "a wrong answer")])
def test_k6_counts_what_never_comes_and_what_cannot_be_read(path: str, error: str, tmp_path: Path) -> None:
    of = scenario.steady(10, 2)
    body, idle, summary = tmp_path / "body", tmp_path / "idle", tmp_path / "summary.json"
    body.write_bytes(b"{}")
    idle.write_bytes(b'{"outputs":[]}')
    with answering_badly() as url:
        call = {"url": f"{url}/{path}", "priority": 0, "header_length": 2, "body": str(body), "idle": str(idle)}
        told = {"calls": [{**call, "idle_header_length": 14}], "connections": 64, "classes": ["all"]}
        (tmp_path / "plan.json").write_text(json.dumps({**asdict(of), **told, "summary": str(summary)}))
        k6 = [tool_environments.programs("k6") / "k6", "run", "--quiet", "--no-usage-report"]
        subprocess.run([*k6, "--env", f"PLAN={tmp_path / 'plan.json'}", with_k6.SCRIPT], check=False, timeout=60)
    [found] = with_k6.outcomes(json.loads(summary.read_text()), of)
    assert found.errors == {error: pytest.approx(20, abs=2)}
