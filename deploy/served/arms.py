"""An arm: a release that stands beside another one of its family, under names of its own: NAME.r3, and its steps.

A switch lets one stand for a moment, and one that was asked for stays until it is taken away. For each of the latter
there is a file in the private directory of the server, which outlives a crash of it, and goes with `up`:

  artifacts/server/served/<unique>/arms/NETWORK.r3    its models
"""

import json
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contracts.names import is_model_name

_ARM = re.compile(r"(.+)\.r\d+")
_KEPT = "arms"  # a folder beside the private repository


@dataclass(frozen=True)
class Arm:
    """A release that stays beside the one that serves."""

    network: str
    version: int
    models: tuple[str, ...]  # as they are called where they serve, the network first

    @property
    def names(self) -> tuple[str, ...]:
        """What its models are called, the network first."""
        return names(self.models, self.version)


def suffix(version: int) -> str:
    """Return what the names of an arm's models end with."""
    return f".r{version}"


def names(models: Collection[str], version: int) -> tuple[str, ...]:
    """Return what the models of a release are called as an arm."""
    return tuple(f"{model}{suffix(version)}" for model in models)


def plain(name: str) -> str:
    """Return what a model of an arm is called where its release serves; another name as it is."""
    return found[1] if (found := _ARM.fullmatch(name)) else name


def standing(repository: Path, models: Collection[str]) -> list[str]:
    """List the arms of the models that there are in a private repository, also those that a killed command left."""
    return sorted(
        path.name for path in repository.iterdir() if _ARM.fullmatch(path.name) and plain(path.name) in models
    )


def left_behind(repository: Path, names: Collection[str], root: Path) -> list[str]:
    """List which of the arms in a private repository a killed command left there: nobody asked for them to stay.

    Args:
        root: The repository that the user named; a model there may be called like an arm, and is none.
    """
    stay = {name for arm in kept(repository) for name in arm.names}
    return sorted(name for name in names if name not in stay and not (root / name).is_dir())


def remove(repository: Path, names: Collection[str]) -> None:
    """Remove arms from a private repository: the server has unloaded them."""
    for name in names:
        shutil.rmtree(repository / name, ignore_errors=True)


def keep(repository: Path, arm: Arm) -> None:
    """Note that an arm stays: also beside the server that is started in the place of one which crashed."""
    place = _place(repository, arm)
    place.parent.mkdir(exist_ok=True)
    partial = place.with_name(f".{place.name}")
    partial.write_text(json.dumps(arm.models))
    partial.rename(place)


def let_go(repository: Path, arm: Arm) -> None:
    """Note that an arm does not stay any more."""
    _place(repository, arm).unlink(missing_ok=True)


def kept(repository: Path) -> list[Arm]:
    """List the arms that stay, whether they serve or not; none where this process may not look."""
    found = list[Arm]()
    with suppress(OSError):
        for place in sorted((repository.parent / _KEPT).glob("[!.]*")):
            network, _, version = place.name.rpartition(".r")
            with suppress(OSError, ValueError, TypeError):  # taken away just now
                models = tuple(json.loads(place.read_text()))
                if all(is_model_name(name) for name in (network, *models)):
                    found.append(Arm(network, int(version), models))
    return found


def _place(repository: Path, arm: Arm) -> Path:
    return repository.parent / _KEPT / f"{arm.network}{suffix(arm.version)}"
