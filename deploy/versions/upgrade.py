"""Change what a running server serves, without a dropped request: reload, roll back, promote.

Triton loads what is on disk beside what it serves, and switches when that is ready: a version that does not load
never serves. Every change is asked of the server afterwards, and lies on disk: a restart serves the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from contracts import layout, manifest, repository, signing
from contracts.errors import ProjectError
from contracts.names import RULE, is_model_name
from deploy.errors import ChangeError, DeployError, ModelError, RepositoryError, WrongAnswerError
from deploy.keeping.quarantine import fingerprint
from deploy.layers import layer
from deploy.triton import released
from deploy.triton.control import Control
from deploy.triton.state import Running
from deploy.versions import ensembles, snapshot
from deploy.versions.snapshot import Snapshot


@dataclass(frozen=True)
class VersionChange:
    """What became of a model: which version answered before, and which one does now."""

    model: str
    before: int | None  # the version that answered; None: none did, or no server is up
    after: int  # that answers now; with no server up: that will
    parked: tuple[int, ...]  # the versions on disk that are not served
    live: bool = True  # False: no server serves this repository, only what lies there was changed

    def __str__(self) -> str:
        if not self.live:
            return f"{self.model}: no server serves this repository now; the next one will serve version {self.after}"
        if self.before is None:
            return f"{self.model}: version {self.after}"
        if self.before == self.after:
            return f"{self.model}: version {self.after}, as before"
        return f"{self.model}: version {self.before} → {self.after}"


def reload(server: Running, models: Sequence[str], say: Callable[[str], None]) -> list[VersionChange]:
    """Serve what is on disk now.

    Args:
        models: Their names; none for all. Of what has not changed Triton loads nothing anew.
        say: Is told what became of each model.

    Raises:
        ChangeError: something did not load. What served before still does; versions that never served are parked.
        RequirementsError: a model's own packages could not be locked or installed; nothing was loaded.
    """
    root = Path(server.repository)
    changes, failures = [], []
    with Control(server) as control:
        directories = _directories(control, root, models, say)
        names = [directory.name for directory in directories]
        ensembles.check(root, names, server.config_name)
        layer.ensure(root, say, names)
        for directory in directories:
            try:
                changes.append(_reload(control, directory, server.trust))
                say(f"  {changes[-1]}")
            except DeployError as error:
                failures.append(str(error))
        snapshot.wait_until_unloaded(control)
    if failures:
        raise ChangeError("\n".join(failures))
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
    directory, server = _directory(root, model), _if_it_answers(server)
    answering = max(repository.versions(directory), default=0)
    if server:
        with Control(server) as control:
            answering = Snapshot.take(control, model).answering or answering
    if to is None:
        to = max((version for version in repository.versions(directory) if version < answering), default=None)
        if to is None:
            raise _no_version(directory, f"older than {answering}")
    elif to >= answering:
        hint = f"python -m deploy promote {model} {to}"
        raise RepositoryError(f"{model} version {to} is not older than {answering}, which answers", hint=hint)
    return _make_newest(server, directory, to)


def promote(server: Running | None, root: Path, model: str, version: int | None) -> VersionChange:
    """Make `version`, by default the newest, the one that answers: restored if it is parked, newer ones parked.

    Raises:
        RepositoryError: there is no such version.
        ChangeError: it does not load; nothing has changed then.
    """
    directory = _directory(root, model)
    newest = max([*repository.versions(directory), *repository.parked(directory)], default=0)
    return _make_newest(_if_it_answers(server), directory, newest if version is None else version)


def summary(changes: Sequence[VersionChange]) -> str:
    """Sum up what a command did: versions before and after, and the next command."""
    changed = [change for change in changes if change.before != change.after]
    if not changed:
        what = str(changes[0]) if len(changes) == 1 else "Every model serves the version that it did."
        return f"{what}\nNext: python -m deploy status"
    last = changed[0]
    if not last.live:
        following = "python -m deploy up"
    elif last.before is None:
        following = "python -m deploy status"
    elif last.after > last.before:
        following = f"python -m deploy rollback {last.model} --to {last.before}   (the way back)"
    else:
        following = f"python -m deploy promote {last.model} {last.before}   (the way back)"
    return f"{'; '.join(map(str, changed))}\nNext: {following}"


def _reload(control: Control, directory: Path, trust: signing.Trust | None) -> VersionChange:
    with _locked(control, directory):
        before = Snapshot.take(control, directory.name)
        versions = repository.versions(directory)
        try:
            for version in versions:
                _check(directory / str(version), trust)
            _load(control, directory)
            answering = snapshot.verify(control, before, versions)
            snapshot.check_answers(control, before, answering)
        except ProjectError as error:
            raise _failed(control, before, directory, error) from error
        return VersionChange(directory.name, before.answering, answering, tuple(repository.parked(directory)))


def _load(control: Control, directory: Path) -> None:
    """Load what has changed of the model, and with it what has changed of the ensembles above it and their steps.

    Triton switches all that one load concerns at once. Alone, a step that no longer fits would take its ensemble
    down. But that a step did not load, only the load of the step itself tells.
    """
    for ensemble in ensembles.containing(directory.parent, directory.name):
        with suppress(ModelError):
            control.load(ensemble)
    control.load(directory.name)


def _failed(control: Control, before: Snapshot, directory: Path, error: ProjectError) -> ChangeError:
    """Park what never served and make the server serve as it did; return what to tell the user."""
    model, answering = before.model, before.answering
    if answering is None:
        return ChangeError(str(error), note=f"{model} did not serve before, either")
    never_served = [version for version in repository.versions(directory) if version > answering]
    for version in never_served:
        repository.park(directory, version)
    alive = control.live()  # or a version took it down, and shall not do so again when it is restarted
    goes_on = f"version {answering} goes on serving" if alive else "the server ended"
    if never_served and (not alive or _serves_again(control, before, directory)):
        numbers = ", ".join(map(str, never_served))
        served = "served for a moment" if isinstance(error, WrongAnswerError) else "never served"
        return ChangeError(
            f"{model}: {goes_on}. {error}",
            note=f"version {numbers} {served} and is parked: a restart serves {answering}",
            hint=f"when it is mended: python -m deploy promote {model} {never_served[-1]}",
        )
    for version in never_served:  # it was not their fault, or not theirs alone
        repository.restore(directory, version)
    if not alive:
        return ChangeError(f"{model}: the server ended. {error}", hint="why: python -m deploy logs")
    snapshot.restore_config(control, before)
    return ChangeError(
        f"{model}: {goes_on}. {error}",
        note="what is on disk now would not load: a restart of the server would fail",
        hint=f"put back what was changed there, then: python -m deploy reload {model}",
    )


def _serves_again(control: Control, before: Snapshot, directory: Path) -> bool:
    try:
        snapshot.restore_from_disk(control, before, directory)
    except DeployError:
        return False
    return True


def _make_newest(server: Running | None, directory: Path, version: int) -> VersionChange:
    if version not in (*repository.versions(directory), *repository.parked(directory)):
        raise _no_version(directory, str(version))
    _check(repository.directory(directory, version), server.trust if server else None)
    if server is None:
        with repository.locked(directory):
            repository.remove_stale_links(directory)
            with repository.switch_to(directory, version):
                pass
        return VersionChange(directory.name, None, version, tuple(repository.parked(directory)), live=False)
    ensembles.check(directory.parent, [directory.name], server.config_name)
    with Control(server) as control, _locked(control, directory):
        before = Snapshot.take(control, directory.name)
        with _or_restored(control, before, directory), repository.switch_to(directory, version):
            _load(control, directory)
            answering = snapshot.verify(control, before, {*repository.versions(directory), version})
            snapshot.check_answers(control, before, answering)
        snapshot.wait_until_unloaded(control)
        return VersionChange(directory.name, before.answering, answering, tuple(repository.parked(directory)))


@contextmanager
def _locked(control: Control, directory: Path) -> Iterator[None]:
    """Hold the model's lock: nobody else changes it meanwhile. What a killed command left behind is removed first."""
    with repository.locked(directory):
        snapshot.wait_until_loaded(control, directory.name)
        repository.remove_stale_links(directory)
        yield


