"""What a family says of its data's stages, in the folder `pipeline` of its own, beside dvc.yaml and params.yaml.

`stages.py` has the functions of `Stages`; `expected_raw.py` and `expected_processed.py` those of `Gated`, and are read
in the environment for data alone, which has Great Expectations.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

from contracts import layout
from training.errors import DataError
from training.families import FAMILIES

Gate = Literal["raw", "processed"]
FOLDER = "pipeline"  # of a family's
GATES: tuple[Gate, ...] = get_args(Gate)


class Stages(Protocol):
    """The functions of a family's stages.py. Each fills an empty folder and says in a few words what it wrote."""

    def ingest(self, into: Path, parameters: Mapping[str, Any]) -> str:
        """Write the raw files of the periods that `parameters` choose.

        Raises:
            DataError: they cannot be had, or the parameters choose nothing that there is.
        """

    def transform(self, raw: Path, into: Path) -> str:
        """Clean and join the raw files."""

    def sample(self, processed: Path, into: Path, parameters: Mapping[str, Any]) -> str:
        """Write a small part of what training reads, some of each period."""


class Gated(Protocol):
    """The functions of a family's expected_raw.py, or expected_processed.py."""

    def tables(self, family: Any, parameters: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return {table: DataFrame}, as training/data/expecting.py gives them to Great Expectations.

        Args:
            family: The Places of the family.
            parameters: All of params.yaml.

        Raises:
            DataError: a file is not there or cannot be read.
        """

    def suites(self, parameters: Mapping[str, Mapping[str, Any]]) -> Mapping[str, list[Any]]:
        """Return {table: what is expected of it}."""


def stages(family: str) -> Stages:
    """Import a family's stages.

    Raises:
        DataError: it has none.
    """
    return cast(Stages, _module(family, "stages"))


def gated(family: str, gate: Gate) -> Gated:
    """Import what a family expects of its data at a gate; in the environment for data.

    Raises:
        DataError: it says nothing of it.
    """
    return cast(Gated, _module(family, f"expected_{gate}"))


def with_stages() -> list[str]:
    """Return the families that have stages, without importing any."""
    return [name for name in FAMILIES if _file(name, "stages").is_file()]


def _module(family: str, name: str) -> Any:
    if family not in FAMILIES or not _file(family, name).is_file():
        file = layout.shown(_file(family, name))
        raise DataError(
            f"the data of {family} has no stages", note=f"{file} is not there", hint=f"there are {with_stages()}"
        )
    return importlib.import_module(f"{FAMILIES[family]}.{FOLDER}.{name}")


def _file(family: str, name: str) -> Path:
    package = FAMILIES[family].split(".") if family in FAMILIES else ["training", "families", family]
    return layout.ROOT.joinpath(*package, FOLDER, f"{name}.py")
