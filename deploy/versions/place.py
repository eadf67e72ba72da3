"""Where the versions of a model lie in the repository that the user named, and the lock on them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from contracts import layout, repository
from contracts.names import RULE, is_model_name
from deploy.errors import RepositoryError
from deploy.served import arms, content
from deploy.triton.control import Control
from deploy.versions import snapshot


def unit(root: Path, model: str) -> Path:
    """Return the directory whose versions are changed with a model: of the network of its release, else its own.

    Raises:
        RepositoryError: there is no such model.
    """
    release = content.choose(root).release_of(model)
    return root / release.network if release else directory(root, model)


def directory(root: Path, model: str) -> Path:
    """Return the directory of a model.

    Raises:
        RepositoryError: there is none.
    """
    if not is_model_name(model):  # Triton would end at it, or it leads out of the repository
        raise RepositoryError(f"a model cannot be called {model!r}", note=f"a name has {RULE}")
    if not (root / model / "config.pbtxt").is_file():
        known = ", ".join(sorted(config.parent.name for config in root.glob("*/config.pbtxt"))) or "none"
        raise RepositoryError(f"there is no model {model} in {layout.shown(root)}", note=f"models: {known}")
    return root / model


def no_version(directory: Path, which: str) -> RepositoryError:
    """Return the error that says which versions of a model there are instead."""
    there = ", ".join(map(str, repository.versions(directory))) or "none"
    parked = ", ".join(map(str, repository.parked(directory))) or "none"
    return RepositoryError(f"{directory.name} has no version {which}", note=f"versions: {there}; parked: {parked}")


@contextmanager
def locked(control: Control, directories: Sequence[Path], models: Collection[str]) -> Iterator[None]:
    """Hold the locks of models: nobody else changes them meanwhile. What a killed command left behind is removed."""
    with ExitStack() as stack:
        for folder in sorted(directories):
            stack.enter_context(repository.locked(folder))
        loading = {*models, *arms.standing(Path(control.server.served), models)}
        snapshot.wait_until_loaded(control, loading)
        for folder in directories:
            repository.remove_stale_links(folder)
        yield
