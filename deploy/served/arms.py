"""An arm: a release that stands beside another one of its family, under names of its own: NAME.r3, and its steps."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path

_ARM = re.compile(r"(.+)\.r\d+")


def suffix(version: int) -> str:
    """Return what the names of an arm's models end with."""
    return f".r{version}"


def of(models: Collection[str], names: Collection[str]) -> list[str]:
    """List which of the names are those of arms of the models."""
    return sorted(name for name in names if (found := _ARM.fullmatch(name)) and found[1] in models)


def standing(repository: Path, models: Collection[str]) -> list[str]:
    """List the arms of the models that there are in a private repository."""
    return of(models, [path.name for path in repository.iterdir()])


def remove(repository: Path, names: Collection[str]) -> None:
    """Remove arms from a private repository: the server has unloaded them."""
    for name in names:
        shutil.rmtree(repository / name, ignore_errors=True)
