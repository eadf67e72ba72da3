"""What a search tries: a file in configs/sweeps/FAMILY/, named after the preset it starts from.

objectives: [quality, latency]        what a trial is judged by; quality is the family's metric on validation data
halving: {first: 1, factor: 3}        after 1, 3, 9 … steps one in 3 goes on; without it all run to their end
fit: {trainer.max_epochs: 6}          flags of `python -m training fit` that all trials share
search:                               and those that are searched
  model.lr: {low: 1.0e-4, high: 1.0e-1, log: true}
  model.leaves: {low: 7, high: 127}
  model.widths: {among: [[64, 32], [128, 64]]}
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from contracts import layout
from training.errors import SweepError
from training.sweep.fits.trial import LATENCY, QUALITY

NETWORK = "network"  # the file of a family's LightningModule without a preset
_KEYS = {"objectives", "halving", "fit", "search"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether they are whole numbers."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 1))


@dataclass(frozen=True)
class Among:
    """Some values, each as it is typed behind its flag."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Halving:
    """Successive halving: at `first` steps, and `factor` times as many, and so on, one in `factor` goes on."""

    first: int = 1
    factor: int = 3


@dataclass(frozen=True)
class Space:
    """What a search tries."""

    name: str  # of its file
    search: Mapping[str, Range | Among]  # {flag: its values}
    fit: Mapping[str, str]  # {flag: as it is typed}
    objectives: tuple[str, ...] = (QUALITY,)
    halving: Halving | None = None

    def described(self) -> dict[str, Any]:
        """Return it as JSON has it: what two searches that are one agree on."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found


def locate(family: str, preset: str | None, given: str | None) -> Path:
    """Find the file: a path, a name in the family's folder, or the one that is named after the preset.

    Raises:
        SweepError: there is none.
    """
    folder = layout.sweeps() / family
    name = given or preset or NETWORK
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise SweepError(
            f"{layout.shown(path)} does not exist: it says what is searched",
            note=f"of {family} there are: {there}",
            hint="--space NAME or --space FILE.yaml; docs/how-to/sweep.md says how one is written",
        )
    return path


def read(path: Path) -> Space:
    """Read a file.

    Raises:
        SweepError: it is not one, with what is wrong.
    """
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SweepError(f"{layout.shown(path)} is not YAML", note=str(error)) from error
    if not isinstance(held, dict) or not isinstance(held.get("search"), dict) or not held["search"]:
        raise SweepError(f"{layout.shown(path)} does not say what is searched", hint="search: {model.lr: {low: …}}")
    if unknown := sorted(map(str, held.keys() - _KEYS)):
        raise SweepError(f"{layout.shown(path)} has {', '.join(unknown)}", note=f"known: {', '.join(sorted(_KEYS))}")
    try:
        search = {str(name): _values(given) for name, given in held["search"].items()}
        fit = {str(name): typed(value) for name, value in (held.get("fit") or {}).items()}
        halving = Halving(**held["halving"]) if held.get("halving") else None
        if halving and not (type(halving.first) is type(halving.factor) is int):
            raise ValueError(f"halving counts in whole numbers: {held['halving']}")
        if halving and (halving.first < 1 or halving.factor < 2):
            raise ValueError("halving begins at step 1 or later, and lets one in 2 or more go on")
        return Space(path.stem, search, fit, objectives(held.get("objectives", [QUALITY])), halving)
    except (TypeError, ValueError, AttributeError) as error:
        raise SweepError(f"{layout.shown(path)}: {error}", hint="docs/how-to/sweep.md has an example") from error


def objectives(given: Any) -> tuple[str, ...]:
    """Check what trials are to be judged by.

    Raises:
        ValueError: it is something else.
    """
    if not given or set(given) - {QUALITY, LATENCY} or given[0] != QUALITY or len(set(given)) < len(given):
        raise ValueError(f"objectives are [{QUALITY}] or [{QUALITY}, {LATENCY}], not {given}")
    return tuple(given)


def flags(values: Mapping[str, Any]) -> list[str]:
    """Return the flags of a fit with these values, as they are typed."""
    return [f"--{name}={typed(value)}" for name, value in values.items()]


def typed(value: Any) -> str:
    """Return a value as it is typed behind a flag, every digit of it: 0.05, true, null, [64, 32], adam."""
    return value if isinstance(value, str) else json.dumps(value)


def _values(given: Any) -> Range | Among:
    if not isinstance(given, dict):
        raise ValueError(f"{given} is neither {{low: …, high: …}} nor {{among: […]}}")
    if "among" in given:
        values = tuple(typed(value) for value in given["among"])
        if not isinstance(given["among"], list) or len(given) > 1 or not values or len(set(values)) < len(values):
            raise ValueError(f"among is a list of different values, and nothing beside it: {given}")
        return Among(values)
    found = Range(**given)
    for end in (found.low, found.high, found.step or 1):
        if isinstance(end, bool) or not isinstance(end, int | float) or not isfinite(end):
            raise ValueError(f"{end!r} is not a number; YAML takes 1.0e-4 for one, and 1e-4 for a word")
    if not found.low < found.high or (found.step is not None and found.step <= 0):
        raise ValueError(f"from {found.low} to {found.high} there is nothing to search")
    if found.log and (found.low <= 0 or found.step is not None):
        raise ValueError(f"on a logarithmic scale {given} has to begin above 0, and has no step")
    if found.step is not None:
        _check_reached(found, found.step)
    return found


def _check_reached(found: Range, step: float) -> None:
    """See that steps lead from one end to the other: else Optuna would lower the upper one, and say so in a warning."""
    low, high, by = (Decimal(str(number)) for number in (found.low, found.high, step))
    if rest := (high - low) % by:
        raise ValueError(f"steps of {step} from {found.low} do not end at {found.high}, but at {high - rest}")
