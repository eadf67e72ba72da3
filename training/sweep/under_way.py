"""A search under way: what its workers share, and what becomes of a trial that has ended."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from cli.progress import Bar
from contracts import layout
from training import families
from training.errors import SweepError
from training.sweep import carrying_out, claims
from training.sweep.carrying_out import Outcome
from training.sweep.claims import Claim
from training.sweep.fits import process
from training.sweep.fits.trial import LATENCY
from training.sweep.runs import Runs
from training.sweep.study import Study, quality, same_data

_IN_A_ROW = 3  # trials that fail: it is not their parameters


@dataclass
class UnderWay:
    """A search under way, shared by its workers."""

    study: Study
    address: str
    runs: Runs
    trials: int
    workers: int
    shown: Bar
    ended: threading.Event = field(default_factory=threading.Event)
    failed: int = 0  # trials in a row, as they ended

    @property
    def figure(self) -> str:
        """What quality is called."""
        return quality(families.spec(self.study.search.family))[0]


def given(way: UnderWay, claim: Claim, worker: int) -> dict[str, Any]:
    """Return what the fit of a trial is started with."""
    started = carrying_out.given(way.study.search, claim.trial.params, way.workers, worker)
    return {**started, "study": way.study.name, "mlflow_run": way.runs.of(claim.trial, way.study)}


def end(way: UnderWay, opened: optuna.Study, claim: Claim, outcome: Outcome) -> None:
    """Keep what became of a trial: in MLflow, in the study, and on the terminal."""
    trial, result, run = claim.trial, outcome.result, claim.trial.user_attrs["mlflow_run"]
    if result is not None and not same_data(opened, result.data_fingerprint):
        claims.lose(opened, trial)  # another is drawn as it was, should the data come back
        raise SweepError(
            f"trial {claim.number} was trained on other data than the trials before it: they cannot be compared",
            hint="--study ANOTHER begins a new search",
        )
    for leftover in ("last.ckpt", *([] if result else ["best.ckpt"])):  # optimizers' states are large
        (way.study.trial_folder(claim.number) / leftover).unlink(missing_ok=True)
    if result is not None:
        cost = {} if result.latency_ms is None else {f"{LATENCY}_ms": result.latency_ms}
        for name, value in {"figures": dict(result.figures), **cost}.items():
            trial.set_user_attr(name, value)
        way.runs.end(run, "FINISHED", cost)
        opened.tell(trial, [result.value, *cost.values()])
        told = ", ".join([f"{way.figure} {result.value:.4f}", *(f"{ms:.3g} ms" for ms in cost.values())])
    elif outcome.pruned:
        way.runs.end(run, "KILLED", {}, "pruned")
        opened.tell(trial, state=TrialState.PRUNED)
        told = "stopped: others were better at the same step"
    else:
        trial.set_user_attr(claims.ERROR, outcome.error)
        way.runs.end(run, "FAILED", {}, outcome.error or "")
        # To Optuna's samplers one that failed was never tried, and one that was stopped is to be avoided.
        opened.tell(trial, state=TrialState.FAIL if outcome.crashed else TrialState.PRUNED)
        told = f"failed: {outcome.error}"
    way.shown.say(f"trial {claim.number:3d}  {told}  ({_typed(trial.params)})")
    show(way, opened)
    way.failed = way.failed + 1 if outcome.crashed else 0
    if way.failed >= _IN_A_ROW:
        raise SweepError(
            f"{_IN_A_ROW} trials in a row failed",
            note=str(outcome.error),
            hint=f"what it printed: {layout.shown(way.study.trial_folder(claim.number) / process.LOG)}",
        )


@contextmanager
def given_up(way: UnderWay, claim: Claim) -> Iterator[None]:
    """Leave a trial that another machine gave up, as this one was not heard of for long: it is tried again there."""
    try:
        yield
    except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
        held = claim.trial.storage.get_trial(claim.trial._trial_id)
        if claims.LOST not in held.user_attrs:
            raise
        way.shown.say(f"trial {claim.number:3d}  was given up by another machine, which tries its parameters again")


def beating(claim: Claim) -> Callable[[], None]:
    """Return what says from time to time that a trial is under way."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > claims.BEAT_S:
            last = time.monotonic()
            claim.trial.set_user_attr(claims.SEEN, time.time())

    return beat


def show(way: UnderWay, opened: optuna.Study) -> None:
    """Show how many trials have ended."""
    way.shown.reach(len(claims.ended(opened.get_trials(deepcopy=False))))


def _typed(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                     for name, value in parameters.items())  # fmt: skip
