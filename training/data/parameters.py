"""A family's params.yaml: what a version of its data is made of, and what is trained on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from contracts import layout
from training.data.staged import FOLDER
from training.errors import DataError

FILE = "params.yaml"


def path_of(family: str) -> Path:
    """Return where a family's parameters are."""
    return Path(__file__).parent.parent / "families" / family / FOLDER / FILE


def read(path: Path, stage: str) -> Mapping[str, Any]:
    """Return the parameters of a stage.

    Raises:
        DataError: the file is not there or none, or says nothing of the stage.
    """
    held = whole(path)
    if not isinstance(held.get(stage), dict):
        raise DataError(f"{layout.shown(path)} has no parameters of {stage}", note=f"it needs a mapping `{stage}:`")
    found: Mapping[str, Any] = held[stage]
    return found


def whole(path: Path) -> Mapping[str, Any]:
    """Return the parameters of all stages.

    Raises:
        DataError: the file is not there or none.
    """
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(
            f"{layout.shown(path)} cannot be read",
            note=str(error).replace("\n", " "),
            hint="git diff shows what changed",
        ) from error
    return held if isinstance(held, dict) else {}
