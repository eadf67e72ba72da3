"""The benchmarks of the clients, in short: that they run, and that their figures make sense."""

import json
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import own_server
from benchmarks.calling import against, client, hedging, shared_memory, storm
from benchmarks.calling.against import Ratio
from benchmarks.calling.bulk import BulkResult
from benchmarks.calling.callers import Question
from benchmarks.calling.interleaved import CallerResult
from benchmarks.errors import MeasurementError
from benchmarks.rounds import Interval
from contracts import layout
from tests.conftest import RunningServer, Workspace


def summary(done: "subprocess.CompletedProcess[str]") -> Any:
    """The last line of a benchmark, which is for machines."""
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_both_clients_are_measured_in_every_way(server: RunningServer, examples: Path) -> None:
    short = ("--rounds", "1", "--seconds", "0.2", "--bulk", "640")
    done = server.workspace.run_here("benchmarks", "client", *short)
    found = summary(done)
    assert done.returncode == bool(found["findings"]), done.stderr  # in so short a time there may be some
    assert len({(way["protocol"], way["of"], way["client"]) for way in found["overhead"]}) == 2 * 2 * 3
    for way in found["overhead"]:
        assert way["p50_us"][0] > 100
        assert all(per_s > 0 for [per_s] in way["per_s"].values())
    for bulk in found["bulk"]:
        assert bulk["many_per_s"][0] > bulk["loop_per_s"][0] > 0


QUESTION = Question("nobody", {"image": np.array([[b"png"]], np.object_)}, ("label",))
LIBRARY = """
import asyncio, time
import numpy as np

class Client:
    def __init__(self, url): pass
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def infer(self, model, inputs, outputs):
        time.sleep({seconds})
        return {{"label": np.array([[{label!r}]], dtype=object)}}

class AsyncClient:
    def __init__(self, url): pass
    async def close(self): pass
    async def infer(self, model, inputs, outputs):
        await asyncio.sleep({seconds})
        return {{"label": np.array([[{label!r}]], dtype=object)}}
"""


def library(root: Path, seconds: float, label: bytes = b"Bag") -> Path:
    """A checkout whose clients take so long and have no server."""
    (root / "clients").mkdir(parents=True)
    (root / "clients" / "__init__.py").write_text(LIBRARY.format(seconds=seconds, label=label))
    return root


def test_each_checkouts_own_library_is_timed_and_the_slower_one_found_out(tmp_path: Path) -> None:
    checkouts = {"new": library(tmp_path / "new", 0.04), "old": library(tmp_path / "old", 0.01)}
    measured = against.measure_libraries({"grpc": "nobody"}, QUESTION, checkouts, rounds=2, seconds=0.2)
    assert [(result.of, result.client) for result in measured] == [
        (of, name) for of in ("threads", "asyncio") for name in ("new", "old")
    ]
    found = against.compare_rounds(measured)
    assert [(ratio.way, ratio.at_once) for ratio in found] == [
        (way, at_once) for way in ("grpc, threads", "grpc, asyncio", "all") for at_once in (1, 8, 32)
    ]
    for ratio in found:
        assert 1.2 < ratio.time.low <= ratio.time.median <= ratio.time.high
        assert "is slower" in (ratio.finding or "") if ratio.way == "all" else ratio.finding is None


def test_this_checkout_against_itself(server: RunningServer, examples: Path) -> None:
    short = ("--rounds", "1", "--seconds", "0.2")
    done = server.workspace.run_here("benchmarks", "client", "--against", layout.ROOT, *short)
    found = summary(done)
    assert done.returncode == bool(found["findings"]), done.stderr  # in so short a time there may be some
    ways = [f"{protocol}, {of}" for protocol in ("grpc", "http") for of in ("threads", "asyncio")]
    assert [(ratio["way"], ratio["at_once"]) for ratio in found["ratios"]] == [
        (way, at_once) for way in (*ways, "all") for at_once in (1, 8, 32)
    ]
    assert all(result["p50_us"][0] > 100 for result in found["callers"])
    assert "grpc, threads" in done.stdout


def test_libraries_that_do_not_agree_are_not_compared(tmp_path: Path) -> None:
    checkouts = {"new": library(tmp_path / "new", 0), "old": library(tmp_path / "old", 0, b"Coat")}
    with pytest.raises(MeasurementError, match="do not agree"):
        against.measure_libraries({"grpc": "nobody"}, QUESTION, checkouts, rounds=1, seconds=0.1)


def test_a_folder_without_a_client_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="holds no client library"):
        against.report({"grpc": "nobody"}, QUESTION, tmp_path, rounds=1, seconds=0.1)


def test_a_worker_that_ends_is_an_error(tmp_path: Path) -> None:
    (library(tmp_path, 0) / "clients" / "__init__.py").write_text("raise SystemExit(3)")
    with pytest.raises(MeasurementError, match="a worker of the client library ended"):
        against.measure_libraries({"grpc": "nobody"}, QUESTION, {"new": tmp_path}, rounds=1, seconds=0.1)


