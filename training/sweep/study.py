"""A search's study: what Optuna keeps of it, and the folder of its trials on this machine."""

import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage

from contracts import layout
from contracts.spec import ModelSpec
from training.errors import SweepError
from training.sweep.fits.trial import QUALITY
from training.sweep.space import Among, Range, Space
from training.sweep.storage import opened_alone

Direction = Literal["minimize", "maximize"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WHAT, _ID, _DATA = "search", "id", "data_fingerprint"  # attributes of a study
_LESS: Direction = "minimize"
_STARTUP = 10  # trials that are drawn at random, before there is something to learn from


@dataclass(frozen=True)
class Search:
    """What is searched, and how: a study that is opened again is of the same, or refused."""

    family: str
    preset: str | None
    flags: tuple[str, ...]  # of every fit, beside those of the space
    space: Space
    seed: int = 0

    def described(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        own = {"family": self.family, "preset": self.preset, "flags": list(self.flags), "seed": self.seed}
        return {**own, **self.space.described()}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna draws from, by flag."""
        return {name: _distribution(values) for name, values in self.space.search.items()}


@dataclass(frozen=True)
class Study:
    """A search under way, or one that has ended."""

    name: str
    search: Search
    storage: RDBStorage
    folder: Path  # of its trials' folders, on this machine
    place: str  # which machine's, or which copy of it: a trial belongs to where its folder is

    def opened(self) -> optuna.Study:
        """Return Optuna's object. Each thread takes one of its own."""
        return optuna.load_study(study_name=self.name, storage=self.storage)

    def sampler(self, started: int) -> TPESampler:
        """Return what draws the next trial, if so many were started.

        A sampler that is seeded once begins anew with every process, and a search that is resumed would draw what it
        has drawn. This one depends on how far the search is, and not on who goes on with it.
        """
        return TPESampler(seed=(self.search.seed * 100_003 + started) % 2**32, n_startup_trials=_STARTUP)

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / "trials" / f"{number:04d}"


def quality(spec: ModelSpec) -> tuple[str, Direction]:
    """Return the figure that trials are judged by, as a fit reports it, and its direction as Optuna says it."""
    if spec.metric is None:
        return "val_loss", "minimize"
    return f"val_{spec.metric.name}", "maximize" if spec.metric.better == "higher" else "minimize"


def open_study(name: str, search: Search, address: str, spec: ModelSpec) -> Study:
    """Open a study, or begin it.

    Raises:
        SweepError: the database cannot be reached, or the study there is of another search.
    """
    if not _NAME.fullmatch(name):
        raise SweepError(
            f"a study cannot be called {name!r}", note="letters, digits, and . _ - behind the first, 100 at most"
        )
    with opened_alone(address) as storage:  # two that begin at once begin one
        identity = _begun(storage, name, search, spec)
        folder = layout.searches() / name
        return Study(name, search, storage, folder, _place(folder, name, identity))


def same_data(study: optuna.Study, fingerprint: str) -> bool:
    """Tell whether a trial was trained on the data of the study's first one."""
    if _DATA not in study.user_attrs:
        study.set_user_attr(_DATA, fingerprint)
    return bool(study.user_attrs[_DATA] == fingerprint)


def _begun(storage: RDBStorage, name: str, search: Search, spec: ModelSpec) -> str:
    """Return what the study is known by; begin it where it is not there."""
    direction = quality(spec)[1]
    directions = [direction if objective == QUALITY else _LESS for objective in search.space.objectives]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    # One that was killed as it was begun has no trials, and perhaps not all of its attributes.
    if _ID not in study.user_attrs and not study.get_trials(deepcopy=False):
        optuna.delete_study(study_name=name, storage=storage)
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
        study.set_user_attr(_WHAT, search.described())
        study.set_user_attr(_ID, uuid.uuid4().hex)  # the last: without it, it was not begun whole
    _check(study, search)
    return str(study.user_attrs[_ID])


def _check(study: optuna.Study, search: Search) -> None:
    held, wanted = study.user_attrs.get(_WHAT), search.described()
    if held is None or _ID not in study.user_attrs:
        raise SweepError(
            f"the study {study.study_name} was not begun by this command", hint="--study ANOTHER begins one"
        )
    if differing := [key for key in wanted if held.get(key) != wanted[key]]:
        key = differing[0]
        raise SweepError(
            f"the study {study.study_name} is of another search: it differs in {', '.join(differing)}",
            note=f"{key}: the study has {json.dumps(held.get(key))}, asked for is {json.dumps(wanted[key])}",
            hint="--study ANOTHER begins a new one",
        )


def _place(folder: Path, name: str, identity: str) -> str:
    """Return which place this folder is; made on first use.

    Raises:
        SweepError: it is of another study of the same name, whose trials would be taken for this one's.
    """
    file = folder / "study.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        half = folder / ".study.json.half"
        half.write_text(json.dumps({"study": identity, "place": uuid.uuid4().hex}), encoding="utf-8")
        half.replace(file)
    held = json.loads(file.read_text(encoding="utf-8"))
    if held["study"] != identity:
        raise SweepError(
            f"{layout.shown(folder)} has the trials of another study that was called {name}",
            hint=f"--study ANOTHER, or move that folder away: mv {layout.shown(folder)} {layout.shown(folder)}.before",
        )
    return str(held["place"])


def _distribution(values: Range | Among) -> BaseDistribution:
    if isinstance(values, Among):
        return CategoricalDistribution(values.values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)
