"""What is exported: a reference to be like, a graph to start from, and real inputs to prove the likeness on.

An export source comes from a checkpoint of ours (checkpoint.py), or from an ONNX graph that was trained elsewhere
(graph_file.py). From here on the two are the same; only the reference differs, the PyTorch module or the FP32 graph
itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.manifest import Source
from contracts.spec import ModelSpec
from export.proof.gates import Answers
from export.proof.runners import Batch, Runner, length


@dataclass(frozen=True)
class Split:
    """Real inputs, and what is true of them if that is known."""

    inputs: Batch
    labels: Answers | None

    def __len__(self) -> int:
        return length(self.inputs)


@dataclass(frozen=True)
class ExportSource:
    """Everything an export needs to know of what it exports."""

    spec: ModelSpec
    origin: Source  # goes into the manifest
    reference: Callable[[], Runner]  # opened when needed: with everything cached it never is
    write_graph: Callable[[Path], object]  # the FP32 graph
    calibration: Batch
    search: Split  # recipes are compared on it, so that none is chosen for its luck on the held-out split
    held_out: Split

    def inputs_at(self, end: str) -> Batch:
        """Return held-out inputs with every dynamic dimension at its "min", "opt" or "max", repeated or cut to fit."""
        shapes = {tensor.name: tensor.shape_at(end) for tensor in self.spec.inputs}  # type: ignore[arg-type]
        return {name: _fitted(values, shapes[name]) for name, values in self.held_out.inputs.items()}


def _fitted(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Repeat or cut `values` along every axis to `shape`."""
    for axis, size in enumerate(shape):
        values = np.take(values, np.arange(size) % values.shape[axis], axis=axis)
    return np.ascontiguousarray(values)
