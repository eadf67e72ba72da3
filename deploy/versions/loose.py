"""Serve what lies on disk of the models that belong to no release: Python models, and whatever was put there by hand.

They are copied as they lie, those that an ensemble holds together at once. Triton loads the new copy beside the one
that serves, and switches when that is ready: what does not load never serves.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts import layout, repository
from contracts.errors import ProjectError
from deploy.errors import ModelError, RepositoryError
from deploy.served import content, private
from deploy.served.private import Replaced
from deploy.triton.control import Control
from deploy.versions import difference, ensembles, snapshot
from deploy.versions.snapshot import Snapshot


class LooseGroup:
    """Models that an ensemble holds together, or one by itself, of which other copies are served.

    Args:
        scratch: A folder in the server's private directory.
        versions: {model: those of its versions to choose from}; by default those that are not parked.
    """

    def __init__(
        self,
        control: Control,
        root: Path,
        models: Sequence[str],
        scratch: Path,
        versions: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._control, self._root, self._models, self._scratch = control, root, models, scratch
        self._served = Path(control.server.served)
        self._versions = {name: repository.versions(root / name) for name in models} | dict(versions or {})
        self.before = {name: Snapshot.take(control, name) for name in models}
        self._replaced, self._taken_back = Replaced(self._served, scratch), False

    def copy(self, model: str) -> None:
        """Copy a model and verify the copy.

        Raises:
            FolderError, ManifestError, SignatureError, OSError: as `content.put_loose`.
        """
        self._copy(model, self._scratch / "new" / model, self._versions[model])

    def put(self, say: Callable[[str], None], *, anew: bool = False) -> None:
        """Put the copies of what has changed into the place of those that are served; nothing is loaded.

        Args:
            say: Is told what changes.
            anew: Whether all are taken for changed, as what they read beside them was.

        Raises:
            RepositoryError: ensembles and their steps do not agree.
        """
        config_name = self._control.server.config_name
        for name in self._models:
            served, new = self._served / name, self._scratch / "new" / name
            if anew or not (served.is_dir() and content.same(served, new)):
                difference.say_it(say, name, {name: served}, {name: new}, config_name)
                self._replaced.put(name, new)
        try:
            ensembles.check(self._served, self._models, config_name)
        except RepositoryError as error:  # of the files that a user knows
            told = str(error).replace(layout.shown(self._served), layout.shown(self._root))
            raise RepositoryError(told) from error

    def has_changed(self, model: str) -> bool:
        """Tell whether another copy of a model was put into the place of the one that is served."""
        return model in self._replaced.names

    def load(self, model: str) -> int:
        """Load what has changed of a model, see what it serves now, and return the version that answers.

        With it goes what has changed of the ensembles above it and their steps: Triton switches all that one load
        concerns at once. Alone, a step that no longer fits would take its ensemble down. But that a step did not load,
        only the load of the step itself tells.

        Raises:
            ModelError: it does not load, or answers its golden requests wrong, or another model went down with it.
        """
        for ensemble in ensembles.containing(self._served, model, self._control.server.config_name):
            with suppress(ModelError):
                self._control.load(ensemble)
        self._control.load(model)
        answering = snapshot.verify(self._control, self.before[model], self._versions[model])
        snapshot.check_answers(self._control, self.before[model], answering)
        return answering

    def take_back(self) -> None:
        """Serve the copies that were served before. A second time does nothing.

        What is new and did not load stays where it is: of that the keeper says why, and makes the server ready again.
        """
        if self._taken_back or not self._control.live():  # it ended: whoever restarts it fills the repository anew
            return
        self._taken_back = True
        new = [name for name in self._replaced.names if not self.before[name].versions]
        failed = {version.name for version in self._control.models() if version.failed}.intersection(new)
        self._replaced.take_back(but=failed)
        for name in self._models:
            before = self.before[name]
            if before.versions:
                with suppress(ModelError):
                    snapshot.restore(self._control, before, self._served / name)
        for name in reversed(new):
            if name not in failed:
                with suppress(ModelError):
                    self._control.unload(name)

    def are_to_blame(self, model: str, versions: Collection[int]) -> bool:
        """Tell whether those versions are to blame: but for them, what lies on disk of a model is what is served."""
        others = [version for version in self._versions[model] if version not in versions]
        alone = self._scratch / "without" / model
        try:
            self._copy(model, alone, others)
        except (ProjectError, OSError):
            return False
        return content.same(alone, self._served / model)

    def _copy(self, model: str, target: Path, versions: Sequence[int]) -> None:
        server = self._control.server
        content.put_loose(self._root / model, target, server.config_name, server.trust, versions)


@contextmanager
def changing(
    control: Control, root: Path, models: Sequence[str], versions: Mapping[str, Sequence[int]] | None = None
) -> Iterator[LooseGroup]:
    """Change a group of models; what an error or Ctrl-C leaves undone is taken back."""
    with private.scratch(Path(control.server.served)) as scratch:
        group = LooseGroup(control, root, models, scratch, versions)
        try:
            yield group
        except BaseException:
            group.take_back()
            if control.live():
                snapshot.wait_until_unloaded(control)
            raise
