"""From bundles to the repository that Triton sees.

  take    a bundle -> a private copy of it, verified: what was checked is what is loaded
  place   a private copy -> a folder for each of its models, in Triton's layout

A release may stand beside another one of its family, under names with a suffix (an *arm*). Every model of it has the
release's number as its only version, so that the version in a response says which release gave it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import bundle, manifest, model_config, signing
from contracts.bundle import Bundle
from deploy.served import copy

_VERSION, _MODELS = "version", "models"  # the folders of a private copy


@dataclass(frozen=True)
class Taken(Bundle):
    """A bundle whose files are a copy that nobody else writes."""


def take(release: Bundle, into: Path, trust: signing.Trust | None = None) -> Taken:
    """Copy a bundle to the new folder `into` and verify the copy, so that no later change on disk is ever served.

    Args:
        trust: What it must be signed with.

    Raises:
        RepositoryError: it holds a link that leads elsewhere, or what is no file.
        ManifestError: the copy is not what was published.
        SignatureError: the copy is unsigned, or not what was signed.
        OSError: the disk is full, or a file cannot be read.
    """
    version = into / _VERSION
    copy.copy(release.directory, version)
    if (version / manifest.FILE_NAME).is_file():
        manifest.verify(version)
    if trust is not None:
        signing.verify(version, trust)
    if release.sealed:
        models = {name: version / bundle.FOLDER / name for name in release.models}
    else:
        models = {name: into / _MODELS / name for name in release.models}
        for name, folder in release.models.items():
            kept = [] if name == release.network else _version_folders(folder)[-1:]
            copy.copy(folder, models[name], without=set(_version_folders(folder)) - set(kept))
    return Taken(release.network, release.version, version, models, release.sealed)


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
    number = str(release.version)
    for name, folder in release.models.items():
        target = into / f"{name}{suffix}"
        copy.link(folder, target, without={"config.pbtxt", "configs", *_version_folders(folder)})
        version = target / number
        copy.make_folder(version)
        if name == release.network:
            copy.link(release.directory, version, without={bundle.FOLDER})
        elif own := _version_folders(folder):
            copy.link(folder / own[-1], version)
        _write(_adapted(_chosen(folder, config_name), name, release, suffix), target / "config.pbtxt")
    return tuple(f"{name}{suffix}" for name in release.models)


def add_version(earlier: Taken, into: Path) -> None:
    """Put an earlier version of a network, whose models but for that are those that lie in `into`, beside the newest.

    Args:
        earlier: Of its files only those of the version are looked at.
    """
    target = into / earlier.network
    copy.link(earlier.directory, target / str(earlier.version), without={bundle.FOLDER})
    config = model_config.read(target / "config.pbtxt")
    versions = {*config.version_policy.specific.versions, earlier.version}
    config.version_policy.specific.versions[:] = sorted(versions)
    _write(config, target / "config.pbtxt")


def rename(folder: Path, target: Path, name: str) -> None:
    """Put the model in `folder` into the new folder `target`, under the name `name`, by hard links."""
    copy.link(folder, target, without={"config.pbtxt"})
    config = model_config.read(folder / "config.pbtxt")
    config.name = name
    _write(config, target / "config.pbtxt")


def _chosen(folder: Path, config_name: str | None) -> Any:
    other = folder / "configs" / f"{config_name}.pbtxt"
    return model_config.read(other if other.is_file() else folder / "config.pbtxt")


def _adapted(config: Any, name: str, release: Bundle, suffix: str) -> Any:
    """Give a configuration the release's number and the arm's names, in its own words otherwise."""
    config.name = f"{config.name or name}{suffix}"  # of another name than its folder Triton says so itself
    config.version_policy.Clear()
    config.version_policy.specific.versions.append(release.version)
    for step in config.ensemble_scheduling.step:
        if step.model_name in release.models:
            step.model_name, step.model_version = f"{step.model_name}{suffix}", release.version
    return config


def _write(config: Any, path: Path) -> None:
    from google.protobuf import text_format

    partial = path.with_name(f".{path.name}")
    partial.write_text(text_format.MessageToString(config, as_utf8=True))
    partial.chmod(0o444)
    partial.rename(path)


def _version_folders(folder: Path) -> list[str]:
    """List the version folders of a model, oldest first."""
    names: Iterable[str] = (path.name for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())
    return sorted(names, key=int)
