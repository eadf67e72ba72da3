"""A search by Ray Tune: trials are drawn and kept as in any other, and carried out and stopped by Ray with ASHA.

Ray lives in an environment of its own (`.venv-ray`), which has nothing of ours: tuning.py runs there. All trials are
drawn before the first begins, as ASHA does. What has ended is in the trials' folders, wherever Ray was when it was
killed, and Ray is given the others.
"""

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from cli.installing.tool_environments import programs
from contracts import layout
from training.errors import SweepError
from training.sweep import carrying_out, claims
from training.sweep.claims import Claim
from training.sweep.fits import process
from training.sweep.fits.trial import SEARCH, Trial
from training.sweep.space import Halving
from training.sweep.study import Study
from training.sweep.under_way import UnderWay, beating, end, given, given_up

_LOG = "ray.log"
_LONGEST = 39  # characters of a folder for scratch: a socket's path has 107, and Ray's own part 68


def carry_out(way: UnderWay, address: str | None) -> None:
    """Have Ray carry out the trials that are left.

    Args:
        address: Of a cluster that is up, whose machines see the trials' folders; None: one of our own.

    Raises:
        SweepError: Ray could not, with what it said last.
    """
    opened = way.study.opened()
    with ExitStack() as held:
        left = {}
        while (claim := held.enter_context(claims.claim(way.study, opened, way.trials))) is not None:
            left[claim.number] = claim
        if left:
            order = _order(way, opened, left, address)
            with _driver(programs("ray"), order, way.study.folder / _LOG) as driver:
                _wait(way, opened, left, driver)


def _order(way: UnderWay, opened: optuna.Study, left: dict[int, Claim], address: str | None) -> Path:
    """Write down what Ray is to do."""
    trials = [
        {"number": number, "folder": str(way.study.trial_folder(number)), "given": given(way, claim, 0)}
        for number, claim in left.items()
    ]
    halving = way.study.search.space.halving or Halving(first=2**31)
    maximized = opened.directions[0] == optuna.study.StudyDirection.MAXIMIZE
    content: dict[str, Any] = {
        "address": address,
        "workers": way.workers,
        "mode": "max" if maximized else "min",
        "first": halving.first,
        "factor": halving.factor,
        "trials": trials,
        "before": _before(way.study, opened),
    }
    path = way.study.folder / "ray.json"
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path


def _before(study: Study, opened: optuna.Study) -> list[list[dict[str, Any]]]:
    """Return the reports of the trials that have ended: ASHA holds the others against them."""
    ended = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [[vars(report) for report in Trial(study.trial_folder(trial.number)).reports()] for trial in ended]


@contextmanager
def _driver(ray: Path, order: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run Ray's side, which ends with this process, however that ends."""
    theirs, ours = os.pipe()
    variables = {"RAY_USAGE_STATS_ENABLED": "0", **_scratch(), **os.environ, SEARCH: str(theirs)}
    try:
        with log.open("wb") as said:
            driver = subprocess.Popen(
                [ray / "python", "-m", "training.sweep.by_ray.tuning", order], cwd=layout.ROOT,
                env=variables, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
                pass_fds=(theirs,),
            )  # fmt: skip
    finally:
        os.close(theirs)
    try:
        yield driver
    finally:
        process.end(driver)
        os.close(ours)


def _scratch() -> dict[str, str]:
    """Have Ray put its sockets elsewhere than in a folder whose name is too long for them, as that of a job may be."""
    return {"RAY_TMPDIR": "/tmp"} if len(tempfile.gettempdir()) > _LONGEST else {}  # noqa: S108  # Ray's own default


def _wait(way: UnderWay, opened: optuna.Study, left: dict[int, Claim], driver: subprocess.Popen[bytes]) -> None:
    beats = {number: beating(claim) for number, claim in left.items()}
    pause = threading.Event()
    while left:
        running = driver.poll() is None
        for number, claim in list(left.items()):
            trial = Trial.at(way.study.trial_folder(number))
            if trial is None or not trial.is_of({"parameters": claim.trial.params}):
                continue  # not begun
            if trial.stopped or trial.failed is not None or trial.result() is not None:
                with given_up(way, claim):
                    end(way, opened, claim, carrying_out.judged(trial, trial.failed or 0))
                del left[number]
            else:
                with given_up(way, claim):
                    beats[number]()
        if not running and left:
            log = way.study.folder / _LOG
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["nothing"]
            raise SweepError(
                f"Ray ended (exit code {driver.returncode}) with {len(left)} trials left",
                note=said[-1],
                hint=f"what it said: {layout.shown(log)}; the same command goes on",
            )
        pause.wait(carrying_out.LOOK_S * 2)
    driver.wait()
