"""The model families: one folder each, the same file names in each, one line each below."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from contracts.spec import ModelSpec
from training.errors import TrainingError

if TYPE_CHECKING:  # `--help` lists the families: it shall not wait for numpy
    import numpy as np
    from numpy.typing import NDArray

# name -> package. Strings, so that listing the families imports none of them (and not torch).
FAMILIES: Mapping[str, str] = {
    "fashion": "training.families.fashion",
}


class Data(Protocol):
    """What every family's LightningDataModule offers beside Lightning's own hooks."""

    def split(self, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return inputs [N, …] and labels of "train", "val" or "test", as the served network gets them."""

    @property
    def fingerprint(self) -> str:
        """A digest of the data and of how it is split."""


@dataclass(frozen=True)
class Family:
    """A model family with its classes imported."""

    name: str
    spec: ModelSpec
    module: Any  # the LightningModule's class, with `normalise` and `network` (see export/source/pytorch.py)
    data: Any  # the LightningDataModule's class, which is also a Data
    write_examples: Callable[[Path, int], int]  # real inputs as files, with their labels
    directory: Path  # holds config.yaml and a <preset>.yaml per preset


def load(name: str) -> Family:
    """Import the family `name`.

    Raises:
        TrainingError: there is no such family.
    """
    package = _package(name)
    return Family(
        name=name,
        spec=spec(name),
        module=importlib.import_module(f"{package}.model").Module,
        data=importlib.import_module(f"{package}.data").DataModule,
        write_examples=importlib.import_module(f"{package}.examples").write,
        directory=Path(__file__).parent / package.rpartition(".")[2],
    )


def spec(name: str) -> ModelSpec:
    """Load what the family `name` promises, without importing its classes, and so not torch.

    Raises:
        TrainingError: there is no such family.
    """
    found: ModelSpec = importlib.import_module(f"{_package(name)}.spec").SPEC
    return found


def _package(name: str) -> str:
    if name not in FAMILIES:
        raise TrainingError(f"there is no family {name!r}", note=f"families: {', '.join(FAMILIES)}")
    return FAMILIES[name]
