"""The releases that a running server has are held in the model repository: nobody removes them meanwhile."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from contracts import repository
from deploy.served import arms


class Holds:
    """What is held of the repository `root`; the kernel lets go of it, also when this process is killed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: dict[tuple[str, int], ExitStack] = {}

    def keep(self, serving: Mapping[str, Collection[int]]) -> None:
        """Hold these versions and no others.

        Args:
            serving: {model: the versions that the server has ready}.
        """
        wanted = {(model, version) for model, versions in serving.items() for version in versions}
        for gone in self._held.keys() - wanted:
            self._held.pop(gone).close()
        for model, version in wanted - self._held.keys():
            stack = ExitStack()
            # A step of a sealed release has its number, and no such version in the repository. And one that is just
            # being parked changes its name: the next look finds it.
            with suppress(OSError):
                stack.enter_context(repository.held(repository.directory(self._folder(model), version)))
                self._held[model, version] = stack

    def close(self) -> None:
        """Let go of all."""
        self.keep({})

    def _folder(self, model: str) -> Path:
        """Return the folder of a model, or of that of which it is an arm."""
        folder = self._root / model
        return folder if folder.is_dir() else folder.with_name(arms.plain(model))
