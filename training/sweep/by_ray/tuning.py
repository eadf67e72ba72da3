"""Ray's side of a search, in Ray's environment: `python -m training.sweep.by_ray.tuning ORDER.json`.

Each trial is a function in a worker process of Ray's that runs the fit and passes its reports on to ASHA. What becomes
of it is left in the trial's folder, where the search finds it.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from contracts import layout
from training.sweep.fits import process
from training.sweep.fits.trial import SEARCH, Trial

_LOOK_S = 0.1
_FAILURES = 3  # workers that are lost, for each trial
_LONG = 2**31  # a fit ends by itself
_OBJECTS_BYTES = 100 * 2**20  # nothing of size goes from one process to another; Ray would take a third of the memory


def main() -> int:
    """Carry out the trials of an order."""
    _end_with_the_search()
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    own = {} if order["address"] else {"num_cpus": order["workers"], "object_store_memory": _OBJECTS_BYTES}
    paths = {"env_vars": {"PYTHONPATH": str(layout.ROOT), "PYTHONUNBUFFERED": "1"}}
    ray.init(address=order["address"] or "local", runtime_env=paths, include_dashboard=False, **own)
    trials = {trial["number"]: trial for trial in order["trials"]}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_carry_out, trials=trials), {"cpu": 1}),
        param_space={"number": tune.grid_search(list(trials))},
        tune_config=tune.TuneConfig(scheduler=_asha(order), max_concurrent_trials=order["workers"], reuse_actors=False),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(Path(sys.argv[1]).parent),
            failure_config=tune.FailureConfig(max_failures=_FAILURES),
            callbacks=[_KeepWhatBecame(trials)],
            verbose=1,
        ),
    )
    tuner.fit()
    ray.shutdown()
    return 0


def _asha(order: Mapping[str, Any]) -> ASHAScheduler:
    """Make the scheduler, told of what earlier trials reported: Ray itself forgets that when it is killed."""
    asha = ASHAScheduler(
        time_attr="step",
        metric="value",
        mode=order["mode"],
        max_t=_LONG,
        grace_period=min(order["first"], _LONG),
        reduction_factor=order["factor"],
    )
    for number, reports in enumerate(order["before"]):
        trial = SimpleNamespace(trial_id=f"before-{number}", stopping_criterion={}, config={})
        asha.on_trial_add(None, trial)
        for report in reports:
            if report["step"] < report["of"] and asha.on_trial_result(None, trial, report) == ASHAScheduler.STOP:
                break
    return asha


def _carry_out(config: Mapping[str, Any], trials: Mapping[int, Mapping[str, Any]]) -> None:
    """Run the fit of a trial. When Ray stops it, this process is ended, and the fit with it."""
    order = trials[config["number"]]
    seen = 0
    with process.fit(Path(order["folder"]), order["given"]) as (trial, fit):
        while fit is not None:
            running = fit.poll() is None
            reports = trial.reports()
            for report in reports[seen:]:
                if report.step < report.of:  # the last has cost what it costs
                    tune.report(vars(report))
            seen = len(reports)
            if not running:
                break
            time.sleep(_LOOK_S)
        if fit is not None and trial.result() is None:
            trial.fail(fit.returncode)


class _KeepWhatBecame(tune.Callback):  # type: ignore[misc]  # Ray is in another environment
    """Leaves in the folders of trials which ones were stopped, and which could not be carried out."""

    def __init__(self, trials: Mapping[int, Mapping[str, Any]]) -> None:
        self._trials = trials

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write down that a trial was stopped, if that is why it has ended."""
        kept = self._of(trial)
        if kept.result() is None and kept.failed is None:
            kept.stop()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write down that a trial's workers were lost too often."""
        if self._of(trial).result() is None:
            self._of(trial).fail(1)

    def _of(self, trial: Any) -> Trial:
        return Trial(Path(self._trials[trial.config["number"]]["folder"]))


def _end_with_the_search() -> None:
    """End this process and Ray's, some of which would outlive it, when the search that started it has died."""
    descriptor = int(os.environ.pop(SEARCH))

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
