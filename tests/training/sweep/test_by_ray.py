"""Ray Tune carries out a search with ASHA on two worker processes, is killed, and goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts import layout
from tests.conftest import wait_for
from tests.training.sweep.searches import HALVING, TEXT
from tests.workspace import FAMILY, Workspace, new_workspace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_tools")]
TRIALS = 12
_sessions: set[int] = set()  # of Ray's, by what began them


def command(place: Workspace, *arguments: str) -> list[str]:
    space = place.root / "known.yaml"
    space.write_text(HALVING + TEXT)
    own = ("--space", str(space), "--study", "rays", "--with", "ray", "--workers", "2", "--trials", str(TRIALS))
    return [sys.executable, "-m", "tests.training.sweep.quick_search", "sweep", FAMILY, *own, *arguments]


def rays_of(place: Workspace) -> list[psutil.Process]:
    """Fits of a search in this place, and whatever is in a session that Ray's side of it has begun."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        with suppress(ProcessLookupError):
            if str(place.root) in f"{process.info['environ']}" or os.getsid(process.pid) in _sessions:
                found.append(process)
                if "by_ray.tuning" in " ".join(process.info["cmdline"] or []):
                    _sessions.add(os.getsid(process.pid))
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def notes(place: Workspace) -> list[list[str]]:
    return [path.read_text().split() for path in place.root.glob("artifacts/sweeps/rays/trials/*/notes")]


def fits(place: Workspace) -> list[psutil.Process]:
    return [process for process in rays_of(place) if "quick_fit" in " ".join(process.info["cmdline"] or [])]


def halted_in_the_middle(place: Workspace) -> bool:
    """Halt the fits that there are; let them go on unless each has begun, and none has ended."""
    found = fits(place)
    for fit in found:
        with suppress(psutil.NoSuchProcess):
            fit.suspend()
    under_way = [lines for lines in notes(place) if "begun" in lines and "ended" not in lines]
    if found and len(under_way) >= len(found):
        return True
    for fit in found:
        with suppress(psutil.NoSuchProcess):
            fit.resume()
    return False


@contextmanager
def searching(place: Workspace) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        command(place, "--json", "--pause=0.5"), cwd=layout.ROOT, env=place.environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as search:  # fmt: skip
        try:
            wait_for(lambda: rays_of(place) and _sessions)
            yield search
        finally:
            search.kill()
    wait_for(lambda: not rays_of(place), 60)  # all of Ray's ends with it


def test_it_is_killed_and_goes_on(tmp_path: Path) -> None:
    place = new_workspace(tmp_path)
    with searching(place):
        # Two of Ray's worker processes have a fit each, and some trials have ended.
        wait_for(lambda: sum("ended" in lines for lines in notes(place)) >= 2)
        wait_for(lambda: len({fit.ppid() for fit in fits(place)}) == 2)
    before = sum("ended" in lines for lines in notes(place))
    with searching(place) as again:
        said, errors = again.communicate(timeout=500)
    assert again.returncode == 0, errors
    found: dict[str, Any] = json.loads(said)
    states = [trial["state"] for trial in found["trials"]]
    assert len(states) == TRIALS and states.count("pruned") >= 2 and states.count("complete") >= 2
    assert all(lines.count("ended") <= 1 for lines in notes(place)), "a fit that had ended was run again"
    assert sum("ended" in lines for lines in notes(place)) >= before
    assert max(lines.count("begun") for lines in notes(place)) == 2, "those that were under way were begun again"


def test_a_worker_that_is_killed_costs_its_trial_a_new_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a folder for scratch whose name is too long for the sockets of Ray, as a job of a cluster may have it."""
    (scratch := tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    place = new_workspace(tmp_path)
    with searching(place) as search:
        wait_for(lambda: halted_in_the_middle(place))
        found = fits(place)
        found[0].parent().send_signal(signal.SIGKILL)
        for fit in found:  # the one whose worker is gone ends by itself
            fit.resume()
        said, errors = search.communicate(timeout=500)
    assert search.returncode == 0, errors
    assert {trial["state"] for trial in json.loads(said)["trials"]} <= {"complete", "pruned"}
    assert max(lines.count("begun") for lines in notes(place)) == 2
