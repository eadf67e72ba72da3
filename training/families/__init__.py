"""The model families: one folder each, the same file names in each, one line each below."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

from contracts.spec import ModelSpec
from training.errors import TrainingError

if TYPE_CHECKING:  # `--help` lists the families: it shall not wait for numpy and torch
    from torch import Tensor, nn

    from contracts.entities.declaration import Declaration
    from contracts.samples import Batch, Split

# name -> package. Strings, so that listing the families imports none of them (and not torch).
FAMILIES: Mapping[str, str] = {
    "fashion": "training.families.fashion",
    "minilm": "training.families.minilm",
    "flights": "training.families.flights",
}


class Data(Protocol):
    """What every family's LightningDataModule offers beside Lightning's own hooks.

    One whose spec declares entities also has `tables()`, {table: {column: array [n]}}: what they are filled from.
    """

    def split(self, name: str) -> Split:
        """Return the samples of "train", "val" or "test", as the served network gets them, and what is true of them."""

    @property
    def fingerprint(self) -> str:
        """A digest of the data and of how it is split."""


class Evaluated(TypedDict):
    """What a step of validation or test found: the family's metric is computed from it."""

    outputs: Mapping[str, Tensor]  # by the spec's names, [B, …]; at least the one that the answer is read from
    targets: Tensor  # [B, …]


class Module(Protocol):
    """What every family's LightningModule offers beside Lightning's own hooks.

    Its `validation_step` and `test_step` return an Evaluated.
    """

    def served(self) -> nn.Module:
        """Return what is exported: everything that must not differ in serving.

        Its forward takes the spec's inputs, in order, and returns the spec's outputs, in order or by name. It shares
        its weights with this module, and the names of its parts are those of the graph's nodes.
        """


class Estimator(Protocol):
    """What a model offers that a library of its own fits, in place of a LightningModule.

    Its arguments are its hyperparameters, numbers and text.
    """

    library: str  # whose answers its graph is compared with

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def fit(self, train: Split, validation: Split, seed: int) -> None:
        """Learn from one split; what it chooses among, it chooses by the other."""

    def predict(self, inputs: Batch) -> Batch:
        """Return the spec's outputs as the library itself answers."""

    def write_graph(self, path: Path) -> None:
        """Write the same as an ONNX graph that takes the spec's inputs."""

    def state(self) -> Mapping[str, Any]:
        """Return what was learned: tensors, numbers and text, which are read without executing anything."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""


@runtime_checkable
class Reports(Protocol):
    """What an Estimator offers as well that can tell how good it is before it is done: a search may then stop it."""

    report: Callable[[int, int, float], None] | None  # (step from 1, the last there will be, metric on validation)


@dataclass(frozen=True)
class Features:
    """What a family with features says of them, in its feature_views.py: training/features makes and serves them.

    Attributes:
        declaration: What the release says of its lookups: each with a view is a feature view.
        rows: What the file of rows is called.
        moment: The column with the moment as of which a row's features are joined, in UTC.
        computed: Makes those tables that are computed from rows: {table: a pandas DataFrame}.
        known: When each row's outcome became known, a Series in UTC; NaT: it never did.
    """

    declaration: Declaration
    rows: str
    moment: str
    computed: Callable[[Any], Mapping[str, Any]]
    known: Callable[[Any], Any]


@dataclass(frozen=True)
class Family:
    """A model family with its classes imported."""

    name: str
    spec: ModelSpec
    module: Any  # the LightningModule's class, which is also a Module
    data: Any  # the LightningDataModule's class, which is also a Data
    write_examples: Callable[[Path, int], int]  # real inputs as files, with their labels
    # So many held-out ones as clients of the ensemble send them, {input: [n, …]}; None of a family without one.
    raw_examples: Callable[[int], Batch] | None
    directory: Path  # holds config.yaml and a <preset>.yaml per preset; others are in layout.model_params()
    # {name: class}: models that are not Lightning's; the first is what the others are compared with.
    estimators: Mapping[str, type[Estimator]] = field(default_factory=dict)


def load(name: str) -> Family:
    """Import the family `name`.

    Raises:
        TrainingError: there is no such family.
    """
    package = _package(name)
    examples = importlib.import_module(f"{package}.examples")
    return Family(
        name=name,
        spec=spec(name),
        module=importlib.import_module(f"{package}.model").Module,
        data=importlib.import_module(f"{package}.data").DataModule,
        write_examples=examples.write,
        raw_examples=getattr(examples, "requests", None),
        directory=(directory := Path(__file__).parent / package.rpartition(".")[2]),
        estimators=_estimators(package) if (directory / "estimators.py").is_file() else {},
    )


def spec(name: str) -> ModelSpec:
    """Load what the family `name` promises, without importing its classes, and so not torch.

    Raises:
        TrainingError: there is no such family.
    """
    found: ModelSpec = importlib.import_module(f"{_package(name)}.spec").SPEC
    return found


def _estimators(package: str) -> Mapping[str, type[Estimator]]:
    found: Mapping[str, type[Estimator]] = importlib.import_module(f"{package}.estimators").ESTIMATORS
    return found


def _package(name: str) -> str:
    if name not in FAMILIES:
        raise TrainingError(f"there is no family {name!r}", note=f"families: {', '.join(FAMILIES)}")
    return FAMILIES[name]
