"""A release as one sealed bundle: the network's version and, in its folder `release`, what else decides an answer.

  model_repository/<network>/<version>/release/
    <network>/      its config.pbtxt, configs/, warm-up data: all that lies outside of its versions
    <ensemble>/     the same of every ensemble above the network, and the version that it serves
    <step>/         the same of every step of those ensembles: its sources, labels, requirements

The manifest beside it names the models and lists the files by digest, so one signature covers all. Versions that were
published before have none: their models are those that lie in the repository today, and a `Bundle` says so.

A model belongs to the releases of one network at most: an ensemble over two released networks belongs to none, and is
served as it lies in the repository.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts import copying, layout, manifest, model_config, repository
from contracts.errors import FolderError, ManifestError, ModelConfigError, PublishError
from contracts.model_config import ModelConfig
from contracts.names import is_model_name

FOLDER = "release"


@dataclass(frozen=True)
class Bundle:
    """One release of a network, and where what it serves lies."""

    network: str
    version: int
    directory: Path  # the version's, parked or not
    models: Mapping[str, Path]  # {model: the folder with its config.pbtxt}, the network first
    sealed: bool  # False: published before bundles; the models are the repository's of today
    inside: Mapping[str, Path] = field(default_factory=dict)  # of those, steps that other models of it run themselves


def of(root: Path, network: str, version: int) -> Bundle:
    """Return a release of the repository `root`, parked or not.

    Raises:
        ManifestError: its manifest is damaged, or names a model that is not in it.
    """
    return _read(repository.directory(root / network, version), root, network, version)


def at(directory: Path) -> Bundle:
    """Return the release whose files lie in `directory`, which may still have another name than its number.

    Raises:
        ManifestError: it has no manifest, or as `of`.
    """
    release = manifest.read(directory)
    return _read(directory, directory.absolute().parent.parent, release.model, release.version)


def members(root: Path, network: str) -> tuple[str, ...]:
    """Return the models of a release of `network` made today: itself, the ensembles above it, their steps.

    Whatever an ensemble names in one of its configurations is a step of it, also one that is missing. What has no
    readable configuration is no ensemble.
    """
    return _around(_read_all(root), network)


def outside(root: Path, network: str) -> tuple[str, ...]:
    """Return the ensembles above `network` that are above another network, too, and so in no release."""
    _, shared = _above(_read_all(root), network)
    return shared


def unreleased(root: Path) -> tuple[str, ...]:
    """Return models that belong to no release and could be the network of one: with the releases made, all are in one.

    Those with a graph come first. An ensemble above two networks is in none, and no network itself.
    """
    models = _read_all(root)
    held = {other for name, model in models.items() if model.is_network for other in _around(models, name)}
    found = list[str]()
    for name in sorted(models, key=lambda name: (not _has_graph(models[name].folder), name)):
        if name not in held and not models[name].steps and repository.versions(models[name].folder):
            found.append(name)
            held.update(_around(models, name))
    return tuple(found)


def asked_for(root: Path, network: str) -> dict[int, str]:
    """Return {version: why} of the versions of `network` that a configuration of today asks for by their number."""
    models = _read_all(root)
    asking = dict.fromkeys(models[network].allowed, network) if network in models else {}
    asking |= {model.pinned[network]: name for name, model in models.items() if network in model.pinned}
    return {version: f"{name} asks for it" for version, name in asking.items()}


def write(root: Path, network: str, version_directory: Path) -> tuple[str, ...]:
    """Put what lies in the repository today into the bundle of a new version; return the models in it.

    Raises:
        ModelConfigError: the configuration of one of them is missing or is none.
        PublishError: a step is missing, has no version, holds what cannot be copied, or changed while it was copied.
    """
    models = _read_all(root)
    names = _around(models, network)
    _check(models, names)
    for name in names:
        folder, target = root / name, version_directory / FOLDER / name
        without = _versions_but(folder, None if name == network else _served_version(models, names, name))
        try:
            copying.copy(folder, target, without, outside=True)
        except FolderError as error:
            raise PublishError(f"{name} cannot be part of a release: {error}") from error
        if _digests(target, ()) != _digests(folder, without):
            raise PublishError(f"{layout.shown(folder)} changed while it was copied", hint="run the same command again")
    return names


def _read(directory: Path, root: Path, network: str, version: int) -> Bundle:
    named: tuple[str, ...] = ()
    if (directory / manifest.FILE_NAME).is_file():
        named = manifest.read(directory).models
    if not named:
        return Bundle(network, version, directory, {name: root / name for name in members(root, network)}, False)
    if strange := [name for name in named if not is_model_name(name)]:
        raise ManifestError(f"{directory} has a model {strange[0]!r}, which none can be called")
    models = {name: directory / FOLDER / name for name in named}
    lacking = [name for name, folder in models.items() if not (folder / model_config.FILE_NAME).is_file()]
    if lacking or named[0] != network:
        found = f"there is no {FOLDER}/{lacking[0]}" if lacking else f"its network is {named[0]}"
        raise ManifestError(f"{directory} is not what was published: {found}", hint="python -m export verify")
    return Bundle(network, version, directory, models, True)


@dataclass(frozen=True)
class _Model:
    """A model of the repository, by all of its configurations."""

    folder: Path
    steps: tuple[str, ...]  # of an ensemble
    pinned: Mapping[str, int]  # {step: the version that the ensemble asks for}, where it asks for one
    allowed: frozenset[int]  # the only versions that its policy lets be served; empty: no such policy
    is_network: bool  # with releases of its own, now or later
    fault: ModelConfigError | None  # of a configuration that is none

    def mentions(self, models: Iterable[str]) -> bool:
        """Tell whether a configuration of it, readable or not, has the name of one of the models."""
        text = b"".join(path.read_bytes() for path in model_config.paths(self.folder))
        return any(f'"{model}"'.encode() in text for model in models)


def _read_all(root: Path) -> dict[str, _Model]:
    return {path.parent.name: _read_model(path.parent) for path in sorted(root.glob(f"*/{model_config.FILE_NAME}"))}


def _read_model(folder: Path) -> _Model:
    configs, fault = [], None
    for path in model_config.paths(folder):
        try:
            configs.append(model_config.read(path))
        except ModelConfigError as error:
            fault = error
    steps = [step for config in configs for step in config.ensemble_scheduling.step]
    return _Model(
        folder,
        steps=tuple(dict.fromkeys(step.model_name for step in steps)),
        pinned={step.model_name: step.model_version for step in steps if step.model_version > 0},
        allowed=frozenset(version for config in configs for version in config.version_policy.specific.versions),
        is_network=_is_network(folder, configs),
        fault=fault,
    )


def _is_network(folder: Path, configs: Iterable[ModelConfig]) -> bool:
    """Tell whether an export makes the versions of a model, as it did or as nothing else will: it has none yet."""
    if numbers := [*repository.versions(folder), *repository.parked(folder)]:
        return any((repository.directory(folder, n) / manifest.FILE_NAME).is_file() for n in numbers)
    own = ("python", model_config.IN_PROCESS)
    return any(not config.ensemble_scheduling.step and config.backend not in own for config in configs)


def _has_graph(folder: Path) -> bool:
    return any(path.suffix in (".onnx", ".plan") for path in folder.glob("[0-9]*/*"))


def _around(models: Mapping[str, _Model], network: str) -> tuple[str, ...]:
    ensembles, _ = _above(models, network)
    steps = (step for name in ensembles for step in _below(models, name))
    return tuple(dict.fromkeys([network, *ensembles, *steps]))


def _above(models: Mapping[str, _Model], network: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ensembles that have the network somewhere below them: above it alone, and above others, too."""
    others = {name for name, model in models.items() if model.is_network} - {network}
    below = {name: {*_below(models, name)} for name in models}
    alone = tuple(name for name, own in below.items() if network in own and not own & others)
    return alone, tuple(name for name, own in below.items() if network in own and own & others)


