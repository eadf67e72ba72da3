"""Change what a running server serves, without a dropped request: reload, roll back, promote.

What is on disk is copied and verified, and Triton loads the copy beside what it serves: what does not load never
serves. A release is switched as one, with its ensembles and their steps (`family`); other models as Triton loads them
(`loose`). What was chosen lies on disk: a restart serves the same.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from contracts import layout, repository
from contracts.bundle import Bundle
from contracts.errors import ProjectError
from contracts.names import RULE, is_model_name
from deploy.errors import ChangeError, DeployError, RepositoryError, WrongAnswerError
from deploy.keeping.quarantine import fingerprint
from deploy.layers import layer
from deploy.served import arms, content, private
from deploy.served.content import Content
from deploy.triton import released
from deploy.triton.control import Control
from deploy.triton.state import Running
from deploy.versions import ensembles, family, snapshot
from deploy.versions.change import VersionChange, summary
from deploy.versions.loose import LooseGroup
from deploy.versions.snapshot import Snapshot

__all__ = ["VersionChange", "promote", "reload", "rollback", "summary"]


def reload(server: Running, models: Sequence[str], say: Callable[[str], None]) -> list[VersionChange]:
    """Serve what is on disk now.

    Args:
        models: Their names; none for all. With a model that belongs to a release goes all of that release. Of what has
            not changed Triton loads nothing anew.
        say: Is told what became of each model.

    Raises:
        ChangeError: something did not load. What served before still does; versions that never served are parked.
        RepositoryError: an ensemble and its steps do not agree; of these nothing was loaded.
        RequirementsError: a model's own packages could not be locked or installed; nothing was loaded.
    """
    root = Path(server.repository)
    changes, failures = list[VersionChange](), list[DeployError]()
    with Control(server) as control:
        names, wanted = _wanted(control, root, models, say)
        layer.ensure(root, say, names)
        for reload_unit in _units(control, wanted, names, say):
            try:
                for change in reload_unit():
                    changes.append(change)
                    say(f"  {change}")
            except DeployError as error:
                failures.append(error)
        snapshot.wait_until_unloaded(control)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ChangeError("\n".join(map(str, failures)))
    return changes


def rollback(server: Running | None, root: Path, model: str, to: int | None) -> VersionChange:
    """Serve version `to` again, by default the one before that which answers; newer ones are parked.

    Args:
        server: The one that serves `root`, if one is up. One that does not answer, as a bad version keeps it from
            starting, finds the change on disk when it is started again.

    Raises:
        RepositoryError: there is no such version.
        ChangeError: it does not load; nothing has changed then.
    """
    directory, server = unit(root, model), _if_it_answers(server)
    answering = max(repository.versions(directory), default=0)
    if server:
        with Control(server) as control:
            answering = Snapshot.take(control, directory.name).answering or answering
    if to is None:
        to = max((version for version in repository.versions(directory) if version < answering), default=None)
        if to is None:
            raise no_version(directory, f"older than {answering}")
    elif to >= answering:
        hint = f"python -m deploy promote {directory.name} {to}"
        raise RepositoryError(f"{directory.name} version {to} is not older than {answering}, which answers", hint=hint)
    return _make_newest(server, directory, to)


def promote(server: Running | None, root: Path, model: str, version: int | None) -> VersionChange:
    """Make `version`, by default the newest, the one that answers: restored if it is parked, newer ones parked.

    Raises:
        RepositoryError: there is no such version.
        ChangeError: it does not load; nothing has changed then.
    """
    directory = unit(root, model)
    newest = max([*repository.versions(directory), *repository.parked(directory)], default=0)
    return _make_newest(_if_it_answers(server), directory, newest if version is None else version)


def _units(
    control: Control, wanted: Content, names: Collection[str], say: Callable[[str], None]
) -> Iterator[Callable[[], Sequence[VersionChange]]]:
    """Yield what reloads the models, those at once that go together; releases first."""
    root = wanted.root
    for network, error in wanted.damaged.items():
        if network in names:
            yield partial(_refuse, control, root / network, error)
    for release in wanted.releases:
        if not release.models.keys().isdisjoint(names):
            yield partial(_reload_release, control, root, release, say)
    for group in ensembles.groups(root, wanted.loose, control.server.config_name):
        if asked := [name for name in group if name in names]:
            yield partial(_reload_loose, control, root, group, asked)


def _reload_release(
    control: Control, root: Path, release: Bundle, say: Callable[[str], None]
) -> Sequence[VersionChange]:
    directory = root / release.network
    with locked(control, [directory], release.models):
        before = Snapshot.take(control, release.network)
        try:
            family.switch(control, root, release, say)
        except ProjectError as error:
            raise _failed(control, before, directory, error, lambda _: True) from error
        except OSError as error:
            raise ChangeError(f"{release.network} version {release.version} cannot be copied: {error}") from error
        return [VersionChange(directory.name, before.answering, release.version, tuple(repository.parked(directory)))]


def _refuse(control: Control, directory: Path, error: ProjectError) -> Sequence[VersionChange]:
    """Park a release that cannot even be read, and say what is wrong with it.

    Raises:
        ChangeError: always.
    """
    with locked(control, [directory], [directory.name]):
        before = Snapshot.take(control, directory.name)
        try:
            content.verify(directory / str(repository.versions(directory)[-1]), control.server.trust)
        except ProjectError as whole:
            error = whole
        raise _failed(control, before, directory, error, lambda _: True) from error


def _reload_loose(
    control: Control, root: Path, models: Sequence[str], asked: Collection[str]
) -> Sequence[VersionChange]:
    """Serve what lies on disk of models that belong to no release, and that an ensemble holds together."""
    with locked(control, [root / name for name in models], models), _loose(control, root, models) as group:
        answering = dict[str, int]()
        at = models[0]
        try:
            for at in models:
                group.copy(at)
            group.put()
            for at in models:
                if at in asked or group.has_changed(at):
                    answering[at] = group.load(at)
        except RepositoryError:
            raise
        except ProjectError as error:
            group.take_back()
            raise _failed(control, group.before[at], root / at, error, partial(group.are_to_blame, at)) from error
        return [
            VersionChange(name, group.before[name].answering, version, tuple(repository.parked(root / name)))
            for name, version in answering.items()
        ]


@contextmanager
def _loose(
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


def _failed(
    control: Control,
    before: Snapshot,
    directory: Path,
    error: ProjectError,
    are_to_blame: Callable[[Collection[int]], bool],
) -> ChangeError:
    """Park what never served, where it is to blame; return what to tell the user. The server serves as it did."""
    model, answering = before.model, before.answering
    if answering is None:
        return ChangeError(str(error), note=f"{model} did not serve before, either")
    never_served = [version for version in repository.versions(directory) if version > answering]
    alive = control.live()  # or a version took it down, and shall not do so again when it is restarted
    goes_on = f"version {answering} goes on serving" if alive else "the server ended"
    if never_served and (not alive or are_to_blame(never_served)):
        for version in never_served[:-1]:
            repository.park(directory, version)
        repository.refuse(directory, never_served[-1], str(error))  # the newest is the one that was tried
        numbers = ", ".join(map(str, never_served))
        for_a_moment = isinstance(error, WrongAnswerError) and not content.is_released(directory, never_served[-1])
        served = "served for a moment" if for_a_moment else "never served"
        return ChangeError(
            f"{model}: {goes_on}. {error}",
            note=f"version {numbers} {served} and is parked: a restart serves {answering}",
            hint=f"when it is mended: python -m deploy promote {model} {never_served[-1]}",
        )
    if not alive:
        return ChangeError(f"{model}: the server ended. {error}", hint="why: python -m deploy logs")
    return ChangeError(
        f"{model}: {goes_on}. {error}",
        note="what is on disk now would not load: a restart of the server would fail",
        hint=f"put back what was changed there, then: python -m deploy reload {model}",
    )


def _make_newest(server: Running | None, directory: Path, version: int) -> VersionChange:
    if version not in (*repository.versions(directory), *repository.parked(directory)):
        raise no_version(directory, str(version))
    if server is None:
        content.verify(repository.directory(directory, version), None)
        with repository.locked(directory):
            repository.remove_stale_links(directory)
            repository.make_newest(directory, version)
        return VersionChange(directory.name, None, version, tuple(repository.parked(directory)), live=False)
    with Control(server) as control:
        is_release = content.is_released(directory, version) or content.released_version(directory) is not None
        before, answering = (_switch_release if is_release else _switch_loose)(control, directory, version)
        return VersionChange(directory.name, before.answering, answering, tuple(repository.parked(directory)))


def _switch_release(control: Control, directory: Path, version: int) -> tuple[Snapshot, int]:
    root = directory.parent
    release = content.release(root, directory.name, version)
    with locked(control, [directory], release.models):
        before = Snapshot.take(control, directory.name)
        try:
            family.switch(control, root, release, print)
            repository.make_newest(directory, version)
        except (ProjectError, OSError) as error:
            raise ChangeError(f"{directory.name}: nothing has changed. {error}") from error
        snapshot.wait_until_unloaded(control)
        return before, version


def _switch_loose(control: Control, directory: Path, version: int) -> tuple[Snapshot, int]:
    root, name = directory.parent, directory.name
    with locked(control, [directory], [name]):
        older = [other for other in repository.versions(directory) if other < version]
        try:
            with _loose(control, root, [name], {name: [*older, version]}) as group:
                group.copy(name)
                group.put()
                answering = group.load(name)
                repository.make_newest(directory, version)
        except RepositoryError:
            raise
        except (ProjectError, OSError) as error:
            raise ChangeError(f"{name}: nothing has changed. {error}") from error
        snapshot.wait_until_unloaded(control)
        return group.before[name], answering


@contextmanager
def locked(control: Control, directories: Sequence[Path], models: Collection[str]) -> Iterator[None]:
    """Hold the locks of models: nobody else changes them meanwhile. What a killed command left behind is removed."""
    with ExitStack() as stack:
        for directory in sorted(directories):
            stack.enter_context(repository.locked(directory))
        loading = {*models, *arms.standing(Path(control.server.served), models)}
        snapshot.wait_until_loaded(control, loading)
        for directory in directories:
            repository.remove_stale_links(directory)
        yield


def _if_it_answers(server: Running | None) -> Running | None:
    if server:
        with Control(server, timeout_s=2) as control:
            return server if control.live() else None
    return None


def _wanted(
    control: Control, root: Path, models: Sequence[str], say: Callable[[str], None]
) -> tuple[list[str], Content]:
    """Return the models to reload, by default all that are released, and what is served in all."""
    config_name = control.server.config_name
    loaded = snapshot.ready_models(control.models())
    # What failed is tried again when it was changed, or is asked for by name: it may take the server down.
    failed = {
        model: case.reason
        for model, case in control.server.left_out.items()
        if model not in loaded and fingerprint(root / model) == case.files
    }
    left_out = [group for group in released.left_out(root, config_name, failed) if group.name not in loaded]
    out = released.names(left_out) - loaded
    names = models or sorted(path.parent.name for path in root.glob("*/config.pbtxt") if path.parent.name not in out)
    wanted = content.choose(root, out - set(names))
    loose = [name for name in names if wanted.release_of(name) is None]
    for name in loose:
        _directory(root, name)
    for group in left_out:
        if not out.isdisjoint(group.models) and not models:
            say(f"  {group}")
        elif not group.failed and (asked := sorted(out.intersection(group.models, models))):
            raise RepositoryError(f"{asked[0]} cannot be loaded: {group.reason}", hint=group.command)
    for name in set(models).intersection(loose) - wanted.damaged.keys():
        released.config(root / name, config_name)  # or there is nothing to be said of its ensembles
    return list(names), wanted


def unit(root: Path, model: str) -> Path:
    """Return the directory whose versions are changed with a model: of the network of its release, else its own."""
    release = content.choose(root).release_of(model)
    return root / release.network if release else _directory(root, model)


def _directory(root: Path, model: str) -> Path:
    if not is_model_name(model):  # Triton would end at it, or it leads out of the repository
        raise RepositoryError(f"a model cannot be called {model!r}", note=f"a name has {RULE}")
    if not (root / model / "config.pbtxt").is_file():
        known = ", ".join(sorted(config.parent.name for config in root.glob("*/config.pbtxt"))) or "none"
        raise RepositoryError(f"there is no model {model} in {layout.shown(root)}", note=f"models: {known}")
    return root / model


def no_version(directory: Path, which: str) -> RepositoryError:
    there = ", ".join(map(str, repository.versions(directory))) or "none"
    parked = ", ".join(map(str, repository.parked(directory))) or "none"
    return RepositoryError(f"{directory.name} has no version {which}", note=f"versions: {there}; parked: {parked}")
