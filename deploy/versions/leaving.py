"""The models that serve of a release and that the next one no longer has: they go when that takes over."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from contracts import model_config
from contracts.errors import ModelConfigError
from deploy.served import assemble


def of(served: Path, network: str, staying: Collection[str]) -> list[str]:
    """List the models of the release of `network` that serves which will not be needed any more.

    What an ensemble needs that belongs to no release, or to another one, stays.

    Args:
        served: The private repository.
        staying: The models of the next release, by the names that they are served under.
    """
    own = assemble.models_of(served, network)
    others = [path.name for path in served.iterdir() if path.is_dir() and path.name not in own]
    needed, waiting = set[str](), [step for name in others for step in _steps(served / name)]
    while waiting:
        if (name := waiting.pop()) not in needed:
            needed.add(name)
            waiting += _steps(served / name)
    return [name for name in own if name not in staying and name not in needed]


def _steps(folder: Path) -> Iterator[str]:
    for path in model_config.paths(folder):
        with suppress(ModelConfigError):  # of a model that is left out
            yield from model_config.steps(model_config.read(path))
