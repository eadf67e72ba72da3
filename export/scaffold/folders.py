"""The folders of a network's steps in the model repository: found, read, written, and put back if an export fails.

  MODEL_preprocess/     config.pbtxt, requirements.txt, 1/preprocess.py and what that imports beside it, 1/step.py that
                        calls it, and 1/model.py that lets Triton run that
  MODEL_postprocess/    the same
  MODEL_pipeline/       the ensemble that clients call: config.pbtxt, and configs/cpu.pbtxt that has one process run it
MODEL itself, the network, keeps its name: it is what was proven, and can be called without the steps.
"""

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts import layout, model_config
from export.errors import StepFileError
from export.scaffold import network, step_file
from export.scaffold.network import Network
from export.scaffold.render import (
    CONFIG,
    CPU_CONFIG,
    REQUIREMENTS,
    ROLES,
    STEP,
    VERSION,
    Steps,
    adapter,
    contents,
    pipeline_name,
    step_name,
)
from export.scaffold.step_file import Role, StepFile


def existing(root: Path, model: str) -> list[Path]:
    """List the folders of a network's steps that are there."""
    names = [*(step_name(model, role) for role in ROLES), pipeline_name(model)]
    return [root / name for name in names if (root / name).exists()]


def read_steps(root: Path, model: str) -> dict[Role, StepFile]:
    """Read the steps that a network has.

    Raises:
        StepFileError: it has none, or one is none any more.
    """
    steps: dict[Role, StepFile] = {}
    for role in ROLES:
        version = root / step_name(model, role) / VERSION
        for name in (f"{role}.py", "model.py"):
            if (version / name).is_file():
                steps[role] = step_file.read(version / name, role)
                break
    if not steps:
        raise StepFileError(
            f"{model} has no steps in {layout.shown(root)}", hint=f"write them: python -m export new-steps {model}"
        )
    return steps


@contextmanager
def around(model_directory: Path, steps: Steps) -> Iterator[list[Path]]:
    """Put steps around the network in `model_directory`, as `written`; yields the folders. Does nothing without any.

    Raises:
        ModelConfigError: the network has no configuration.
        StepFileError: as `written`.
    """
    if not steps:
        yield []
        return
    root = model_directory.parent
    with written(root, network.read(model_directory), steps) as made:
        yield [root / name for name in dict.fromkeys(path.relative_to(root).parts[0] for path in made)]


def advice(model_directory: Path, steps: Steps) -> list[str]:
    """Return what is left to do for the steps: packages to name, and what clients call."""
    lines = []
    for role, step in steps.items():
        text = model_directory.parent / step_name(model_directory.name, role) / REQUIREMENTS
        asked = [line for line in text.read_text("utf-8").splitlines() if line[:1] != "#"] if text.is_file() else []
        if not asked and (missing := sorted(step.imports - step_file.PROVIDED)):
            known = ", ".join(map(_pin, missing))
            lines.append(f"{text.parent.name} imports {', '.join(missing)}: {layout.shown(text)} has to name {known}")
    if steps:
        lines.append(f"Clients call {pipeline_name(model_directory.name)}")
    return lines


@contextmanager
def written(root: Path, net: Network, steps: Steps) -> Iterator[list[Path]]:
    """Bring the folders of the steps to what was brought; everything is as it was if the block ends with an error.

    What was brought is replaced. What was written around it, and requirements, are the user's once they are there.

    Raises:
        StepFileError: a step does not fit the network, or a configuration that is there does not fit a step.
        ModelConfigError: a configuration that is there is none.
    """
    before: dict[Path, bytes | None] = {}
    configs = {CONFIG, Path(CPU_CONFIG).name}
    kept = {*configs, REQUIREMENTS, "README"}
    own_caller = any(_is_own_caller(root / step_name(net.model, role) / VERSION / "model.py") for role in steps)
    try:
        for path, content in contents(net, steps).items():
            place = root / path
            there = place.read_bytes() if place.is_file() else None
            if there == content or (there is None and own_caller and path.endswith((STEP, CPU_CONFIG))):
                continue
            if there is not None and (place.name in kept or _is_own_caller(place)):
                if place.name in configs:
                    _check_same_tensors(place, content)
                continue
            before[place] = there
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        yield list(before)
    except BaseException:
        for place, there in before.items():
            if there is not None:
                place.write_bytes(there)
                continue
            place.unlink(missing_ok=True)
            for folder in place.relative_to(root).parents[:-1]:
                _remove_if_empty(root / folder)
        raise


def _is_own_caller(place: Path) -> bool:
    """Tell whether it is a model.py or step.py that calls the function of a file beside it, perhaps changed since.

    A model.py that does so by itself is from before there was a step.py: one process could not run the same.
    """
    if place.name not in ("model.py", STEP) or not place.is_file():
        return False
    if place.name == "model.py" and place.read_text("utf-8") == adapter():
        return False
    return any(place.with_name(f"{role}.py").is_file() for role in ROLES)


def _pin(module: str) -> str:
    """Return a line of requirements.txt for a module: of the package that has it here, if one has."""
    packages = importlib.metadata.packages_distributions().get(module, ())
    return f"{packages[0]}=={importlib.metadata.version(packages[0])}" if packages else f"{module}=="


def _check_same_tensors(path: Path, wanted: bytes) -> None:
    def tensors(content: bytes) -> list[Any]:
        config = model_config.parse(content, layout.shown(path))
        kinds = {"input": config.input, "output": config.output}
        found = [(kind, t.name, t.data_type, tuple(t.dims)) for kind, all_of in kinds.items() for t in all_of]
        return [config.max_batch_size, *sorted(found)]

    if tensors(path.read_bytes()) != tensors(wanted):
        raise StepFileError(
            f"{layout.shown(path)} has other inputs, outputs or batches than what was brought",
            hint="change it, too, or remove it to have it written anew",
        )


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
