"""Serve what is on disk now, without a dropped request.

What is on disk is copied and verified, and Triton loads the copy beside what it serves: what does not load never
serves. A release is switched as one, with its ensembles and their steps (`family`); other models as Triton loads them
(`loose`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from contracts import repository
from contracts.bundle import Bundle
from contracts.errors import ProjectError
from deploy.errors import ChangeError, DeployError, RepositoryError, WrongAnswerError
from deploy.keeping.quarantine import fingerprint
from deploy.layers import layer
from deploy.served import beside, content
from deploy.served.content import Content
from deploy.triton import released
from deploy.triton.control import Control
from deploy.triton.state import Running
from deploy.versions import ensembles, family, place, snapshot
from deploy.versions.change import VersionChange
from deploy.versions.loose import changing
from deploy.versions.snapshot import Snapshot


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
        if server.trust is None:  # else what a release asks for is installed when that has been verified
            layer.ensure(root, say, names)
        anew = _refresh_beside(root, server, say)
        for reload_unit in _units(control, wanted, names, say, anew=anew):
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


def _units(
    control: Control, wanted: Content, names: Collection[str], say: Callable[[str], None], *, anew: bool
) -> Iterator[Callable[[], Sequence[VersionChange]]]:
    """Yield what reloads the models, those at once that go together; releases first.

    Args:
        anew: Whether those that belong to no release are loaded although they have not changed.
    """
    root = wanted.root
    for network, error in wanted.damaged.items():
        if network in names:
            yield partial(_refuse, control, root / network, error)
    networks = {release.network for release in wanted.releases}
    # First what still serves a step under the name of a network that has releases of its own by now.
    for release in sorted(wanted.releases, key=lambda r: networks.isdisjoint({*r.models} - {r.network})):
        if not release.models.keys().isdisjoint(names):
            yield partial(_reload_release, control, root, release, say)
    for group in ensembles.groups(root, wanted.loose, control.server.config_name):
        if asked := [name for name in group if name in names]:
            yield partial(_reload_loose, control, root, group, asked, say, anew=anew)


def _refresh_beside(root: Path, server: Running, say: Callable[[str], None]) -> bool:
    """Copy what was changed of the folders that are no models; tell whether any was.

    Raises:
        ChangeError: the disk is full, or the private directory is gone, as its server has ended.
    """
    try:
        changed = beside.refresh(root, Path(server.served), content.same, say, server.trust)
    except OSError as error:
        raise ChangeError(f"what models read beside them cannot be copied: {error}") from error
    for name in changed:
        say(f"  {name}: changed; models of no release are loaded anew, as they may read it")
    return bool(changed)


def _reload_release(
    control: Control, root: Path, release: Bundle, say: Callable[[str], None]
) -> Sequence[VersionChange]:
    directory = root / release.network
    with place.locked(control, [directory], release.models):
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
    with place.locked(control, [directory], [directory.name]):
        before = Snapshot.take(control, directory.name)
        try:
            content.verify(directory, repository.versions(directory)[-1], control.server.trust)
        except ProjectError as whole:
            error = whole
        raise _failed(control, before, directory, error, lambda _: True) from error


def _reload_loose(
    control: Control,
    root: Path,
    models: Sequence[str],
    asked: Collection[str],
    say: Callable[[str], None],
    *,
    anew: bool,
) -> Sequence[VersionChange]:
    """Serve what lies on disk of models that belong to no release, and that an ensemble holds together."""
    with place.locked(control, [root / name for name in models], models), changing(control, root, models) as group:
        answering = dict[str, int]()
        at = models[0]
        try:
            for at in models:
                group.copy(at)
            group.put(say, anew=anew)
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
        if not (parked := _parked(directory, never_served, str(error))):
            return ChangeError(f"{model}: {goes_on}. {error}", note="somebody has removed it meanwhile")
        numbers = ", ".join(map(str, parked))
        for_a_moment = isinstance(error, WrongAnswerError) and not content.is_released(directory, parked[-1])
        served = "served for a moment" if for_a_moment else "never served"
        return ChangeError(
            f"{model}: {goes_on}. {error}",
            note=f"version {numbers} {served} and is parked: a restart serves {answering}",
            hint=f"when it is mended: python -m deploy promote {model} {parked[-1]}",
        )
    if not alive:
        return ChangeError(f"{model}: the server ended. {error}", hint="why: python -m deploy logs")
    return ChangeError(
        f"{model}: {goes_on}. {error}",
        note="what is on disk now would not load: a restart of the server would fail",
        hint=f"put back what was changed there, then: python -m deploy reload {model}",
    )


def _parked(directory: Path, versions: Sequence[int], why: str) -> list[int]:
    """Park versions, the newest, which was tried, with the reason; return those that are still there."""
    found = []
    for version in versions:
        with suppress(FileNotFoundError):
            if version == versions[-1]:
                repository.refuse(directory, version, why)
            else:
                repository.park(directory, version)
            found.append(version)
    return found


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
        place.directory(root, name)
    for group in left_out:
        if not out.isdisjoint(group.models) and not models:
            say(f"  {group}")
        elif not group.failed and (asked := sorted(out.intersection(group.models, models))):
            raise RepositoryError(f"{asked[0]} cannot be loaded: {group.reason}", hint=group.command)
    for name in set(models).intersection(loose) - wanted.damaged.keys():
        released.config(root / name, config_name)  # or there is nothing to be said of its ensembles
    return list(names), wanted
