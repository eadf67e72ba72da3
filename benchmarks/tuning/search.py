"""The search itself: Optuna's study in a file, so that whoever stops it goes on with it later.

A trial that is worse than three quarters of the best at the first level of load is not measured further. The search
ends when its time is over, or when a dozen trials in a row brought nothing.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.errors import MeasurementError
from benchmarks.tuning import candidate, settings_of_model, space
from benchmarks.tuning.candidate import CONNECTIONS, Level, Objective
from benchmarks.tuning.settings_of_model import ONE_PROCESS, Configured, Tunable
from benchmarks.tuning.space import Space
from contracts import layout, manifest
from contracts.bundle import Bundle
from contracts.errors import ProjectError

_STALE = 12  # trials in a row without a better one, after which it ends
_BETTER = 1.02  # than the best before: what is less may be noise
_HOPELESS = 0.75  # of the best throughput at the same load: not measured further
_STARTUP = 8  # trials that are drawn at random
FEWEST = 10  # trials, with fewer of which nothing is said about today's settings
_LEVELS, _ERROR, _REPEATED = "levels", "error", "repeated"  # attributes of a trial
_CACHE = "__pycache__"


@dataclass(frozen=True)
class Search:
    """What is tuned, and where."""

    release: Bundle
    model: str  # that is asked
    space: Space
    objective: Objective
    seconds: float  # of each level of load
    folder: Path  # of the study, and of what trials are served from

    @property
    def name(self) -> str:
        """The study's: another release, configuration or objective is another search."""
        folders = self.release.directory, *self.release.models.values()
        files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
        digests = [manifest.sha256(path) for path in files if _CACHE not in path.parts]
        texts = {name: configured.text for name, configured in self.space.models.items()}
        said = json.dumps([digests, texts, asdict(self.objective), self.seconds, self.space.values], sort_keys=True)
        return f"{self.model}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Found:
    """How the search ended."""

    best: Mapping[str, Tunable]
    throughput: float  # requests/s within the objective
    levels: tuple[Level, ...]
    today: float  # of today's settings
    levels_today: tuple[Level, ...]
    trials: int  # that were served and asked
    failed: int  # that did not load, or answered wrong
    ended: str  # why


def run(search: Search, budget_s: float, say: Callable[[str], None]) -> Found:
    """Search, or go on with it, for that long at most.

    Raises:
        MeasurementError: today's own settings do not load or answer wrong.
    """
    study = _opened(search)
    until, ended = time.monotonic() + budget_s, "its time was over"
    today = search.space.today()
    if not any(trial.params == today for trial in _complete(study)):  # it may have been killed
        study.enqueue_trial(today)
    while time.monotonic() < until or not _complete(study):
        if (stale := _since_better(study)) >= _STALE:
            ended = f"{stale} trials in a row brought nothing"
            break
        trial = study.ask()
        settings = search.space.suggested(trial)
        if repeated := _same(study, trial.params):
            trial.set_user_attr(_LEVELS, repeated.user_attrs.get(_LEVELS, []))
            trial.set_user_attr(_REPEATED, repeated.number)
            study.tell(trial, repeated.value if repeated.value is not None else 0.0)
            continue
        _try(search, study, trial, settings, say)
    return _found(search, study, ended)


def _opened(search: Search) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of every trial
    search.folder.mkdir(parents=True, exist_ok=True)
    path = search.folder / "study.db"
    sampler = TPESampler(n_startup_trials=_STARTUP, multivariate=True)
    try:
        study = optuna.create_study(
            study_name=search.name,
            storage=f"sqlite:///{path}",
            direction="maximize",
            sampler=sampler,
            load_if_exists=True,
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):  # whoever tried it was stopped
            study.tell(trial.number, state=TrialState.FAIL)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        raise MeasurementError(
            f"{layout.shown(path)}, which has the trials so far, cannot be used",
            note=str(error).splitlines()[0],
            hint="is the disk full? Else move the file away: the search begins anew",
        ) from error
    return study