@contextmanager
def _or_restored(control: Control, before: Snapshot, directory: Path) -> Iterator[None]:
    """Take the server back with the disk if the block ends with an error, Ctrl-C included."""
    try:
        yield
    except BaseException as error:
        if before.versions and control.live():
            snapshot.restore_from_disk(control, before, directory)
            snapshot.wait_until_unloaded(control)
        if isinstance(error, ProjectError):
            raise ChangeError(f"{before.model}: nothing has changed. {error}") from error
        raise


def _check(version: Path, trust: signing.Trust | None) -> None:
    """Check of a version what `up` does, too. The Python models and the ensembles that git has are no releases."""
    published = (version / manifest.FILE_NAME).exists()
    if published:
        manifest.verify(version)
    if trust and (published or any(path.suffix in (".onnx", ".plan") for path in version.iterdir())):
        signing.verify(version, trust)


def _if_it_answers(server: Running | None) -> Running | None:
    if server:
        with Control(server, timeout_s=2) as control:
            return server if control.live() else None
    return None


def _directories(control: Control, root: Path, models: Sequence[str], say: Callable[[str], None]) -> list[Path]:
    """Return the directories of `models`, or of all that are released; ensembles last: their steps are settled then."""
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
    directories = [_directory(root, name) for name in names]
    for group in left_out:
        if not out.isdisjoint(group.models) and not models:
            say(f"  {group}")
        elif not group.failed and (asked := sorted(out.intersection(group.models, models))):
            raise RepositoryError(f"{asked[0]} cannot be loaded: {group.reason}", hint=group.command)
    are_ensembles = ensembles.among(root, names, config_name)
    return sorted(directories, key=lambda directory: directory.name in are_ensembles)


def _directory(root: Path, model: str) -> Path:
    if not is_model_name(model):  # Triton would end at it, or it leads out of the repository
        raise RepositoryError(f"a model cannot be called {model!r}", note=f"a name has {RULE}")
    if not (root / model / "config.pbtxt").is_file():
        known = ", ".join(sorted(config.parent.name for config in root.glob("*/config.pbtxt"))) or "none"
        raise RepositoryError(f"there is no model {model} in {layout.shown(root)}", note=f"models: {known}")
    return root / model


def _no_version(directory: Path, which: str) -> RepositoryError:
    there = ", ".join(map(str, repository.versions(directory))) or "none"
    parked = ", ".join(map(str, repository.parked(directory))) or "none"
    return RepositoryError(f"{directory.name} has no version {which}", note=f"versions: {there}; parked: {parked}")
