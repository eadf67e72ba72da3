"""Serve another release of a family beside the one that serves, under names of its own, until it is taken away.

It stays when another release is served under the public names, also that very one, and is there again after a crash of
the server; `up` begins without.
"""

import time
from collections.abc import Callable
from pathlib import Path

from contracts import repository
from contracts.errors import ProjectError
from deploy.errors import ChangeError, RepositoryError
from deploy.keeping import standing
from deploy.layers import layer
from deploy.served import arms, assemble, content, private
from deploy.served.arms import Arm
from deploy.triton.control import Control
from deploy.triton.state import Running
from deploy.versions import family, place, snapshot

_HELD_S = 3.0  # within which the keeper sees what is new


def put_up(server: Running, root: Path, model: str, version: int, say: Callable[[str], None]) -> Arm:
    """Let a release stand beside the one that serves, unless it does already.

    Args:
        model: Any of its family.
        version: The release's number; it may be parked.
        say: Is told what takes long.

    Raises:
        RepositoryError: there is no such release, or a name of its arm is taken.
        ChangeError: it does not load, or does not answer its golden requests as it was proven to.
    """
    directory = place.unit(root, model)
    if version not in (*repository.versions(directory), *repository.parked(directory)):
        raise place.no_version(directory, str(version))
    if not content.is_released(directory, version):
        raise RepositoryError(
            f"{directory.name} version {version} is no release, and cannot stand beside another one",
            note="a release has a manifest: python -m export publishes one",
        )
    served = Path(server.served)
    release = content.named(content.release(root, directory.name, version), root, served, server.config_name)
    arm = Arm(directory.name, version, tuple(release.models))
    if taken := [name for name in arm.names if (root / name).is_dir()]:
        raise RepositoryError(f"the name {taken[0]} is that of a model in the repository")
    with Control(server) as control, place.locked(control, [directory], release.models):
        if arm in arms.kept(served) and family.stands(control, release):
            return arm
        try:
            with private.scratch(served) as scratch:
                copy, new = assemble.take(release, scratch / "release", server.trust), scratch / "repository"
                new.mkdir()
                assemble.place(copy, new, server.config_name)
                layer.ensure(new, say)
                family.stand(control, copy)
        except RepositoryError:
            raise
        except (ProjectError, OSError) as error:
            raise ChangeError(f"{directory.name} version {version} does not stand beside: {error}") from error
        arms.keep(served, arm)
        _wait_until_held(server, repository.directory(directory, version))
        snapshot.wait_until_unloaded(control)
    return arm


def take_away(server: Running, root: Path, model: str, version: int | None, say: Callable[[str], None]) -> Arm:
    """Take an arm away: requests that it has accepted are answered first.

    Args:
        model: Any of its family.
        version: The release's number; None for the only arm of that family.
        say: Is told what takes long.

    Raises:
        RepositoryError: there is no such arm.
    """
    served = Path(server.served)
    known = arms.kept(served)
    own = [arm for arm in known if model in (arm.network, *arm.models, *arm.names)]
    found = [arm for arm in own if version in (None, arm.version)]
    if len(found) != 1:
        there = ", ".join(f"{arm.network} {arm.version}" for arm in own or known) or "none"
        which = f"version {version}" if version is not None else "one arm alone"
        raise RepositoryError(f"of {model} there is not {which} beside the one that serves", note=f"arms: {there}")
    [arm] = found
    with Control(server) as control, place.locked(control, [root / arm.network], arm.models):
        arms.let_go(served, arm)
        if (release := content.choose(root).release_of(arm.network)) and _is_needed(served, arm):
            family.switch(control, root, release, say)
        standing.withdraw(control, served, arm.names)
        snapshot.wait_until_unloaded(control)
    return arm


def _is_needed(served: Path, arm: Arm) -> bool:
    """Tell whether a public ensemble is pointed at the arm: by a command that was killed."""
    folders = [path.parent for path in served.glob("*/config.pbtxt") if path.parent.name not in arm.names]
    return any(not {*arm.names}.isdisjoint(standing.steps(folder)) for folder in folders)


def _wait_until_held(server: Running, version: Path) -> None:
    """Wait until whoever keeps the server holds the version, and nobody removes it; one who was killed never will."""
    until = time.monotonic() + _HELD_S
    while server.supervisor.alive() and not repository.is_held(version) and time.monotonic() < until:
        time.sleep(0.05)
