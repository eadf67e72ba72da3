"""From bundles to the repository that Triton sees.

  take    a bundle -> a private copy of it, verified: what was checked is what is loaded
  place   a private copy -> a folder for each of its models, in Triton's layout

A release may stand beside another one of its family, under names with a suffix (an *arm*). Every model of it has the
release's number as its only version, so that the version in a response says which release gave it. A note in the folder
of each says whose it is.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contracts import bundle, copying, layout, manifest, model_config, signing
from contracts.bundle import Bundle
from contracts.errors import ManifestError, ModelConfigError, SignatureError
from contracts.model_config import ModelConfig
from contracts.trust import identity
from deploy.served import bytecode, inside
from deploy.served.links import link

_VERSION, _MODELS = "version", "models"  # the folders of a private copy
_NOTE = ".release"  # in the folder of a model: the network of its release, with the suffix of an arm


@dataclass(frozen=True)
class Taken(Bundle):
    """A bundle whose files are a copy that nobody else writes."""

    @property
    def is_new(self) -> bool:
        """Whether it was published without a server to prove it, so that none has served it as it is yet.

        Raises:
            ManifestError: its manifest is damaged.
        """
        return self.sealed and manifest.read(self.directory).served is None


def take(release: Bundle, into: Path, trust: signing.Trust | None = None) -> Taken:
    """Copy a bundle to the new folder `into` and verify the copy, so that no later change on disk is ever served.

    Args:
        trust: What it must be signed with, all of it: one that is not sealed takes its models from the repository.

    Raises:
        FolderError: it holds what is no file, or a model of it is missing; or, sealed, a link that leads elsewhere.
        ManifestError: the copy is not what was published, or published under another name or number.
        SignatureError: the copy is unsigned, or not what was signed, or not sealed.
        OSError: the disk is full, or a file cannot be read.
    """
    version = into / _VERSION
    copying.copy(release.directory, version, outside=not release.sealed)
    try:
        _verify(release, version, trust)
    except (ManifestError, SignatureError) as error:  # of the files that a user knows
        told = str(error).replace(str(version), str(release.directory))
        raise type(error)(told.replace(layout.shown(version), layout.shown(release.directory))) from error
    place = version / bundle.FOLDER if release.sealed else into / _MODELS
    models = {name: place / folder.name for name, folder in release.models.items()}
    within = {name: place / folder.name for name, folder in release.inside.items()}
    if not release.sealed:
        pinned = _pinned(release)
        for name, folder in {**release.models, **release.inside}.items():
            versions = _version_folders(folder)
            kept = {pinned.get(folder.name, max(versions, key=int, default=""))} if name != release.network else set()
            copying.copy(folder, place / folder.name, set(versions) - kept, outside=True)
    return Taken(release.network, release.version, version, models, release.sealed, within)


def place(release: Taken, into: Path, config_name: str | None, suffix: str = "") -> tuple[str, ...]:
    """Put each model of a release into the repository `into`, by hard links to the private copy.

    Args:
        into: On the file system of the copy. A model that it has already gets the version and the configuration.
        config_name: Which of a model's configurations is taken: configs/<config_name>.pbtxt, else config.pbtxt.
        suffix: Of every name: ".r3" makes the release an arm.

    Returns:
        The models' names there, the network's first.

    Raises:
        ModelConfigError: a configuration is missing or is none.
    """
    for name, folder in release.models.items():
        target = into / f"{name}{suffix}"
        versions = _version_folders(folder)
        link(folder, target, without={model_config.FILE_NAME, model_config.OTHERS, *versions})
        version = target / str(release.version)
        copying.make_folder(version)
        if name == release.network:
            link(release.directory, version, without={bundle.FOLDER})
        for own in versions:  # one at most: what the bundle has of an ensemble or a step
            link(folder / own, version)
        config = model_config.read(model_config.chosen(folder, config_name))
        if config.backend == model_config.IN_PROCESS:
            inside.put(folder, version, release, config_name)
        _write(_adapted(config, folder.name, release, suffix), target / model_config.FILE_NAME)
        _note(target, f"{release.network}{suffix}")
        bytecode.keep_out(target)
    return tuple(f"{name}{suffix}" for name in release.models)


def add_version(earlier: Taken, into: Path) -> None:
    """Put an earlier version of a network, whose models but for that are those that lie in `into`, beside the newest.

    Args:
        earlier: Of its files only those of the version are looked at.
    """
    target = into / earlier.network
    link(earlier.directory, target / str(earlier.version), without={bundle.FOLDER})
    config = model_config.read(target / model_config.FILE_NAME)
    versions = {*config.version_policy.specific.versions, earlier.version}
    config.version_policy.specific.versions[:] = sorted(versions)
    _write(config, target / model_config.FILE_NAME)
    bytecode.keep_out(target)


def rename(folder: Path, target: Path, name: str) -> None:
    """Put the model of an arm in `folder` into the new folder `target`, under its name `name`, by hard links."""
    link(folder, target, without={model_config.FILE_NAME, _NOTE})
    config = model_config.read(folder / model_config.FILE_NAME)
    config.name = name
    _write(config, target / model_config.FILE_NAME)
    _note(target, (owner(folder) or "").removesuffix(folder.name.removeprefix(name)))


def owner(folder: Path) -> str | None:
    """Return the network of the release that the model in `folder` belongs to, an arm's with its suffix; or None."""
    with suppress(OSError):
        return (folder / _NOTE).read_text()
    return None


