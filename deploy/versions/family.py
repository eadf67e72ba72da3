"""Serve another release of a family: all of its models at once, for every request.

1. The new release stands beside the one that serves, under names of its own (an arm), and answers its golden requests.
2. The public ensembles are pointed at the arm. Each takes one load, which for a request is either before it or after:
   Triton gives it all the models of an ensemble when it begins.
3. The models get the new release under their own names, and the ensembles are pointed back at those.
4. The arm is unloaded, and what only the release before had: its ensembles before 3, its steps after it.

A network without an ensemble needs no more than 1, 4 and a load of its own, and so does one whose ensemble one process
runs: that has all of its steps in itself. What goes wrong in 1 has changed nothing that serves; after it, everything
is put back.
"""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts import model_config
from contracts.bundle import Bundle
from deploy.errors import DeployError, ModelError, RepositoryError
from deploy.keeping import readiness, standing
from deploy.layers import layer
from deploy.proving import questions
from deploy.proving.questions import Examination
from deploy.served import arms, assemble, content, inside, private
from deploy.served.assemble import Taken
from deploy.served.private import Replaced
from deploy.triton.control import Control
from deploy.versions import difference, ensembles, leaving, snapshot

_ANSWER_S = 60.0  # for a golden request


def switch(control: Control, root: Path, release: Bundle, say: Callable[[str], None]) -> bool:
    """Serve a release of the repository `root`, in the place of that of its family which serves now.

    Args:
        say: Is told what takes long, and what changes.

    Returns:
        Whether anything was loaded; not if it serves already.

    Raises:
        ManifestError, SignatureError, FolderError, ModelConfigError: it is not what may be served.
        ModelError: it does not load, or does not answer its golden requests as it was proven to.
        RepositoryError: its ensembles and their steps do not agree.
        OSError: the disk is full, or the private directory is gone, as its server has ended.
    """
    server = control.server
    served = Path(server.served)
    release = content.named(release, root, served, server.config_name)
    with private.scratch(served) as scratch:
        new = scratch / "repository"
        new.mkdir()
        taken = assemble.take(release, scratch / "release", server.trust)
        assemble.place(taken, new, server.config_name)
        content.put_earlier(root, taken, new, server.config_name, server.trust, say)
        layer.ensure(new, say)
        # By a command that was killed; also of models that this release does not have.
        names = {*arms.standing(served, release.models), *assemble.arms_of(served, release.network)}
        left_behind = arms.left_behind(served, names, root)
        leaves = leaving.of(served, release.network, release.models)
        if not left_behind and not leaves and _serves(control, served, new, release):
            return False
        before = {name: served / name for name in (*release.models, *leaves)}
        after = {name: new / name for name in release.models}
        difference.say_it(say, f"{release.network}: version {release.version}", before, after, server.config_name)
        change = _Change(control, served, scratch, new, release.version, leaves)
        if change.ensembles:
            with _standing(control, taken), _or_taken_back(change):
                change.point_at_the_arm()
                change.settle()
        else:
            with _standing(control, taken):
                pass
            with _or_taken_back(change):
                change.settle()
        standing.withdraw(control, served, left_behind)
    return True


def stand(control: Control, taken: Taken) -> tuple[str, ...]:
    """Let a release stand beside the one that serves, as an arm; return the names of its models there.

    Raises:
        RepositoryError: its ensembles and their steps do not agree, or one of its names is of another arm.
        ModelError: it does not load.
        WrongAnswerError: it loads, and gives a wrong answer to a golden request.
    """
    served, suffix = Path(control.server.served), arms.suffix(taken.version)
    names = arms.names(taken.models, taken.version)
    for arm in arms.kept(served):
        if arm.network != taken.network and (shared := sorted({*names}.intersection(arm.names))):
            hint = f"take it away first: python -m deploy arm {arm.network} {arm.version} --remove"
            raise RepositoryError(f"{shared[0]} stands already, as a step of {arm.network}", hint=hint)
    arms.remove(served, names)  # of a command that was killed
    try:
        assemble.place(taken, served, control.server.config_name, suffix)
        try:
            ensembles.check(served, names, control.server.config_name)
            order = standing.in_order(served, names)
            control.load_all([name for name in order if not standing.steps(served / name)])
            for name in [name for name in order if standing.steps(served / name)]:
                control.load(name)
            _check_answers(control, taken, suffix)
        except DeployError as error:
            raise _by_its_own_name(error, suffix) from error
    except BaseException:
        standing.withdraw(control, served, names)
        raise
    return names