def _below(models: Mapping[str, _Model], name: str) -> Iterator[str]:
    """Yield all that an ensemble is made of, each once; it may even be a step of itself, until Triton sees it."""
    seen, waiting = {name}, [name]
    while waiting:
        model = models.get(waiting.pop(0))
        fresh = [step for step in (model.steps if model else ()) if step not in seen]
        seen.update(fresh)
        waiting += fresh
        yield from fresh


def _check(models: Mapping[str, _Model], names: tuple[str, ...]) -> None:
    """Refuse what cannot be read of the release, or may be an ensemble of it, which would silently be missing."""
    for name, model in models.items():
        if model.fault is not None and (name in names or model.mentions(names)):
            raise model.fault
    network = names[0]
    if network not in models:
        raise ModelConfigError(f"{network} has no {model_config.FILE_NAME}", hint="every model needs one")
    for name in names:
        above = [other for other, model in models.items() if name in model.steps]
        if name not in models:
            raise PublishError(
                f"{name}, a step of {above[0]}, has no {model_config.FILE_NAME}",
                note=f"a release of {network} holds all that {above[0]} needs",
                hint=f"put {name} into the model repository, or take {above[0]} out of it",
            )


def _served_version(models: Mapping[str, _Model], names: tuple[str, ...], name: str) -> int | None:
    """Return the version of an ensemble or a step that serves today; None of an ensemble that has none."""
    model = models[name]
    served = {version for version in repository.versions(model.folder) if version in (model.allowed or {version})}
    asked = {models[other].pinned[name] for other in names if name in models[other].pinned}
    if not served and model.steps:
        return None
    if len(asked) > 1 or not served or not asked <= served:
        raise PublishError(
            f"{layout.shown(model.folder)} has no one version to put into a release of {names[0]}",
            note=f"served are {_listed(served)}; an ensemble asks for {_listed(asked)}",
            hint="leave one version of a step to be served, and `model_version: -1` in the ensemble",
        )
    return max(asked or served)


def _listed(versions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(versions))) or "none"


def _versions_but(folder: Path, version: int | None) -> frozenset[str]:
    """Return the names of a model's version folders, all but that one."""
    return frozenset(path.name for path in folder.iterdir() if path.name.isdecimal()) - {str(version)}


def _digests(folder: Path, without: Iterable[str]) -> dict[str, str]:
    """Return {path: SHA-256} of the files that `copying.copy` copies of it."""
    found = {}
    for place, folders, files in os.walk(folder, followlinks=True):  # no circles: it was copied
        hidden = {*(without if Path(place) == folder else ())}
        folders[:] = [name for name in folders if name not in hidden and not copying.is_left_out(name)]
        for name in files:
            if name not in hidden and not copying.is_left_out(name):
                path = Path(place, name)
                found[path.relative_to(folder).as_posix()] = manifest.sha256(path)
    return found
