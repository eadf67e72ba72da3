"""What of a model repository a server is given: the releases that serve, and the models that belong to none.

A release is the newest version that is not parked, where that has a manifest, with the ensembles above it and their
steps: all of them from its bundle. Everything else is copied as it lies: Python models and whatever was put there by
hand, and ensembles over two networks, of which each has releases of its own.
"""

import filecmp
import shutil
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contracts import bundle, copying, manifest, model_config, repository, signing
from contracts.bundle import Bundle
from contracts.errors import ManifestError, ModelConfigError, ProjectError
from contracts.names import is_model_name
from contracts.trust import identity
from deploy.errors import SettingsError
from deploy.served import assemble, beside, bytecode, inside, private
from deploy.triton.settings import SERVED_VARIABLE

_WORTH_SAYING_S, _WORTH_SAYING_BYTES = 2.0, 256 << 20


@dataclass(frozen=True)
class Content:
    """What of a repository is served."""

    root: Path
    releases: tuple[Bundle, ...]
    loose: tuple[str, ...]  # models that belong to no release
    damaged: Mapping[str, ManifestError]  # {network whose release cannot be read: why}

    def release_of(self, model: str) -> Bundle | None:
        """Return the release that a model belongs to, the first of several; None if it is loose, or not served."""
        having = [release for release in self.releases if model in release.models]
        return next((release for release in having if release.network == model), having[0] if having else None)


def choose(root: Path, out: Set[str] = frozenset()) -> Content:
    """Find what of the repository `root` is served.

    Args:
        out: Models that are left out.
    """
    no_models = beside.names(root)
    folders = sorted(path for path in root.iterdir() if path.is_dir() and is_model_name(path.name))
    folders = [folder for folder in folders if folder.name not in no_models]
    releases, damaged, taken = list[Bundle](), dict[str, ManifestError](), {*out}
    networks = {folder.name: number for folder in folders if (number := released_version(folder)) is not None}
    for network, number in networks.items():
        if network in out:
            continue
        try:
            found = release(root, network, number, out)
        except ManifestError as error:
            damaged[network] = error
            taken.add(network)
        else:
            releases.append(found)
            taken |= found.models.keys()
    loose = tuple(folder.name for folder in folders if folder.name not in taken)
    return Content(root, tuple(releases), loose, damaged)


def release(root: Path, network: str, version: int, without: Set[str] = frozenset()) -> Bundle:
    """Return a release as it is served: with those of its models that are there.

    Args:
        without: Models that are left out.

    Raises:
        ManifestError: it is damaged.
    """
    found = bundle.of(root, network, version)
    own = {name: folder for name, folder in found.models.items() if name not in without and folder.is_dir()}
    return replace(found, models=own)


def named(release: Bundle, root: Path, repository: Path, config_name: str | None) -> Bundle:
    """Shape a release as `inside.shaped` does, and give its models the names that they are served under.

    Those are their own, unless they are taken.

    A step that the ensembles of two networks share is in the bundles of both, and each serves what it sealed: the
    release that comes second has it as STEP.of_NETWORK. A network's name belongs to its own release.

    Args:
        repository: The private one.
        config_name: Which of a model's configurations is taken.
    """

    def is_free(name: str) -> bool:
        return assemble.owner(repository / name) in (None, release.network)

    def name(model: str) -> str:
        if model == release.network or (is_free(model) and released_version(root / model) is None):
            return model
        own = f"{model}.of_{release.network}"
        while (root / own).is_dir() or not is_free(own):  # somebody has called a model just that
            own += "_"
        return own

    shaped = inside.shaped(release, config_name)
    return replace(shaped, models={name(model): folder for model, folder in shaped.models.items()})


def released_version(folder: Path) -> int | None:
    """Return the number of the release of the model in `folder` that serves; None where its newest version is none."""
    versions = repository.versions(folder)
    return versions[-1] if versions and is_released(folder, versions[-1]) else None


def is_released(folder: Path, version: int) -> bool:
    """Tell whether a version of the model in `folder`, parked or not, is a release: whether it has a manifest."""
    return (repository.directory(folder, version) / manifest.FILE_NAME).is_file()


def put(
    content: Content,
    into: Path,
    config_name: str | None,
    trust: signing.Trust | None,
    say: Callable[[str], None],
) -> dict[str, ProjectError]:
    """Fill the repository `into` of a private directory, and say what that took where it took long.

    Returns:
        {network, or model that belongs to no release, that cannot be served: why}.

    Raises:
        SettingsError: the disk is full.
    """
    failed: dict[str, ProjectError] = {**content.damaged}
    began, free = time.monotonic(), shutil.disk_usage(into).free
    try:
        for release in content.releases:
            try:
                put_release(content.root, release, into, config_name, trust, say)
            except ProjectError as error:
                failed[release.network] = error
        beside.refresh(content.root, into, same, say, trust)
        for name in content.loose:
            try:
                put_loose(content.root / name, into / name, config_name, trust)
            except ProjectError as error:
                failed[name] = error
                shutil.rmtree(into / name, ignore_errors=True)
    except OSError as error:
        raise SettingsError(
            f"the models that are served cannot be copied to {into.parent.parent}: {error}",
            hint=f"set {SERVED_VARIABLE} to a folder on a disk with room for them",
        ) from error
    seconds, size = time.monotonic() - began, sum(p.stat().st_size for p in into.rglob("*") if p.is_file())
    if seconds > _WORTH_SAYING_S or size > _WORTH_SAYING_BYTES:
        disk = max(0, free - shutil.disk_usage(into).free)
        say(f"Copied and verified {size / 1e6:,.0f} MB of models in {seconds:.1f} s, with {disk / 1e6:,.0f} MB of disk")
    return failed