def models_of(repository: Path, network: str) -> list[str]:
    """List the models in a private repository that belong to the release of `network` which serves."""
    return sorted(path.name for path in repository.iterdir() if owner(path) == network)


def arms_of(repository: Path, network: str) -> list[str]:
    """List the models in a private repository that belong to arms of `network`."""
    arm = re.compile(rf"{re.escape(network)}\.r\d+")
    return sorted(path.name for path in repository.iterdir() if arm.fullmatch(owner(path) or ""))


def _verify(release: Bundle, copy: Path, trust: signing.Trust | None) -> None:
    """Check the copy of a version; what `release` tells was read from the original, which may have changed since."""
    if trust is None and not release.sealed and not (copy / manifest.FILE_NAME).is_file():
        return
    told = identity.verify_sealed(copy, release.network, release.version, trust)
    models = {folder.name for folder in (*release.models.values(), *release.inside.values())}
    if bool(told.models) != release.sealed or (release.sealed and not models <= {*told.models}):
        raise ManifestError(f"{copy} changed while it was copied", hint="run the same command again")


def _note(folder: Path, text: str) -> None:
    (folder / _NOTE).unlink(missing_ok=True)
    (folder / _NOTE).write_text(text)
    (folder / _NOTE).chmod(0o444)


def _adapted(config: ModelConfig, name: str, release: Bundle, suffix: str) -> ModelConfig:
    """Give a configuration the release's number and the names that its models are served under.

    Args:
        name: The model's own.
    """
    names = {folder.name: f"{served}{suffix}" for served, folder in release.models.items()}
    if config.name in ("", name):  # of another name than its folder Triton says so itself
        config.name = names[name]
    config.version_policy.Clear()
    config.version_policy.specific.versions.append(release.version)
    for step in config.ensemble_scheduling.step:
        if step.model_name in names:
            step.model_name, step.model_version = names[step.model_name], release.version
    return config


def _write(config: ModelConfig, path: Path) -> None:
    from google.protobuf import text_format

    partial = path.with_name(f".{path.name}")
    partial.write_text(text_format.MessageToString(config, as_utf8=True))
    partial.chmod(0o444)
    partial.rename(path)


def _pinned(release: Bundle) -> dict[str, str]:
    """Return {step: the version of it that an ensemble of the release asks for}, where it asks for one."""
    found: dict[str, str] = {}
    for path in (p for f in (*release.models.values(), *release.inside.values()) for p in model_config.paths(f)):
        with suppress(ModelConfigError):  # it is found when it is placed
            steps = model_config.read(path).ensemble_scheduling.step
            found |= {step.model_name: str(step.model_version) for step in steps if step.model_version > 0}
    return found


def _version_folders(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
