"""The slope of memory that is known, and a short soak of the real server."""

import csv
import json
import subprocess
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.serving import memory
from benchmarks.serving.memory import Growth, Sample
from tests.conftest import RunningServer, wait_for
from tests.workspace import FAMILY, MODEL

MINUTE_S = 60.0


def samples(mb: Callable[[float], float], *, pid: int = 1, minutes: tuple[float, float] = (0, 30)) -> list[Sample]:
    """A look every 5 s at a process that holds `mb` of the time in hours, give or take 0.3 MB."""
    noise = np.random.default_rng(pid)
    times = np.arange(minutes[0] * MINUTE_S, minutes[1] * MINUTE_S, 5.0).tolist()
    sizes = [round((mb(at_s / 3600) + noise.normal(0, 0.3)) * 1e6) for at_s in times]
    return [Sample(at_s, "worker", pid, size, size, size, 4, 5) for at_s, size in zip(times, sizes, strict=True)]


def grown(found: list[Sample]) -> Growth:
    [growth] = memory.growth(found, warm_up_s=3 * MINUTE_S)
    return growth


def test_a_leak_is_found_in_the_noise_and_its_interval_holds_it() -> None:
    growth = grown(samples(lambda hours: 50 + 24 * hours))
    assert growth.mb_per_h == pytest.approx(24, abs=1)
    assert growth.low is not None
    assert growth.high is not None
    assert growth.low < 24 < growth.high
    assert growth.over(10)
    assert not growth.over(30)


@pytest.mark.parametrize(
    "mb",
    [
        pytest.param(lambda hours: 50, id="flat"),
        pytest.param(lambda hours: 50 + min(400 * hours, 20), id="grows for three minutes and stops"),
        pytest.param(lambda hours: 50 + 5 * (hours > 0.1), id="one step, early on"),
        pytest.param(lambda hours: 50 - 24 * hours, id="shrinks"),
    ],
)
def test_what_does_not_go_on_growing_is_not_flagged(mb: Callable[[float], float]) -> None:
    assert not grown(samples(mb)).over(1)


def test_processes_that_follow_each_other_are_not_growth_even_if_each_is_larger() -> None:
    lives = [samples(lambda hours, n=n: 50 + 10 * n, pid=n, minutes=(10 * n, 10 * n + 10)) for n in range(3)]
    growth = grown([sample for life in lives for sample in life])
    assert growth.pids == 3
    assert growth.mb_per_h == pytest.approx(0, abs=5)
    assert not growth.over(5)


def test_a_leak_is_found_in_processes_that_follow_each_other() -> None:
    lives = [
        samples(lambda hours, n=n: 50 + 60 * (hours - n / 6), pid=n, minutes=(10 * n, 10 * n + 10)) for n in range(3)
    ]
    growth = grown([sample for life in lives for sample in life])
    assert growth.mb_per_h == pytest.approx(60, abs=5)
    assert growth.over(10)


def test_a_process_that_was_hardly_seen_has_no_slope() -> None:
    other = [replace(sample, name="other") for sample in samples(lambda hours: 50)]
    short, _ = memory.growth([*samples(lambda hours: 50 + 24 * hours, minutes=(0, 4)), *other], 3 * MINUTE_S)
    assert short.mb_per_h is None
    assert not short.over(0)


def test_a_process_that_has_ended_is_no_sample() -> None:
    with subprocess.Popen(["true"]) as process:
        ended = psutil.Process(process.pid)
        wait_for(lambda: ended.status() == psutil.STATUS_ZOMBIE)
        assert memory._of_process(0, "worker", ended) is None


def test_a_soak_of_the_server_reports_every_process_and_keeps_all_it_saw(server: RunningServer, examples: Path) -> None:
    no_limit = "1e9"  # so soon after its start everything grows
    short = ("--minutes", "0.17", "--reload-every", "3", "--limit", no_limit)
    done = server.workspace.run_here("benchmarks", "soak", *short)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["findings"] == []
    assert summary["outcomes"]["OK"] > 100
    assert summary["visits"]["answered"] > summary["visits"]["refused"] > 0
    assert summary["reloads"][0]["model"] == FAMILY
    names = {growth["name"].partition(",")[0] for growth in summary["growth"]}
    assert names >= {"tritonserver", "supervisor", "shared memory"}
    assert {name.rpartition("_")[0].rpartition("_")[0] for name in names if FAMILY in name} == {FAMILY, MODEL}
    with Path(summary["samples"]).open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {field.name for field in fields(Sample)}
    assert {row["name"].partition(",")[0] for row in rows} == names
    assert all(int(row["uss_bytes"]) <= int(row["pss_bytes"]) <= int(row["rss_bytes"]) for row in rows)
    assert Path(summary["picture"]).read_bytes().startswith(b"\x89PNG")
