"""Ensembles that one process runs: which of a release are, and what the folder of such a model has of its steps.

  <ensemble>/<version>/steps.json      how the ensemble has its steps wired, and the configuration of each
  <ensemble>/<version>/steps/<step>/   the step, by hard links; its version under the release's number

So the model has all that it needs in its own folder: Triton loads it anew whenever a step has changed, and no load of
another model concerns it. A step that no other model of the release needs is no model of its own there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from contracts import bundle, copying, model_config
from contracts.bundle import Bundle
from contracts.errors import ModelConfigError
from contracts.model_config import ModelConfig
from deploy.layers import requirements
from deploy.served.links import link

_DESCRIBED, _STEPS = "steps.json", "steps"
_AS_ENSEMBLE = "take its configs/cpu.pbtxt away, and it is served as the ensemble that its config.pbtxt is"

AnyBundle = TypeVar("AnyBundle", bound=Bundle)


def shaped(release: AnyBundle, config_name: str | None) -> AnyBundle:
    """Return a release as that configuration shapes it: steps that only run inside other models are none themselves."""
    whole = {**release.models, **release.inside}
    alone = {name for name, folder in whole.items() if not model_config.is_in_process(folder, config_name)}
    within = {step for name in whole.keys() - alone for step in _steps(whole[name])}
    needed = {step for name in alone for step in _steps(whole[name])} | {release.network}
    inside = {name: folder for name, folder in whole.items() if folder.name in within - needed}
    models = {name: folder for name, folder in whole.items() if name not in inside}
    return replace(release, models=models, inside=inside)


def put(folder: Path, version: Path, release: Bundle, config_name: str | None) -> None:
    """Put the steps of an ensemble that one process runs into the version of its model.

    Args:
        folder: The ensemble's, in the private copy of the release.
        version: Where Triton looks for it.

    Raises:
        ModelConfigError: a configuration is missing or is none, or one process cannot run the ensemble.
    """
    one_process, ensemble = (model_config.read(model_config.chosen(folder, name)) for name in (config_name, None))
    if one_process.response_cache.enable:
        raise ModelConfigError(
            f"{folder.name}: response_cache in configs/cpu.pbtxt would keep failures, too, as answers without outputs",
            hint="enable it in config.pbtxt: the ensemble is served then, which keeps answers alone",
        )
    if _tensors(one_process) != _tensors(ensemble):
        raise ModelConfigError(
            f"{folder.name}: its configs/cpu.pbtxt has other inputs or outputs than its config.pbtxt",
            hint="write them alike: clients of one shape are those of the other",
        )
    own = {f.name: f for f in (*release.models.values(), *release.inside.values())}
    described = []
    for step in _in_order(ensemble):
        if step.model_name not in own:
            raise ModelConfigError(f"{folder.name} has {step.model_name} as a step, which its release has not")
        config = model_config.read(model_config.chosen(own[step.model_name], config_name))
        _check(folder.name, step.model_name, config)
        names = {"inputs": dict(step.input_map), "outputs": dict(step.output_map)}
        described.append({"model": step.model_name, **names, "config": _as_triton_has_it(config)})
        _link(own[step.model_name], version / _STEPS / step.model_name, release)
    _link_packages([own[step["model"]] for step in described], version.parent)
    (version / _DESCRIBED).write_text(json.dumps(described, indent=1))
    (version / _DESCRIBED).chmod(0o444)


def steps_of(model: Path) -> tuple[str, ...]:
    """Return the steps that the model in a private repository runs itself; none of another kind of model."""
    return tuple(sorted(path.name for path in model.glob(f"[0-9]*/{_STEPS}/*")))


def run_in(repository: Path) -> dict[str, tuple[str, ...]]:
    """Return {model of a private repository that runs steps itself: those steps}.

    None where we may not look, or while the repository is made anew.
    """
    with suppress(FileNotFoundError):
        return {folder.name: steps for folder in repository.glob("*") if (steps := steps_of(folder))}
    return {}


def _in_order(ensemble: ModelConfig) -> Iterator[Any]:
    """Yield the steps of an ensemble, each behind those that make what it takes.

    Raises:
        ModelConfigError: one waits for what none makes.
    """
    known, waiting = {tensor.name for tensor in ensemble.input}, list(ensemble.ensemble_scheduling.step)
    while waiting:
        step = next((step for step in waiting if known.issuperset(step.input_map.values())), None)
        if step is None:
            raise ModelConfigError(f"{ensemble.name}: {waiting[0].model_name} waits for a tensor that no step makes")
        waiting.remove(step)
        known.update(step.output_map.values())
        yield step
    if lacking := sorted({tensor.name for tensor in ensemble.output} - known):
        raise ModelConfigError(f"{ensemble.name}: no step makes the output {lacking[0]}")


def _tensors(config: ModelConfig) -> dict[str, Any]:
    """Return what a client has to know of a model's inputs and outputs."""
    inputs = {tensor.name: (tensor.data_type, tuple(tensor.dims), tensor.optional) for tensor in config.input}
    return inputs | {f"output {tensor.name}": (tensor.data_type, tuple(tensor.dims)) for tensor in config.output}


