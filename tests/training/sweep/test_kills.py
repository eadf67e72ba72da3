"""A search is killed at random moments: no finished trial is lost or run twice, and what comes out is the same."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts import layout
from tests.conftest import wait_for
from tests.training.sweep.searches import BOTH, HALVING, TEXT
from tests.workspace import FAMILY, Workspace, new_workspace

TRIALS = 20
PAUSED = ("--pause=0.1",)  # a trial takes a second


def command(place: Workspace, workers: int, *arguments: str) -> list[str]:
    space = place.root / "known.yaml"
    space.write_text(BOTH + HALVING + TEXT)
    own = ("--space", str(space), "--study", "killed", "--trials", str(TRIALS), "--workers", str(workers), *PAUSED)
    return [sys.executable, "-m", "tests.training.sweep.quick_search", "sweep", FAMILY, *own, *arguments]


def finished(place: Workspace, workers: int) -> dict[str, Any]:
    done = subprocess.run(
        command(place, workers, "--json"),
        cwd=layout.ROOT,
        env=place.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def notes(place: Workspace) -> dict[str, list[str]]:
    files = (place.root / "artifacts" / "sweeps" / "killed" / "trials").glob("*/notes")
    return {path.parent.name: path.read_text().split() for path in files}


def told(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in found["trials"]]


def kill_at_random(place: Workspace, workers: int, kills: int, chance: random.Random) -> None:
    """Kill the search as often: some while it starts, the others somewhere within the next trials."""
    for _ in range(kills):
        search = subprocess.Popen(
            command(place, workers), cwd=layout.ROOT, env=place.environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if chance.random() > 0.2:
            before = begun(place)
            wait_for(lambda: begun(place) > before or search.poll() is not None)  # noqa: B023  # within the turn
        time.sleep(chance.uniform(0, 2.5))
        search.send_signal(signal.SIGKILL)
        search.wait()


def begun(place: Workspace) -> int:
    return sum(lines.count("begun") for lines in notes(place).values())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ten_kills_lose_nothing_and_repeat_nothing(tmp_path: Path, workers: int) -> None:
    chance = random.Random(workers)
    killed, undisturbed = (new_workspace(tmp_path / name) for name in ("killed", "undisturbed"))
    for place in (killed, undisturbed):
        place.root.mkdir(exist_ok=True)
    kill_at_random(killed, workers, 10, chance)
    found = finished(killed, workers)
    assert len(found["trials"]) == TRIALS
    lines = notes(killed)
    assert all(own.count("ended") <= 1 for own in lines.values()), "a fit that had ended was run again"
    complete = {f"{trial['trial']:04d}" for trial in found["trials"] if trial["state"] == "complete"}
    assert complete <= {number for number, own in lines.items() if "ended" in own}
    assert sum(own.count("begun") for own in lines.values()) > len(lines), "no kill struck a trial"
    if workers == 1:  # then nothing depends on which of two trials was quicker
        same = [{k: v for k, v in trial.items() if k != "trial"} for trial in told(finished(undisturbed, 1))]
        assert [{k: v for k, v in trial.items() if k != "trial"} for trial in told(found)] == same


@pytest.mark.slow
def test_ctrl_c_ends_what_is_under_way_and_says_how_to_go_on(tmp_path: Path) -> None:
    place = new_workspace(tmp_path)
    search = subprocess.Popen(
        command(place, 2), cwd=layout.ROOT, env=place.environment, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: begun(place) >= 2)
    search.send_signal(signal.SIGINT)
    _, errors = search.communicate(timeout=60)
    assert search.returncode == 130
    assert "Stopped. The same command goes on." in errors and "Traceback" not in errors
    assert not [p for p in psutil.process_iter(["environ"]) if str(place.root) in str(p.info["environ"])]
    found = finished(place, 2)
    assert len(found["trials"]) == TRIALS
    assert all(own.count("ended") <= 1 for own in notes(place).values())
