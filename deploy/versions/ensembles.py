"""Ensembles on disk: whether they agree with their steps, and which has a model as one.

Triton loads a step that contradicts its ensemble without an error, and takes down the ensemble. So this is looked
at before anything is loaded.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from deploy.errors import RepositoryError
from deploy.triton import released


def check(root: Path, models: Collection[str], config_name: str | None) -> None:
    """Check that the ensembles which are among `models`, or have a step that is, can be loaded.

    Args:
        config_name: Which of a model's configurations the server takes, as in --model-config-name.

    Raises:
        RepositoryError: one cannot, or a configuration is none.
    """
    configs = _configs(root, config_name, models)
    found: list[str] = []
    for name, config in configs.items():
        steps = {step.model_name for step in config.ensemble_scheduling.step}
        if steps and not {name, *steps}.isdisjoint(models):
            found += [f"{name}: {text}" for text in _contradictions(config, configs)]
    if found:
        raise RepositoryError(
            "an ensemble and its steps do not agree, so nothing was loaded",
            note="\n  ".join(found),
            hint="mend the configurations, or a restart of the server would fail, too",
        )


def containing(root: Path, model: str, config_name: str | None = None) -> list[str]:
    """List the ensembles that have `model` as a step, without those that cannot be loaded: a step is not released."""
    configs = _configs(root, config_name)
    out = released.names(released.left_out(root))
    return [
        name
        for name, config in configs.items()
        if name not in out and model in {step.model_name for step in config.ensemble_scheduling.step}
    ]


def groups(root: Path, models: Collection[str], config_name: str | None) -> list[list[str]]:
    """Return the models in groups, those that an ensemble holds together in one; in each the ensembles last."""
    steps = {
        name: {step.model_name for step in config.ensemble_scheduling.step} & set(models)
        for name, config in _configs(root, config_name).items()
        if name in models
    }
    found: list[set[str]] = []
    for name in sorted(models):
        joined = {name, *steps.get(name, ())}
        apart = [group for group in found if group.isdisjoint(joined)]
        found = [*apart, joined.union(*(group for group in found if not group.isdisjoint(joined)))]
    return [sorted(group, key=lambda name: (bool(steps.get(name)), name)) for group in found]


def among(root: Path, models: Collection[str], config_name: str | None) -> set[str]:
    """Return those of the models that are ensembles.

    Raises:
        RepositoryError: a configuration is none.
    """
    return {name for name in models if released.config(root / name, config_name).ensemble_scheduling.step}


def _configs(root: Path, config_name: str | None, needed: Collection[str] = ()) -> dict[str, Any]:
    """Read the configurations; one that is none is an error for those that are needed, and others do not suffer."""
    found = {}
    for folder in [path.parent for path in sorted(root.glob("*/config.pbtxt"))]:
        try:
            found[folder.name] = released.config(folder, config_name)
        except RepositoryError:
            if folder.name in needed:
                raise
    return found


def _contradictions(ensemble: Any, configs: Mapping[str, Any]) -> Iterator[str]:
    tensors = {tensor.name: ("the ensemble", _kind(ensemble, tensor)) for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        name, model = step.model_name, configs.get(step.model_name)
        if model is None:
            yield f"there is no model {name}"
            continue
        if model.max_batch_size < ensemble.max_batch_size:
            yield f"max_batch_size {ensemble.max_batch_size} is more than {name}'s {model.max_batch_size}"
        required = {tensor.name for tensor in model.input if not tensor.optional}
        for missing in sorted(required - set(step.input_map)):
            yield f"nothing is mapped to {name}'s input {missing}"
        for mapped, own in ((step.input_map, model.input), (step.output_map, model.output)):
            kinds = {tensor.name: _kind(model, tensor) for tensor in own}
            for inner, outer in mapped.items():
                if inner not in kinds:
                    yield f"{name} has no tensor {inner}"
                    continue
                other, kind = tensors.setdefault(outer, (name, kinds[inner]))
                if not _agree(kind, kinds[inner]):
                    yield f"{outer} is {_text(kind)} for {other} and {_text(kinds[inner])} for {name}"
    for tensor in ensemble.output:
        if tensor.name not in tensors:
            yield f"no step makes the output {tensor.name}"
            continue
        other, kind = tensors[tensor.name]
        if not _agree(kind, own_kind := _kind(ensemble, tensor)):
            yield f"{tensor.name} is {_text(kind)} for {other} and {_text(own_kind)} for the ensemble"


def _kind(model: Any, tensor: Any) -> tuple[int, tuple[int, ...]]:
    return tensor.data_type, (*([-1] if model.max_batch_size else []), *tensor.dims)


def _agree(one: tuple[int, tuple[int, ...]], other: tuple[int, tuple[int, ...]]) -> bool:
    sizes = zip(one[1], other[1], strict=False)
    same_rank = len(one[1]) == len(other[1])
    return one[0] == other[0] and same_rank and all(a == b or -1 in (a, b) for a, b in sizes)


def _text(kind: tuple[int, tuple[int, ...]]) -> str:
    return f"{model_config_pb2.DataType.Name(kind[0])} {list(kind[1])}"
