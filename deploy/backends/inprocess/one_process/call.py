"""The steps of an ensemble and how they are wired: steps.json of a version, and the steps in the folder beside it.

  steps.json       [{"model": "shirts_preprocess", "inputs": {own name: the ensemble's}, "outputs": …, "config": …}]
  steps/MODEL/     the model as it lies in the release, its version under the release's number

Without them, in a repository that nobody has assembled, it is the ensemble in config.pbtxt over the folders beside its
own, each by its newest version: a plain `tritonserver --model-config-name cpu` serves that, until it is loaded anew.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from python_based.errors import ModelError

from one_process import text

FILE_NAME, FOLDER = "steps.json", "steps"
_NUMPY = {"BOOL": "?", "STRING": "O", "FP16": "float16", "FP32": "float32", "FP64": "float64"}


@dataclass(frozen=True)
class Port:
    """An input or an output of a step."""

    name: str
    shared: str  # what the ensemble calls it
    dtype: np.dtype[Any]
    dims: tuple[int, ...]  # between the steps; -1 where one may vary; without the batch
    reshaped: tuple[int, ...] | None  # within the step, where config.pbtxt has it otherwise there
    optional: bool  # an input that the step can do without, an output that no other step needs and no client gets
    copied: bool = False  # an input that others have, too: a step may write into what it is given


@dataclass(frozen=True)
class Call:
    """A step, and what its tensors are called in the ensemble."""

    model: str
    folder: Path
    version: str
    config: Mapping[str, Any]  # as Triton hands it to a model
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]  # those that the ensemble has a use for
    max_batch_size: int
    batched: bool  # whether the first dimension of its tensors is the batch

    @property
    def is_python(self) -> bool:
        """Whether its code is in Python, and so may do with arrays what it likes."""
        return bool(self.config["backend"] == "python")


def read(version: Path, outputs: Collection[str]) -> list[Call]:
    """Read the steps of a version, in an order in which each has what it needs.

    Args:
        outputs: The ensemble's.

    Raises:
        ModelError: one is not there, or has a tensor of a type that numpy has not.
    """
    if (version / FILE_NAME).is_file():
        described = json.loads((version / FILE_NAME).read_bytes())
        calls = [_call(each, version / FOLDER / each["model"], version.name) for each in described]
    else:
        calls = [_call(each, *_newest(version.parent.parent / each["model"])) for each in _beside(version.parent)]
    return _wired(calls, outputs)


def fits(array: NDArray[Any], port: Port, dims: tuple[int, ...], batched: bool) -> bool:
    """Tell whether an array is what `dims` of a port say."""
    shape = array.shape[1:] if batched else array.shape
    if shape != dims and (len(shape) != len(dims) or any(d not in (-1, n) for d, n in zip(dims, shape, strict=True))):
        return False
    return array.dtype == port.dtype or (port.dtype.kind == "O" and array.dtype.kind == "S")


def _beside(model: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of the ensemble in a model's config.pbtxt, as steps.json would have them."""
    ensemble = _config(model / "config.pbtxt")
    known = {tensor["name"] for tensor in ensemble["input"]}
    waiting = ensemble.get("ensemble_scheduling", {}).get("step", [])
    if not waiting:
        raise ModelError(f"version of {model.name} has no {FILE_NAME}, and its config.pbtxt is no ensemble")
    while waiting:
        step = next((each for each in waiting if known.issuperset(each.get("input_map", {}).values())), None)
        if step is None:
            raise ModelError(f"{model.name}: {waiting[0]['model_name']} waits for a tensor that no step makes")
        waiting.remove(step)
        known.update(step.get("output_map", {}).values())
        names = {"inputs": step.get("input_map", {}), "outputs": step.get("output_map", {})}
        folder = model.parent / step["model_name"]
        own = folder / "configs" / "cpu.pbtxt"
        yield {"model": folder.name, **names, "config": _config(own if own.is_file() else folder / "config.pbtxt")}


def _config(path: Path) -> dict[str, Any]:
    name = f"{path.relative_to(path.parents[1])}"
    try:
        found = text.parse(path.read_text(encoding="utf-8"), name)
    except OSError:
        raise ModelError(f"{name} is not there") from None
    return {"backend": found.get("backend") or found.get("platform", ""), **found}


def _newest(folder: Path) -> tuple[Path, str]:
    versions = [path.name for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
    if not versions:
        raise ModelError(f"{folder.name} has no version")
    return folder, max(versions, key=int)


def _call(described: Mapping[str, Any], folder: Path, version: str) -> Call:
    config = described["config"]
    ports = {
        role: tuple(
            _port(each, described[f"{role}s"]) for each in config[role] if each["name"] in described[f"{role}s"]
        )
        for role in ("input", "output")
    }
    rows = config["max_batch_size"]
    return Call(described["model"], folder, version, config, ports["input"], ports["output"], rows, rows > 0)


def _port(tensor: Mapping[str, Any], names: Mapping[str, str]) -> Port:
    dtype = tensor["data_type"].removeprefix("TYPE_")
    if dtype == "BF16":
        raise ModelError(f"{tensor['name']!r} is BF16, which steps in one process cannot hand on")
    reshaped = tuple(tensor["reshape"].get("shape", ())) if "reshape" in tensor else None
    kind = np.dtype(_NUMPY.get(dtype, dtype.lower()))
    optional = bool(tensor.get("optional", False))
    return Port(tensor["name"], names[tensor["name"]], kind, tuple(tensor["dims"]), reshaped, optional)


def _wired(calls: Sequence[Call], outputs: Collection[str]) -> list[Call]:
    """Say of each tensor whether it may be absent, and whether a step that takes it needs one of its own.

    Between two models Triton hands on a copy, in C order and with bytes for texts. So what a Python step made is copied
    for the next one, and what others read, too; a network writes into nothing, and takes any order.
    """
    readers = Counter(port.shared for call in calls for port in call.inputs)
    needed = {*outputs} | {port.shared for call in calls for port in call.inputs if not port.optional}
    made = {port.shared for call in calls if call.is_python for port in call.outputs}

    def taken(call: Call, port: Port) -> Port:
        alone = readers[port.shared] == 1 and port.shared not in outputs
        copied = port.shared in made or not alone if call.is_python else port.shared in made and port.dtype.kind == "O"
        return replace(port, copied=copied)

    return [
        replace(
            call,
            inputs=tuple(taken(call, port) for port in call.inputs),
            outputs=tuple(replace(port, optional=port.shared not in needed) for port in call.outputs),
        )
        for call in calls
    ]