def _try(
    search: Search,
    study: optuna.Study,
    trial: optuna.Trial,
    settings: Mapping[str, Tunable],
    say: Callable[[str], None],
) -> None:
    """Serve a candidate and ask it; one that does not load is a failed trial, unless it is today's."""
    place = search.folder / "served"
    try:
        levels = _measured(search, settings, place, _best_levels(study))
    except ProjectError as error:
        trial.set_user_attr(_ERROR, str(error))
        study.tell(trial, state=TrialState.FAIL)
        if trial.params == search.space.today():
            raise MeasurementError("today's settings cannot be measured", note=str(error)) from error
        say(f"{trial.number:3}  failed: {str(error).splitlines()[0]}")
        return
    throughput = _throughput(levels, search.objective)
    trial.set_user_attr(_LEVELS, [asdict(level) for level in levels])
    study.tell(trial, throughput)
    best = max(t.value or 0.0 for t in _complete(study))
    mark = "best" if throughput >= best > 0 else ""
    say(f"{trial.number:3}  {throughput:8,.0f}/s within the objective  {mark}")


def _measured(search: Search, settings: Mapping[str, Tunable], place: Path, best: Mapping[int, float]) -> list[Level]:
    candidate.clear(place)
    repository, found = place / "model_repository", list[Level]()
    candidate.write(search.release, search.space.models, settings, repository)
    with candidate.served(repository, place) as up:
        asked = candidate.requests(up.http, repository, search.model)
        candidate.closed(up, asked, 4, search.seconds / 2)  # warm
        if search.objective.per_s is not None:
            found.append(candidate.at_rate(up, asked, search.objective.per_s, 2 * search.seconds))
            if not found[0].holds(search.objective):
                return found
        for connections in reversed(CONNECTIONS):
            found.append(candidate.closed(up, asked, connections, search.seconds))
            if found[-1].per_s < _HOPELESS * best.get(connections, 0.0):
                break
    return found


def _throughput(levels: list[Level], objective: Objective) -> float:
    """Return the highest throughput within the objective; 0: there is none."""
    if objective.per_s is not None and not levels[0].holds(objective):
        return 0.0
    return max((level.per_s for level in levels if level.connections and level.holds(objective)), default=0.0)


def _best_levels(study: optuna.Study) -> dict[int, float]:
    """Return the throughput at each load of the best trial so far."""
    complete = _complete(study)
    if not complete:
        return {}
    best = max(complete, key=lambda trial: trial.value or 0.0)
    return {level["connections"]: level["per_s"] for level in best.user_attrs.get(_LEVELS, [])}


def _since_better(study: optuna.Study) -> int:
    best, stale = 0.0, 0
    for trial in _complete(study):
        if (trial.value or 0.0) > _BETTER * best:
            best, stale = trial.value or 0.0, 0
        else:
            stale += 1
    return stale


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _same(study: optuna.Study, params: Mapping[str, Any]) -> FrozenTrial | None:
    return next((trial for trial in _complete(study) if trial.params == params), None)


def _found(search: Search, study: optuna.Study, ended: str) -> Found:
    complete = _complete(study)
    best = max(complete, key=lambda trial: trial.value or 0.0)
    today = _same(study, search.space.today())
    return Found(
        best=search.space.settings(best.params),
        throughput=best.value or 0.0,
        levels=_levels(best),
        today=(today.value or 0.0) if today else 0.0,
        levels_today=_levels(today) if today else (),
        trials=sum(_REPEATED not in trial.user_attrs for trial in complete),
        failed=sum(_ERROR in t.user_attrs for t in study.get_trials(deepcopy=False, states=(TrialState.FAIL,))),
        ended=ended,
    )


def _levels(trial: FrozenTrial) -> tuple[Level, ...]:
    return tuple(Level(**level) for level in trial.user_attrs.get(_LEVELS, []))


def configured(release: Bundle) -> dict[str, Configured]:
    """Return the models of a release that have settings to tune.

    Raises:
        ModelConfigError: one is missing, or is none.
    """
    found = {
        name: settings_of_model.read(name, folder, candidate.CONFIG_NAME) for name, folder in release.models.items()
    }
    inside = {step for each in found.values() if each.backend == ONE_PROCESS for step in each.steps}
    found = {name: replace(each, only=("threads",)) if name in inside else each for name, each in found.items()}
    return {name: each for name, each in found.items() if space.values_of(each)}