def put_release(
    root: Path,
    release: Bundle,
    into: Path,
    config_name: str | None,
    trust: signing.Trust | None,
    say: Callable[[str], None],
) -> None:
    """Put the models of a release into the repository `into`, and earlier versions of its network that stay askable.

    Raises:
        RepositoryError, FolderError, ManifestError, SignatureError, OSError: as `assemble.take`.
        ModelConfigError: a configuration is missing or is none.
    """
    with private.scratch(into) as scratch:
        taken = assemble.take(named(release, root, into, config_name), scratch / "release", trust)
        assemble.place(taken, into, config_name)
        put_earlier(root, taken, into, config_name, trust, say)


def put_earlier(
    root: Path,
    release: Bundle,
    into: Path,
    config_name: str | None,
    trust: signing.Trust | None,
    say: Callable[[str], None],
) -> None:
    """Put the earlier versions of a release's network beside it that can still be asked for by their number.

    Those are what its version policy keeps of the releases before it, where they differ in the version alone. One that
    is not what was published any more does the release no harm: it is left out, and that is said.

    Raises:
        OSError: the disk is full.
    """
    folder = root / release.network
    versions = [version for version in repository.versions(folder) if version < release.version]
    kept = _by_policy(_config(release.models[release.network], config_name), [*versions, release.version])[:-1]
    for number in kept:
        try:
            if is_released(folder, number) and _same_outside(release, bundle.of(root, release.network, number)):
                with private.scratch(into) as scratch:
                    alone = replace(bundle.of(root, release.network, number), models={})
                    assemble.add_version(assemble.take(alone, scratch / "release", trust), into)
        except ProjectError as error:
            told = "; ".join(str(error).splitlines())
            say(f"warning: {release.network} version {number} is not served beside {release.version}: {told}")


def put_loose(
    folder: Path,
    target: Path,
    config_name: str | None,
    trust: signing.Trust | None,
    versions: Sequence[int] | None = None,
) -> None:
    """Copy a model that belongs to no release as it lies, but for versions that its configuration leaves out.

    Where files of it are links the copy has what they lead to, wherever that lies. No signature covers it, neither its
    code nor a library beside its configuration: where one is asked for it is refused.

    Args:
        versions: Those to choose from, parked or not; None for all that are not parked.

    Raises:
        RepositoryError, FolderError, ManifestError, OSError: as `assemble.take`.
        SignatureError: `trust` is given.
    """
    if trust is not None:
        for version in repository.versions(folder)[-1:]:  # what is wrong with a release that this was tells more
            verify(folder, version, trust)
        raise identity.unsealed(folder, "a folder that no export made")
    there = repository.versions(folder)
    served = _by_policy(_config(folder, config_name), sorted(there if versions is None else versions))
    numbers = {path.name for path in folder.iterdir() if path.name.isdecimal()}
    left_out = numbers - {str(version) for version in served if version in there}
    copying.copy(folder, target, left_out, outside=True)
    if model_config.is_in_process(target, config_name):  # of a release alone, which holds all of its steps
        model_config.chosen(target, config_name).unlink()
    for version in served:
        if version not in there:
            copying.copy(repository.directory(folder, version), target / str(version), outside=True)
        identity.verify_for_serving(target / str(version), folder.name, version, None)
    bytecode.keep_out(target)


def verify(folder: Path, version: int, trust: signing.Trust | None) -> None:
    """Check that a version, parked or not, of the model in `folder` is what was published under this name and number.

    Raises:
        ManifestError: it is not.
        SignatureError: it is unsigned, or not what was signed.
    """
    identity.verify_for_serving(repository.directory(folder, version), folder.name, version, trust)


def same(one: Path, other: Path) -> bool:
    """Tell whether two copies of ours hold the same files; what a server has written there since does not count."""
    return _alike(copied(one), copied(other))


def copied(folder: Path) -> dict[str, Path]:
    """Return {path: file} of a copy: those that are read-only. Compiled code, and what models write, is not."""
    found = {}
    for name, path in _files(folder).items():
        with suppress(FileNotFoundError):  # a model has just removed what it wrote
            if not path.stat().st_mode & 0o222:
                found[name] = path
    return found


def equal(one: Path, other: Path) -> bool:
    """Tell whether two files have the same bytes."""
    a, b = one.stat(), other.stat()
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino):
        return True
    return a.st_size == b.st_size and filecmp.cmp(one, other, shallow=False)


def _same_outside(one: Bundle, other: Bundle) -> bool:
    folders = (one.models[one.network], other.models[other.network])
    return folders[0] == folders[1] or _alike(*({**_outside(folder)} for folder in folders))


def _alike(one: Mapping[str, Path], other: Mapping[str, Path]) -> bool:
    return one.keys() == other.keys() and all(equal(file, other[path]) for path, file in one.items())


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _outside(folder: Path) -> dict[str, Path]:
    """Return the files of a model that lie in none of its versions."""
    return {
        name: path
        for name, path in _files(folder).items()
        if not (parts := Path(name).parts)[0].isdecimal()
        and not any(part.startswith(".") or part == "__pycache__" for part in parts)
    }


def _config(folder: Path, config_name: str | None) -> Any:
    try:
        return model_config.read(model_config.chosen(folder, config_name))
    except ModelConfigError:  # what is wrong with it is the server's to say
        return None


def _by_policy(config: Any, versions: list[int]) -> list[int]:
    """Return which of the versions (ascending) Triton loads."""
    kind = config.version_policy.WhichOneof("policy_choice") if config is not None else "all"
    if kind == "specific":
        return [version for version in versions if version in config.version_policy.specific.versions]
    if kind == "all":
        return versions
    return versions[-max(1, config.version_policy.latest.num_versions) :]
