"""The load generator and the measurement of overload, against the real server."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import workload
from benchmarks.errors import MeasurementError
from benchmarks.serving import load, overload, overload_run
from benchmarks.serving.load import Outcome, Request
from benchmarks.workload import Workload
from clients.core.metadata import ModelMetadata
from contracts.golden import GoldenRequest
from tests.conftest import FAMILY, RunningServer


@pytest.fixture(scope="module")
def images(examples: Path) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(examples.glob("*.png")))


def of_images(images: Sequence[bytes], model: str = FAMILY) -> GoldenRequest:
    return GoldenRequest(model, {"image": np.array([[image] for image in images], np.object_)}, {})


@pytest.fixture(scope="module")
def requests(server: RunningServer, images: tuple[bytes, ...]) -> list[Request]:
    """Of one image and of three, with their answers."""
    return load.with_answers(server.http, [load.build(of_images(images[:count])) for count in (1, 3)])


def test_a_closed_loop_has_so_many_requests_under_way_and_no_more(
    server: RunningServer, requests: list[Request]
) -> None:
    log = load.closed_loop(server.http, requests, 3, 0.5)
    assert set(log.outcome) == {Outcome.OK} and set(log.which) == {0, 1}
    assert log.connections == 3
    under_way = [int(((log.sent_s <= at) & (log.done_s > at)).sum()) for at in log.sent_s]
    assert max(under_way) == 3


def test_an_open_loop_sends_each_request_once_and_none_before_its_time(
    server: RunningServer, requests: list[Request]
) -> None:
    schedule_s, which = np.sort(np.random.default_rng(0).uniform(0, 1, 50)), np.arange(50) % 2
    log = load.open_loop(server.http, requests, schedule_s, which)
    assert (log.scheduled_s == schedule_s).all() and (log.which == which).all()
    assert (log.sent_s >= schedule_s).all()
    assert set(log.outcome) == {Outcome.OK}
    assert (log.latency_s == log.done_s - schedule_s).all()


def test_a_server_that_stalls_delays_every_request_that_was_due_meanwhile(
    server: RunningServer, requests: list[Request]
) -> None:
    """With coordinated omission, only those that were under way."""

    def stall() -> None:
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(server.pid, signal.SIGCONT)

    threading.Timer(0.3, stall).start()
    log = load.open_loop(server.http, requests, np.arange(0, 1, 0.02), np.zeros(50, dtype=np.intp))
    assert set(log.outcome) == {Outcome.OK}
    assert (log.latency_s > 0.1).sum() > 15
    assert log.latency_s.max() > 0.4


def test_another_answer_than_the_idle_servers_is_wrong(server: RunningServer, requests: list[Request]) -> None:
    one, three = requests
    log = load.closed_loop(server.http, [replace(one, answer=three.answer), three], 1, 0.2)
    assert set(log.outcome[::2]) == {Outcome.WRONG} and set(log.outcome[1::2]) == {Outcome.OK}


def test_what_the_server_refuses_for_another_reason_has_failed(
    server: RunningServer, images: tuple[bytes, ...]
) -> None:
    unknown = load.build(of_images(images[:1], "nope"))
    assert set(load.closed_loop(server.http, [unknown], 1, 0.1).outcome) == {Outcome.FAILED}
    with pytest.raises(MeasurementError, match="nope"):
        load.with_answers(server.http, [unknown])


def test_nobody_at_the_address_is_an_error(requests: list[Request]) -> None:
    address = "127.0.0.1:1"
    for measure in (
        lambda: load.with_answers(address, requests),
        lambda: load.closed_loop(address, requests, 1, 1),
        lambda: load.open_loop(address, requests, np.zeros(1), np.zeros(1, dtype=np.intp)),
    ):
        with pytest.raises(MeasurementError, match="Connection refused"):
            measure()


def test_every_request_past_saturation_is_answered_or_refused_and_accounted_for(
    server: RunningServer, examples: Path, images: tuple[bytes, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload_run, "BEFORE_S", 1.0)
    monkeypatch.setattr(overload_run, "AFTER_S", 1.0)
    sent = workload.find(f"http://{server.http}", FAMILY, server.workspace.repository, examples)
    assert sent.images == images
    settings = overload_run.Settings(sent, rows_per_request=16, seconds=2, closed_s=0.3, priority_share=0.2)
    result = overload_run.run(server.http, None, settings, say=lambda line: None)
    figures = overload.as_json(result)
    assert [c["priority"] for c in figures["by_priority"]] == [0, 1]
    during = (result.log.scheduled_s >= overload_run.BEFORE_S) & (result.log.scheduled_s < result.ends_s)
    accounted = sum(sum(c["shed"].values()) + sum(c["failed"].values()) for c in figures["by_priority"])
    assert accounted == (result.log.outcome[during] != Outcome.OK).sum()
    assert not any(c["failed"] for c in figures["by_priority"])
    assert set(result.log.outcome[result.log.scheduled_s < overload_run.BEFORE_S]) == {Outcome.OK}
    assert figures["peak_per_s"] == max(loop["per_s"] for loop in figures["closed_loops"])
    assert figures["limit_ms"] > 1_000  # the timeout of the queue at the door, and more
    assert figures["memory_mb"] == {}

    with (tmp_path / "table.txt").open("w") as file:
        Console(file=file, width=200).print(overload.table([result]))
    assert "3 times the peak" in (tmp_path / "table.txt").read_text()
    overload.save_requests(result, tmp_path / "overload.npz")
    kept = np.load(tmp_path / "overload.npz")
    assert (kept["outcome"] == "OK").sum() == (result.log.outcome == Outcome.OK).sum()
    overload.plot(result, tmp_path / "overload.png")
    assert (tmp_path / "overload.png").read_bytes().startswith(b"\x89PNG")


def planted(changes: dict[str, tuple[float, float, object]]) -> overload_run.Overload:
    """100 requests/s, all answered in 10 ms, but for what is changed of those that are due from a time to another."""
    scheduled_s = np.arange(0, overload_run.BEFORE_S + 10 + overload_run.AFTER_S, 0.01)
    columns = {"done_s": scheduled_s + 0.01, "outcome": np.zeros(len(scheduled_s), dtype=np.uint8)}
    for column, (from_s, to_s, change) in changes.items():
        due = (scheduled_s >= from_s) & (scheduled_s < to_s)
        columns[column][due] = change(columns[column][due]) if callable(change) else change
    log = load.Log(
        scheduled_s, scheduled_s, which=np.zeros(len(scheduled_s), dtype=np.intp), connections=1, cpu_s=0, **columns
    )
    peaks = (overload_run.ClosedLoop(connections=1, per_s=100, p50_ms=10, p99_ms=10),)
    request = GoldenRequest("planted", {}, {})
    settings = overload_run.Settings(Workload(ModelMetadata("planted", (), ()), (request,), "nothing"), seconds=10)
    return overload_run.Overload(settings, peaks, 1.0, (Request(b"", request),), log, ())


def test_what_was_answered_when_the_time_was_over_is_no_throughput() -> None:
    done_s = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 9.0, np.inf])
    outcome = np.array([Outcome.OK, Outcome.WRONG, *[Outcome.OK] * 4, Outcome.FAILED], np.uint8)
    zeros = np.zeros(len(done_s))
    log = load.Log(zeros, zeros, done_s, outcome, zeros.astype(np.intp), connections=7, cpu_s=0)
    assert log.per_s(2) == 3 / 2
    assert overload_run._peak(7, log, 2).per_s == 3 / 2
    with pytest.raises(MeasurementError, match=r"within 0\.1 s\nNote: 5 OK, 1 WRONG, 1 FAILED"):
        overload_run._peak(7, log, 0.1)


BEGIN, END = overload_run.BEFORE_S, overload_run.BEFORE_S + 10


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"outcome": (BEGIN, BEGIN + 0.9, Outcome.QUEUE_FULL)}, []),
        ({"outcome": (BEGIN, BEGIN + 2, Outcome.QUEUE_FULL)}, ["goodput is 80% of the peak (limit: 90 %)"]),
        ({"outcome": (BEGIN, BEGIN + 0.05, Outcome.WRONG)}, ["5 requests: WRONG"]),
        ({"done_s": (BEGIN, BEGIN + 0.2, lambda done_s: done_s + 2)}, ["p99 is 2,010 ms (limit: 1,010 ms)"]),
        ({"done_s": (END, END + 1, lambda done_s: done_s + 0.02)}, []),
        ({"outcome": (END, END + 3, Outcome.QUEUE_FULL)}, ["recovery takes 3.1 s (limit: 2 s)"]),
        ({"done_s": (END, np.inf, lambda done_s: done_s + 0.02)}, ["recovery takes inf s (limit: 2 s)"]),
    ],
)
def test_planted_what_does_not_hold_is_found(changes: dict[str, tuple[float, float, object]], told: list[str]) -> None:
    assert planted(changes).findings == told
