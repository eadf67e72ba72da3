"""The steps of an ensemble and how they are wired: steps.json of a version, and the steps in the folder beside it.

steps.json       [{"model": "fashion_preprocess", "inputs": {its own name: the ensemble's}, "outputs": …, "config": …}]
steps/MODEL/     the model as it lies in the release, its version under the release's number
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from python_based.errors import ModelError

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


@dataclass(frozen=True)
class Call:
    """A step, and what its tensors are called in the ensemble."""

    model: str
    folder: Path
    version: str
    config: Mapping[str, Any]  # as Triton hands it to a model
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]  # those that the ensemble has a use for

    @property
    def batched(self) -> bool:
        """Whether the first dimension of its tensors is the batch."""
        return bool(self.config["max_batch_size"] > 0)


def read(version: Path) -> list[Call]:
    """Read the steps of a version, in an order in which each has what it needs.

    Raises:
        ModelError: it was not assembled, or has a tensor of a type that numpy has not.
    """
    try:
        described = json.loads((version / FILE_NAME).read_bytes())
    except FileNotFoundError:
        raise ModelError(
            f"version {version.name} has no {FILE_NAME}: `python -m deploy up` writes it into what it gives a server"
        ) from None
    return [_call(each, version) for each in described]


def _call(described: Mapping[str, Any], version: Path) -> Call:
    config = described["config"]
    ports = {
        role: tuple(
            _port(each, described[f"{role}s"]) for each in config[role] if each["name"] in described[f"{role}s"]
        )
        for role in ("input", "output")
    }
    folder = version / FOLDER / described["model"]
    return Call(described["model"], folder, version.name, config, ports["input"], ports["output"])


def _port(tensor: Mapping[str, Any], names: Mapping[str, str]) -> Port:
    dtype = tensor["data_type"].removeprefix("TYPE_")
    if dtype == "BF16":
        raise ModelError(f"{tensor['name']!r} is BF16, which steps in one process cannot hand on")
    reshaped = tuple(tensor["reshape"].get("shape", ())) if "reshape" in tensor else None
    kind = np.dtype(_NUMPY.get(dtype, dtype.lower()))
    return Port(tensor["name"], names[tensor["name"]], kind, tuple(tensor["dims"]), reshaped)


def fits(array: NDArray[Any], port: Port, dims: tuple[int, ...], batched: bool) -> bool:
    """Tell whether an array is what `dims` of a port say."""
    shape = array.shape[1:] if batched else array.shape
    if shape != dims and (len(shape) != len(dims) or any(d not in (-1, n) for d, n in zip(dims, shape, strict=True))):
        return False
    return array.dtype == port.dtype or (port.dtype.kind == "O" and array.dtype.kind == "S")
