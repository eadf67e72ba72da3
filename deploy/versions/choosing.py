"""Choose which version of a model answers, without a dropped request: roll back, promote.

What was chosen lies on disk: a restart serves the same. Nothing changes there before the server serves it.
"""

from collections.abc import Callable
from pathlib import Path

from contracts import repository
from contracts.errors import ProjectError
from deploy.errors import ChangeError, RepositoryError
from deploy.served import content
from deploy.triton.control import Control
from deploy.triton.state import Running
from deploy.versions import family, place, snapshot
from deploy.versions.change import VersionChange
from deploy.versions.loose import changing
from deploy.versions.snapshot import Snapshot


def rollback(
    server: Running | None, root: Path, model: str, to: int | None, say: Callable[[str], None] = print
) -> VersionChange:
    """Serve version `to` again, by default the one before that which answers; newer ones are parked.

    Args:
        server: The one that serves `root`, if one is up. One that does not answer, as a bad version keeps it from
            starting, finds the change on disk when it is started again.
        say: Is told what becomes of each model.

    Raises:
        RepositoryError: there is no such version.
        ChangeError: it does not load; nothing has changed then.
    """
    directory, server = place.unit(root, model), _if_it_answers(server)
    answering = max(repository.versions(directory), default=0)
    if server:
        with Control(server) as control:
            answering = Snapshot.take(control, directory.name).answering or answering
    if to is None:
        to = max((version for version in repository.versions(directory) if version < answering), default=None)
        if to is None:
            raise place.no_version(directory, f"older than {answering}")
    elif to >= answering:
        hint = f"python -m deploy promote {directory.name} {to}"
        raise RepositoryError(f"{directory.name} version {to} is not older than {answering}, which answers", hint=hint)
    return _make_newest(server, directory, to, say)


def promote(
    server: Running | None, root: Path, model: str, version: int | None, say: Callable[[str], None] = print
) -> VersionChange:
    """Make `version`, by default the newest, the one that answers: restored if it is parked, newer ones parked.

    Raises:
        RepositoryError: there is no such version.
        ChangeError: it does not load; nothing has changed then.
    """
    directory = place.unit(root, model)
    newest = max([*repository.versions(directory), *repository.parked(directory)], default=0)
    return _make_newest(_if_it_answers(server), directory, newest if version is None else version, say)


def _make_newest(server: Running | None, directory: Path, version: int, say: Callable[[str], None]) -> VersionChange:
    if version not in (*repository.versions(directory), *repository.parked(directory)):
        raise place.no_version(directory, str(version))
    if server is None:
        content.verify(directory, version, None)
        with repository.locked(directory):
            repository.remove_stale_links(directory)
            repository.make_newest(directory, version)
        return VersionChange(directory.name, None, version, tuple(repository.parked(directory)), live=False)
    with Control(server) as control:
        is_release = content.is_released(directory, version) or content.released_version(directory) is not None
        before, answering = (_switch_release if is_release else _switch_loose)(control, directory, version, say)
        return VersionChange(directory.name, before.answering, answering, tuple(repository.parked(directory)))


def _switch_release(
    control: Control, directory: Path, version: int, say: Callable[[str], None]
) -> tuple[Snapshot, int]:
    root = directory.parent
    release = content.release(root, directory.name, version)
    with place.locked(control, [directory], release.models):
        before = Snapshot.take(control, directory.name)
        try:
            family.switch(control, root, release, say)
            repository.make_newest(directory, version)
        except (ProjectError, OSError) as error:
            raise ChangeError(f"{directory.name}: nothing has changed. {error}") from error
        snapshot.wait_until_unloaded(control)
        return before, version


def _switch_loose(control: Control, directory: Path, version: int, say: Callable[[str], None]) -> tuple[Snapshot, int]:
    root, name = directory.parent, directory.name
    with place.locked(control, [directory], [name]):
        older = [other for other in repository.versions(directory) if other < version]
        try:
            with changing(control, root, [name], {name: [*older, version]}) as group:
                group.copy(name)
                group.put(say)
                answering = group.load(name)
                repository.make_newest(directory, version)
        except RepositoryError:
            raise
        except (ProjectError, OSError) as error:
            raise ChangeError(f"{name}: nothing has changed. {error}") from error
        snapshot.wait_until_unloaded(control)
        return group.before[name], answering


def _if_it_answers(server: Running | None) -> Running | None:
    if server:
        with Control(server, timeout_s=2) as control:
            return server if control.live() else None
    return None
