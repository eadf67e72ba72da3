"""Checkpoints on disk: find the newest, read one back into its module."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contracts import layout, manifest
from training import pickles
from training.errors import CheckpointError
from training.families import Family
from training.lineage import KEY, Lineage
from training.states import candidates, fit, listed, not_finite, states

_STATE, _HYPERPARAMETERS = "state_dict", "hyper_parameters"
_DATA = "datamodule_hyper_parameters"  # as Lightning calls them
_ESTIMATOR = "estimator"  # the name of one, where it is none of Lightning's


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back: the trained module in evaluation mode or the fitted estimator, and where it came from."""

    path: Path
    sha256: str
    module: Any  # a LightningModule, which is also a Module of training.families; or an Estimator of theirs
    lineage: Lineage
    weights: str | None = None  # where in the file they are; None: its state_dict, as it stands
    estimator: str | None = None  # which of its family's; None: the module is Lightning's
    data: Mapping[str, Any] = field(default_factory=dict)  # the arguments of its family's data


def newest(family: str) -> Path:
    """Find the best checkpoint of the family's latest run.

    Raises:
        CheckpointError: there is none.
    """
    directory = layout.checkpoints() / family
    found = sorted(directory.glob("*/best.ckpt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise CheckpointError(
            f"there is no {family} checkpoint in {layout.shown(directory)}",
            hint=f"train one: python -m training fit {family} --preset demo",
        )
    return found[-1]


def read(
    path: Path, family: Family, say: Callable[[str], None] = lambda line: None, *, ema: bool | None = None
) -> Checkpoint:
    """Read a checkpoint of `family`, executing nothing that is in the file.

    Args:
        say: Told what was not taken as it is: prefixes, other weights beside these.
        ema: Whether averaged weights are meant or those of the last step, where it has both; None: its state_dict.

    Raises:
        CheckpointError: it is missing, damaged, not ours, or of another family, or has no such weights.
    """
    raw = _raw(path, family)
    lineage = _lineage(raw[KEY], path)
    if lineage.family != family.name:
        raise CheckpointError(
            f"{path} is a checkpoint of another family",
            note=f"found {lineage.family!r}, expected {family.name!r}",
            hint=f"python -m export {lineage.family} --checkpoint {path}",
        )
    if _ESTIMATOR in raw:
        return _fitted(raw, path, family, lineage)
    if lacking := [key for key in (_STATE, _HYPERPARAMETERS) if not isinstance(raw.get(key), Mapping)]:
        raise CheckpointError(
            f"{path} has no {lacking[0]}",
            note=f"it has {listed([str(key) for key in raw])}",
            hint="Lightning saves them: save_hyperparameters() in the module, ModelCheckpoint(save_weights_only=False)",
        )
    parameters = {key: value for key, value in raw[_HYPERPARAMETERS].items() if not str(key).startswith("_")}
    try:
        module = family.module(**parameters)
    except (TypeError, ValueError) as error:
        raise _misfit(path, family, lineage, str(error).splitlines()[0]) from error
    where = _load(module, raw, path, family, lineage, say, ema)
    weights, data = None if where == _STATE else where, _arguments(raw)
    return Checkpoint(path, manifest.sha256(path), module.eval(), lineage, weights, data=data)


def write(
    path: Path,
    estimator: str,
    parameters: Mapping[str, Any],
    state: Mapping[str, Any],
    came: Lineage,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write the checkpoint of a fitted estimator.

    Args:
        data: The arguments of its family's data, plain values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {_ESTIMATOR: estimator, _HYPERPARAMETERS: dict(parameters), _STATE: dict(state), KEY: asdict(came)}
    torch.save({**held, _DATA: dict(data or {})}, path)


def _arguments(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what its data was made with; a checkpoint of before has nothing of it."""
    found = raw.get(_DATA)
    if not isinstance(found, Mapping):
        return {}
    return {str(name): value for name, value in found.items() if not str(name).startswith("_")}


def _fitted(raw: Mapping[str, Any], path: Path, family: Family, lineage: Lineage) -> Checkpoint:
    name = raw[_ESTIMATOR]
    if name not in family.estimators:
        raise _misfit(path, family, lineage, f"there is no model {name!r}; it has {', '.join(family.estimators)}")
    try:
        estimator = family.estimators[name](**raw[_HYPERPARAMETERS])
        estimator.load(raw[_STATE])
    except ImportError:
        raise
    except Exception as error:  # whatever a library says of what is not its own
        raise _misfit(path, family, lineage, (str(error) or type(error).__name__).splitlines()[0]) from error
    return Checkpoint(path, manifest.sha256(path), estimator, lineage, estimator=name, data=_arguments(raw))


def _raw(path: Path, family: Family) -> Mapping[str, Any]:
    """Return what a checkpoint of ours holds."""
    folder = layout.shown(layout.checkpoints() / family.name)
    if path.is_dir():
        if (known := pickles.folder(path)) is not None:
            what, call = known
            raise CheckpointError(f"{path} is {what}", note="--checkpoint takes one file", hint=call)
        inside = sorted(path.glob("*.ckpt"))
        raise CheckpointError(f"{path} is a folder", hint=f"--checkpoint {inside[0]}" if inside else f"ls {folder}/*")
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", hint=f"ls {folder}/*")
    try:
        raw = pickles.read(path)
    except pickles.ExecutesError as error:
        raise CheckpointError(
            f"{path} holds {error}, and reading that would execute what is in the file",
            note="something of your own that was pickled beside the weights: a callback's state, a hyperparameter",
            hint=f"if you trust it, save it without: c = torch.load({path.name!r}, weights_only=False), "
            f"torch.save({{k: c[k] for k in ({_STATE!r}, {_HYPERPARAMETERS!r}, {KEY!r})}}, 'plain.ckpt')",
        ) from error
    except (pickles.UnreadableError, pickles.ScriptError) as error:
        raise CheckpointError(
            f"{path} is damaged or is not a checkpoint",
            note=f"{path.stat().st_size:,} bytes; {error or 'a TorchScript archive'}",
            hint="name another one with --checkpoint, or train again",
        ) from error
    if not isinstance(raw, Mapping) or KEY not in raw:
        raise CheckpointError(
            f"{path} was not written by this project's training stage",
            note=f"it has no {KEY!r} entry, which says what it was trained from",
            hint=f"weights from elsewhere: python -m export --torch MODULE:CALLABLE --weights {path} --inputs FILE",
        )
    return raw


def _load(
    module: nn.Module,
    raw: Mapping[str, Any],
    path: Path,
    family: Family,
    lineage: Lineage,
    say: Callable[[str], None],
    ema: bool | None,
) -> str:
    """Load the weights that are meant into `module`; return where in the file they are."""
    there = candidates(module, {where: state for where, state in states(raw) if not where.startswith("optimizer")})
    wanted = [c for c in there if (c.where == _STATE if ema is None else c.averaged == ema)]
    if not wanted:
        raise CheckpointError(
            f"{path} has no {'averaged weights' if ema else 'weights but averaged ones'}",
            note=f"its weights: {', '.join(repr(candidate.where) for candidate in there)}",
            hint=f"{'--ema' if ema is False else 'without --ema'} what it has is taken",
        )
    fits = {candidate.where: fit(module, candidate.state) for candidate in wanted}
    where = min(fits, key=lambda where: fits[where].faults)
    found = fits[where]
    if found.faults or found.rivals:
        raise _misfit(path, family, lineage, found.told or f"under the prefixes {listed(found.rivals)}")
    if broken := not_finite(found.state):
        raise CheckpointError(f"{path} has weights that are inf or nan: {listed(broken)}", hint="train again")
    module.load_state_dict(dict(found.state))
    others = [c for c in there if c.averaged != wanted[0].averaged and not fit(module, c.state).faults]
    if others or where != _STATE:
        kind = "averaged" if wanted[0].averaged else "of the last step"
        beside = f"; --{'no-' * wanted[0].averaged}ema takes {others[0].where!r}" if others else ""
        say(f"Weights: {where!r}, {kind}{beside}")
    for line in found.changes():
        say(line)
    return where


def _misfit(path: Path, family: Family, lineage: Lineage, told: str) -> CheckpointError:
    return CheckpointError(
        f"{path} does not fit the {family.name} model of today",
        note=f"it was trained at commit {lineage.git_commit}; {told}",
        hint="check that commit out, or train again",
    )


def _lineage(raw: object, path: Path) -> Lineage:
    try:
        return Lineage(**raw)  # type: ignore[arg-type]  # what is not a mapping is a TypeError
    except TypeError as error:
        raise CheckpointError(f"{path} says where it came from in a way this version cannot read: {error}") from error