@pytest.mark.parametrize(
    ("interval", "finding"),
    [
        (Interval(0.99, 0.96, 1.03), None),
        (Interval(1.02, 1.00, 1.09), None),
        (Interval(1.03, 1.01, 1.05), "8 at once: 1.030 (1.010 … 1.050) of the old time is slower"),
        (Interval(0.99, 0.93, 1.04), "0.990 (0.930 … 1.040) of the old time is too wide to tell; more --rounds"),
    ],
)
def test_the_new_client_is_slower_only_for_sure(interval: Interval, finding: str | None) -> None:
    found = Ratio("all", 8, interval).finding
    assert found is None if finding is None else found is not None and finding in found


def test_a_storm_is_measured_with_and_without_retries(server: RunningServer, examples: Path) -> None:
    done = server.workspace.run_here("benchmarks", "storm", "--rounds", "1", "--seconds", "2")
    found = summary(done)
    *few, without, with_retries = found["ways"]
    assert [way["in_flight"] for way in found["ways"]] == [8, 16, 32, 256, 256]
    assert all(way["succeeded_per_s"][0] > 0 for way in found["ways"])
    assert [way["failed_per_s"][0] for way in few] == [0, 0, 0]
    peak = max(way["succeeded_per_s"][0] for way in few)
    assert found["goodput_share"] == pytest.approx(with_retries["succeeded_per_s"][0] / peak)
    # Whether the queues overflow in two seconds depends on the machine: how fast it sends, and how fast it answers.
    assert len(found["findings"]) == (found["goodput_share"] < 0.9) + (without["failed_per_s"][0] == 0)
    assert done.returncode == bool(found["findings"])


@pytest.mark.parametrize(
    ("failed", "succeeded", "finding"),
    [
        (50, 95, None),
        (50, 85, "goodput is 85.0% of the peak (limit: 90%)"),
        (0, 100, "Nothing failed even without retries"),
    ],
)
def test_a_storm_that_was_none_says_nothing_about_retries(failed: float, succeeded: float, finding: str | None) -> None:
    few = [storm.StormResult(f"{n} callers", n, (100.0,), (0.0,), (0.0,)) for n in (8, 16, 32)]
    without = storm.StormResult("storm without retries", 256, (90.0,), (failed,), (1.0,))
    found = storm.findings([*few, without, storm.StormResult("storm with retries", 256, (succeeded,), (0.0,), (0.0,))])
    assert found == [] if finding is None else [finding in told for told in found] == [True]


@pytest.mark.heavy
def test_what_has_a_server_of_its_own_runs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both benchmarks over one server, with the models of both: a start and a stop less."""
    monkeypatch.setenv("ARTIFACTS_DIR", str(workspace.root / "artifacts"))
    with own_server.serving_python_models({**shared_memory.MODELS, **hedging.MODELS}) as up:
        monkeypatch.setattr(own_server, "serving_python_models", lambda models: nullcontext(up))
        # Of some hundred calls the budget of retries, ten and a tenth of the answers, is a small part on any machine.
        for command, count, seconds in (("shared-memory", 8, "0.1"), ("hedging", 2, "2")):
            done = workspace.run_here("benchmarks", command, "--rounds", "1", "--seconds", seconds)
            assert done.returncode == 0, done.stderr
            ways = summary(done)["ways"]
            assert len(ways) == count
            if command == "hedging":
                plain, hedged = ways
                assert plain["sent_per_call"] == [1]
                assert 1 <= hedged["sent_per_call"][0] < 1.5
            else:
                assert all(way["sent_p50_us"][0] > 0 and way["shared_p50_us"][0] > 0 for way in ways)


def test_what_costs_more_than_it_may_is_named() -> None:
    def way(client: str, p50_us: float, per_s: float) -> CallerResult:
        return CallerResult("grpc", "threads", client, (p50_us,) * 3, {8: (per_s,) * 3, 32: (1000.0,) * 3})

    bulk = BulkResult(10, "http", (20.0,), (10.0,))
    assert client.findings([way("tritonclient, same request", 1000, 1000), way("ours", 1099, 951)], []) == []
    assert client.findings([way("tritonclient, same request", 1000, 1000), way("ours", 1101, 949)], [bulk]) == [
        "grpc, threads: +101 µs at p50 (limit: 100)",
        "grpc, threads: 0.949 of the throughput of 8 at once (limit: 0.95)",
        "http: classify_many is 2.0× a loop (limit: 3)",
    ]


def test_goodput_is_compared_with_the_peak_of_the_same_round() -> None:
    def way(name: str, *succeeded_per_s: float) -> storm.StormResult:
        return storm.StormResult(name, 1, succeeded_per_s, (0.0,) * 3, (0.0,) * 3)

    few = [
        way(name, *per_s) for name, per_s in zip(storm._PEAK, ((100, 50, 10), (90, 60, 10), (80, 40, 20)), strict=True)
    ]
    assert storm.goodput_share([*few, way("storm with retries", 80, 57, 18)]) == 0.9