def _check(ensemble: str, step: str, config: ModelConfig) -> None:
    kind = config.backend or config.platform
    if kind not in ("python", "onnxruntime", "onnxruntime_onnx"):
        raise ModelConfigError(
            f"one process cannot run {ensemble}: its step {step} has the backend {kind!r}", hint=_AS_ENSEMBLE
        )


def _as_triton_has_it(config: ModelConfig) -> dict[str, Any]:
    """Return what a step has to know of its configuration, in the JSON that Triton would hand it."""
    from google.protobuf import json_format

    bare = type(config)()
    bare.CopyFrom(config)
    bare.ClearField("model_warmup")  # the ensemble has its own
    found: dict[str, Any] = json_format.MessageToDict(bare, preserving_proto_field_name=True)
    found |= {
        "max_batch_size": config.max_batch_size,
        "backend": "python" if config.backend == "python" else "onnxruntime",
    }
    for role, tensors in (("input", config.input), ("output", config.output)):
        found[role] = [_tensor(described, t) for described, t in zip(found.get(role, ()), tensors, strict=True)]
    return found


def _tensor(described: Mapping[str, Any], tensor: Any) -> dict[str, Any]:
    reshape = {"reshape": {"shape": list(tensor.reshape.shape)}} if tensor.HasField("reshape") else {}
    return {**described, "dims": list(tensor.dims), **reshape}  # JSON has numbers of 64 bits as strings


def _link(step: Path, target: Path, release: Bundle) -> None:
    versions = [path.name for path in step.iterdir() if path.name.isdecimal() and path.is_dir()]
    link(step, target, without={*versions, model_config.FILE_NAME, model_config.OTHERS, "warmup"})
    copying.make_folder(target / str(release.version))
    for own in versions:
        link(step / own, target / str(release.version))
    if step == release.models.get(release.network):
        link(release.directory, target / str(release.version), without={bundle.FOLDER})


def _link_packages(steps: Iterable[Path], model: Path) -> None:
    """Give the model the packages that one of its steps has of its own.

    Raises:
        ModelConfigError: two have different ones.
    """
    asking = [
        step for step in steps if (found := requirements.read(step)) is not None and (found.entries or found.locked)
    ]
    for step in asking:
        for name in (requirements.TEXT, requirements.LOCK):
            there, file = model / name, step / name
            if there.is_file() and (not file.is_file() or there.read_bytes() != file.read_bytes()):
                raise ModelConfigError(
                    f"one process cannot run {model.name}: {asking[0].name} and {step.name} have packages "
                    "of their own, which may differ",
                    hint=_AS_ENSEMBLE,
                )
            if file.is_file() and not there.is_file():
                there.hardlink_to(file)


def _steps(folder: Path) -> set[str]:
    try:
        return {*model_config.steps(model_config.read(folder / model_config.FILE_NAME))}
    except ModelConfigError:  # it is said when it is placed
        return set()
