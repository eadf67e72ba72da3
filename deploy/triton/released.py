"""What of a model repository is served: what has been released, and what is left out until it is.

A network has a version once one was exported. Until then git has its configuration alone, which no server can load;
an ensemble above it cannot be loaded either, and the Python steps of that ensemble serve nobody.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Any

from contracts import manifest, model_config, repository
from contracts.errors import ModelConfigError
from deploy.errors import RepositoryError
from deploy.triton.control import ModelVersion

_FAMILY = "family"  # the parameter of a configuration that says what is exported to get a version


@dataclass(frozen=True)
class LeftOut:
    """A model that is not served, with the others that are left out because of it or for the same reason."""

    name: str  # the ensemble above the others, or a model by itself
    models: tuple[str, ...]  # itself among them
    reason: str
    command: str | None  # that makes it one which is served; None: nothing in the repository tells
    failed: bool = False  # it was to be served; one that is not released yet is no failure
    is_arm: bool = False  # a release that was to stand beside the one that serves

    def __str__(self) -> str:
        said = f"{self.name} is not served: {self.reason}"
        return f"{said} — {self.command}" if self.command else said


def left_out(
    root: Path, config_name: str | None = None, failed: Mapping[str, str] = MappingProxyType({})
) -> list[LeftOut]:
    """List what of the repository `root` is not served: models without a version or that failed, and all above them.

    An ensemble is left out with any of its steps; a Python step with the last ensemble that it is a step of. A released
    network is served whatever becomes of the ensembles above it.

    Args:
        config_name: Which of a model's configurations the server takes, as in --model-config-name.
        failed: {model that cannot be served although it is released: why not}.
    """
    folders = {path.parent.name: path.parent for path in sorted(root.glob("*/config.pbtxt"))}
    failed = {name: reason for name, reason in failed.items() if (root / name).is_dir()}
    folders |= {name: root / name for name in failed}  # without a configuration, it may be
    missing = {name for name, folder in folders.items() if not repository.versions(folder)} | failed.keys()
    if not missing:  # as ever but for the first time: nothing has to be read
        return []
    configs = {name: _config_or_none(folder, config_name) for name, folder in folders.items()}
    steps = {name: found for name, config in configs.items() if (found := _steps(config))}
    out = _with_all_above(missing, steps)
    out |= {step for step in _unused(out, steps) & folders.keys() - missing if not _is_release(folders[step])}
    heads = sorted(out - {step for name in out & steps.keys() for step in steps[name]})
    together = [[name for name in _below(head, steps, set()) if name in out] for head in heads]
    return [
        _failed(group, failed) if not failed.keys().isdisjoint(group) else _unreleased(root, group, missing, configs)
        for group in together
    ]


def with_all_above(root: Path, models: Collection[str], config_name: str | None) -> list[str]:
    """Return the models and the ensembles above them, each behind its steps."""
    if not models:
        return []
    configs = {path.parent.name: _config_or_none(path.parent, config_name) for path in root.glob("*/config.pbtxt")}
    steps = {name: found for name, config in configs.items() if (found := _steps(config))}
    all_above = _with_all_above(set(models), steps)
    with suppress(CycleError):  # Triton refuses those that go in a circle, in any order
        order = TopologicalSorter({name: steps.get(name, ()) for name in sorted(all_above)}).static_order()
        return [name for name in order if name in all_above]
    return sorted(all_above)


def names(groups: list[LeftOut]) -> set[str]:
    """Return the names of all models that are left out."""
    return {model for group in groups for model in group.models}


def without(versions: Sequence[ModelVersion], groups: list[LeftOut]) -> list[ModelVersion]:
    """Return of what a server has in its index what is not left out, or was loaded all the same."""
    out, failed = names(groups), names([group for group in groups if group.failed])
    return [
        version
        for version in versions
        if not (version.name in out and version.never_loaded) and not (version.name in failed and version.unloaded)
    ]


def config(directory: Path, config_name: str | None) -> Any:
    """Read the configuration of a model: a ModelConfig of Triton's.

    Of an ensemble that one process runs, it is the ensemble's.

    Raises:
        RepositoryError: it is missing, or is none.
    """
    try:
        found = model_config.read(model_config.chosen(directory, config_name))
        other = directory / model_config.FILE_NAME
        return model_config.read(other) if found.backend == model_config.IN_PROCESS else found
    except ModelConfigError as error:
        raise RepositoryError(f"nothing was loaded: {error}") from error


def _config_or_none(directory: Path, config_name: str | None) -> Any:
    try:
        return config(directory, config_name)
    except RepositoryError:  # of one to be loaded, the server says what is wrong with it
        return None


def _steps(config: Any) -> tuple[str, ...]:
    return tuple(step.model_name for step in config.ensemble_scheduling.step) if config else ()


def _with_all_above(models: Set[str], steps: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Add the ensembles that have one of the models as a step, or one of those ensembles."""
    found = set(models)
    while above := {name for name, own in steps.items() if name not in found and not found.isdisjoint(own)}:
        found |= above
    return found


def _unused(out: Set[str], steps: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the steps of ensembles that are left out, of which no other ensemble has a use."""
    needed = {step for name, own in steps.items() if name not in out for step in own}
    return {step for name in out & steps.keys() for step in steps[name]} - needed - steps.keys()


def _below(head: str, steps: Mapping[str, tuple[str, ...]], seen: set[str]) -> Iterator[str]:
    """Yield a model and all below it, each once; an ensemble may even be a step of itself, until Triton sees it."""
    if head in seen:
        return
    seen.add(head)
    yield head
    for step in steps.get(head, ()):
        yield from _below(step, steps, seen)


def _is_release(folder: Path) -> bool:
    kinds = (manifest.FILE_NAME, "*.onnx", "*.plan")
    newest = [folder / str(version) for version in repository.versions(folder)[-1:]]  # none: it was removed just now
    return any(next(version.glob(kind), None) for version in newest for kind in kinds)


def _failed(models: list[str], failed: Mapping[str, str]) -> LeftOut:
    culprits = [model for model in models if model in failed]
    reason = "; ".join(failed[model] if model == models[0] else f"{model}: {failed[model]}" for model in culprits)
    return LeftOut(models[0], tuple(models), reason, f"python -m deploy reload {culprits[0]}", failed=True)


def _unreleased(root: Path, models: list[str], missing: Set[str], configs: Mapping[str, Any]) -> LeftOut:
    head, without = models[0], [model for model in models if model in missing]
    if broken := [path for model in without for path in _links_to_nowhere(root / model)]:
        model = broken[0].parent.name
        told = f"{model}/{broken[0].name} is a link to {broken[0].readlink()}, which leads nowhere"
        return LeftOut(head, tuple(models), told, f"python -m deploy reload {model}", failed=True)
    if parked := [model for model in without if repository.parked(root / model)]:
        return LeftOut(
            head, tuple(models), f"every version of {parked[0]} is parked", f"python -m deploy promote {parked[0]}"
        )
    what = "it" if without == [head] else ", ".join(without)
    families = [configs[model].parameters[_FAMILY].string_value for model in models if _names_family(configs[model])]
    return LeftOut(
        head,
        tuple(models),
        f"no version of {what} is published",
        f"python -m export {families[0]}" if families else None,
    )


def _links_to_nowhere(model: Path) -> list[Path]:
    """List what would be versions of a model; nothing of a model that was removed just now."""
    with suppress(FileNotFoundError):
        return [path for path in sorted(model.iterdir()) if path.name.isdecimal() and not path.exists()]
    return []


def _names_family(config: Any) -> bool:
    return config is not None and _FAMILY in config.parameters