class _Change:
    """The models of a family that get another release under their own names.

    Args:
        new: The repository with the new release alone.
        version: The new release's.
        leaves: The models that it has no more.
    """

    def __init__(
        self, control: Control, served: Path, scratch: Path, new: Path, version: int, leaves: Collection[str]
    ) -> None:
        self._control, self._served, self._scratch, self._new, self._version = control, served, scratch, new, version
        folders = [path.parent for path in sorted(new.glob(f"*/{model_config.FILE_NAME}"))]
        steps = {folder.name: standing.steps(folder) for folder in folders}
        self._order = standing.sorted_steps(steps)
        self._leaves = standing.in_order(served, leaves)[::-1]
        self._before = snapshot.ready_models(control.models())
        self.ensembles = [name for name in self._order if steps[name]]
        self.replaced = Replaced(served, scratch)

    def point_at_the_arm(self) -> None:
        """Let every ensemble that serves send its requests to the arm's steps from now on."""
        suffix = arms.suffix(self._version)
        for name in self.ensembles:
            if name in self._before:
                pointed = self._scratch / "pointed" / name
                assemble.rename(self._served / f"{name}{suffix}", pointed, name)
                self._put(name, pointed)

    def settle(self) -> None:
        """Load the release under its own names, steps first, and see that it serves and nothing else was lost.

        What it has no more goes: an ensemble before its steps are replaced.

        Raises:
            ModelError: one does not load, or another model went down with it.
        """
        ensembles = [name for name in self._leaves if standing.steps(self._served / name)]
        for name in ensembles:
            self._remove(name)
        others = [name for name in self._order if name not in self.ensembles]
        whole = [name for name in others if inside.steps_of(self._new / name)]
        # First what has all of its steps in itself: what it takes the place of may be an ensemble over the others.
        for names in (whole, [name for name in others if name not in whole]):
            for name in names:
                self.replaced.put(name, self._new / name)
            self._control.load_all(names)
        for name in self.ensembles:
            self._put(name, self._new / name)
        for name in [name for name in self._leaves if name not in ensembles]:
            self._remove(name)
        found = self._control.models()
        ready = {(model.name, model.version) for model in found if model.state == "READY"}
        if missing := [name for name in self._order if (name, self._version) not in ready]:
            raise ModelError(f"{missing[0]} version {self._version} is not ready although it was loaded")
        if lost := sorted(self._before - snapshot.ready_models(found) - {*self._leaves}):
            raise ModelError(f"with this {self._order[0]}, {', '.join(lost)} does not serve any more")

    def take_back(self) -> None:
        """Serve what was served before; what was not there is unloaded."""
        if not self._control.live():  # it ended: whoever restarts it fills the repository anew
            return
        was_there = {name for name in self.replaced.names if self.replaced.was_there(name)}
        self.replaced.take_back()
        for name in standing.in_order(self._served, was_there):
            with suppress(ModelError):
                self._control.load(name)
        new = [name for name in self.replaced.names if name not in was_there]
        for name in reversed(new):
            with suppress(ModelError):
                self._control.unload(name)
        with suppress(ModelError):
            readiness.settle(self._control, self.replaced.names)
        snapshot.wait_until_unloaded(self._control)

    def _put(self, name: str, folder: Path) -> None:
        self.replaced.put(name, folder)
        self._control.load(name)

    def _remove(self, name: str) -> None:
        self._control.unload(name)  # first: what is left of a killed command is found by its folder
        self.replaced.remove(name)


def stands(control: Control, release: Bundle) -> bool:
    """Tell whether all of a release stands as an arm, as it was released."""
    names = arms.names(release.models, release.version)
    return release.sealed and snapshot.ready_models(control.models()).issuperset(names)


@contextmanager
def _standing(control: Control, taken: Taken) -> Iterator[None]:
    """Let a release stand beside the one that serves for as long as the block runs; an arm that stays, as it does.

    Raises:
        RepositoryError, ModelError, WrongAnswerError: as `stand`.
    """
    served, names = Path(control.server.served), arms.names(taken.models, taken.version)
    stays = (taken.network, taken.version) in [(arm.network, arm.version) for arm in arms.kept(served)]
    if not (stays and stands(control, taken)):
        stand(control, taken)
    try:
        yield
    finally:
        if not stays:
            standing.withdraw(control, served, names)


@contextmanager
def _or_taken_back(change: _Change) -> Iterator[None]:
    try:
        yield
    except BaseException:
        change.take_back()
        raise


def _check_answers(control: Control, taken: Taken, suffix: str) -> None:
    """Ask the arm the golden requests of its release; one that no server has served yet all that the serve gate asks.

    Raises:
        ModelError: it refuses one.
        WrongAnswerError: an answer is not the reference's.
    """
    server = control.server
    ask = questions.at(server.http_address, _ANSWER_S)
    arm = Examination.of(taken, Path(server.served), ask, native=server.native, suffix=suffix)
    for question in questions.ALL.values() if taken.is_new else (questions.alone,):
        question(arm)


def _serves(control: Control, served: Path, new: Path, release: Bundle) -> bool:
    ready = {(model.name, model.version) for model in control.models() if model.state == "READY"}
    return all(
        (name, release.version) in ready and (served / name).is_dir() and content.same(served / name, new / name)
        for name in release.models
    )


def _by_its_own_name(error: DeployError, suffix: str) -> DeployError:
    """Say of an arm what a user knows as the model."""
    return type(error)(re.sub(rf"{re.escape(suffix)}(?!\d)", "", str(error)))
