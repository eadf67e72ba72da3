"""Checkpoints on disk: find the newest, read one back into its module."""

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contracts import layout, manifest
from training.errors import CheckpointError
from training.families import Family
from training.lineage import KEY, Lineage


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back: the trained module in evaluation mode, and where it came from."""

    path: Path
    sha256: str
    module: Any  # a LightningModule, which is also a Module of training.families
    lineage: Lineage


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


def read(path: Path, family: Family) -> Checkpoint:
    """Read a checkpoint of `family`, executing nothing that is in the file.

    Raises:
        CheckpointError: it is missing, damaged, not ours, or of another family.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", hint=f"ls {layout.shown(layout.checkpoints() / family.name)}/*")
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is damaged or is not a checkpoint",
            note=f"{path.stat().st_size:,} bytes; {reason}",
            hint="name another one with --checkpoint, or train again",
        ) from error
    if not isinstance(raw, dict) or KEY not in raw:
        raise CheckpointError(
            f"{path} was not written by this project's training stage",
            note=f"it has no {KEY!r} entry, which says what it was trained from",
        )
    lineage = _lineage(raw[KEY], path)
    if lineage.family != family.name:
        raise CheckpointError(
            f"{path} is a checkpoint of another family",
            note=f"found {lineage.family!r}, expected {family.name!r}",
            hint=f"python -m export {lineage.family} --checkpoint {path}",
        )
    try:
        module = family.module(**{k: v for k, v in raw["hyper_parameters"].items() if not k.startswith("_")})
        module.load_state_dict(raw["state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit the {family.name} model of today",
            note=f"it was trained at commit {lineage.git_commit}; {str(error).splitlines()[0]}",
            hint="check that commit out, or train again",
        ) from error
    return Checkpoint(path, manifest.sha256(path), module.eval(), lineage)


def _lineage(raw: object, path: Path) -> Lineage:
    try:
        return Lineage(**raw)  # type: ignore[arg-type]  # what is not a mapping is a TypeError
    except TypeError as error:
        raise CheckpointError(f"{path} says where it came from in a way this version cannot read: {error}") from error
