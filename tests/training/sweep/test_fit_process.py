"""The fit of a trial ends with its search, however that ends, and tells what it found as a whole or not at all."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts import layout
from tests.conftest import wait_for
from training.sweep import carrying_out
from training.sweep.carrying_out import InterruptedSearch, Outcome
from training.sweep.fits import process
from training.sweep.fits.trial import Report, Result, Trial


def given(**flags: object) -> dict[str, Any]:
    typed = [f"--{name.replace('_', '.')}={value}" for name, value in {"model_x": 0.5, **flags}.items()]
    return {
        "parameters": {"model.x": flags.get("model_x", 0.5)},
        "python": sys.executable,
        "command": ["-m", "tests.training.sweep.quick_fit", *typed],
        "environment": {},
        "objectives": ["quality", "latency"],
    }


def follow(folder: Path, started: dict[str, Any], stop_at: int = 99) -> Outcome:
    def is_worse(reports: list[Report]) -> bool:
        return reports[-1].step >= stop_at

    return carrying_out.follow(folder, started, is_worse, lambda: None, threading.Event())


def notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().split()


def test_a_fit_tells_what_it_found_and_is_not_run_again(tmp_path: Path) -> None:
    outcome = follow(tmp_path, given())
    assert outcome.result is not None
    assert outcome.result.latency_ms == 4 and outcome.result.figures["test_accuracy"] == outcome.result.value / 2
    assert follow(tmp_path, given()) == outcome, "it was killed before it could keep this"
    assert notes(tmp_path) == ["begun", "ended"]
    assert follow(tmp_path, given(model_x=0.6)) != outcome, "of other parameters, it says nothing"
    assert notes(tmp_path) == ["begun", "ended"] * 2


def test_a_fit_that_is_worse_is_stopped_and_stays_stopped(tmp_path: Path) -> None:
    slow = given(steps=1000, pause=0.02)
    assert follow(tmp_path, slow, stop_at=3) == Outcome(pruned=True)
    assert follow(tmp_path, slow) == Outcome(pruned=True)
    assert notes(tmp_path) == ["begun"]


@pytest.mark.parametrize(
    ("x", "told", "crashed"),
    [
        (0.01, "RuntimeError: it is too small to be fitted (exit code 1)", True),
        (0.99, "its quality is nan: it did not learn", False),
    ],
)
def test_what_went_wrong_is_said_in_the_fits_own_words(tmp_path: Path, x: float, told: str, crashed: bool) -> None:
    assert follow(tmp_path, given(model_x=x)) == Outcome(error=told, crashed=crashed)


def test_a_search_that_ends_ends_its_fit_and_leaves_it_to_be_begun_again(tmp_path: Path) -> None:
    ended = threading.Event()
    threading.Timer(0.3, ended.set).start()
    with pytest.raises(InterruptedSearch):
        carrying_out.follow(tmp_path, given(steps=1000, pause=0.1), lambda _: False, lambda: None, ended)
    assert Trial(tmp_path).result() is None and not Trial(tmp_path).stopped
    assert follow(tmp_path, given()).result is not None


def test_a_search_that_is_killed_takes_its_fit_with_it(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; import sys, time\n"
        "from tests.training.sweep.test_fit_process import given\n"
        "from training.sweep.fits import process\n"
        "with process.fit(Path(sys.argv[1]), given(steps=9999, pause=0.05)) as (_, fit):\n"
        "    print(fit.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    search = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], cwd=layout.ROOT, stdout=subprocess.PIPE, text=True
    )
    assert search.stdout is not None
    fit = psutil.Process(int(search.stdout.readline()))
    wait_for(Trial(tmp_path).reports, 20)
    search.send_signal(signal.SIGKILL)
    search.wait()
    begun = time.monotonic()
    with process.fit(tmp_path, given()) as (trial, again):
        assert again is not None
        assert not fit.is_running() or fit.status() == psutil.STATUS_ZOMBIE, "the next one waited for it"
        assert again.wait(20) == 0
    assert trial.result() is not None
    assert time.monotonic() - begun < 20


def test_half_a_line_is_no_report(tmp_path: Path) -> None:
    trial = Trial.prepare(tmp_path, given())
    trial.report(1, 9, 0.25)
    with (tmp_path / "reports.jsonl").open("a") as file:
        file.write('{"step": 2, "of": 9, "va')
    assert trial.reports() == [Report(1, 9, 0.25)]


def test_what_an_earlier_start_left_is_forgotten(tmp_path: Path) -> None:
    trial = Trial.prepare(tmp_path, given())
    trial.report(1, 9, 0.5)
    trial.fail(1)
    trial.finish(Result(1.0, {}, "d"))
    trial.stop()
    again = Trial.prepare(tmp_path, given())
    assert (again.reports(), again.result(), again.stopped, again.failed) == ([], None, False, None)


def test_several_workers_share_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.training.sweep.searches import search

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    wanted = search(tmp_path)
    assert carrying_out.given(wanted, {}, 1, 0)["environment"] == {}, "one has all of them"
    environments = [carrying_out.given(wanted, {}, 4, worker)["environment"] for worker in range(3)]
    assert [found["OMP_NUM_THREADS"] for found in environments] == ["2", "2", "2"]
    assert [found["CUDA_VISIBLE_DEVICES"] for found in environments] == ["2", "5", "2"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in carrying_out.given(wanted, {}, 4, 0)["environment"], "what the user says counts"
