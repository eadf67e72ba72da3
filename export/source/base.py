"""What is exported: a reference to be like, a graph to start from, and real inputs to prove the likeness on.

An export source comes from a checkpoint of ours (checkpoint.py), from a PyTorch module (torch_module.py), or from an
ONNX graph that was trained elsewhere (graph_file.py). From here on they are the same; only the reference differs: the
module, the framework's own answers beside the samples, or the FP32 graph itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.entities.tables import Columns, Tables
from contracts.errors import SpecError
from contracts.manifest import Source
from contracts.samples import Batch, Split
from contracts.spec import ModelSpec
from export.proof.runners import Runner


@dataclass(frozen=True)
class ExportSource:
    """Everything an export needs to know of what it exports."""

    spec: ModelSpec
    origin: Source  # goes into the manifest
    reference: Callable[[], Runner]  # opened when needed: with everything cached it never is
    write_graph: Callable[[Path], object]  # the FP32 graph
    calibration: Split
    search: Split  # recipes are compared on it, so that none is chosen for its luck on the held-out split
    held_out: Split
    module: Callable[[], Any] | None = None  # the nn.Module itself, where it comes from one
    # Makes so many examples of what a client of the ensemble sends, {input: [n, …]}; None: there are none.
    raw_examples: Callable[[int], Batch] | None = None
    # Makes the tables that the spec's entities are filled from; None: there are none.
    tables: Callable[[], Mapping[str, Columns]] | None = None
    splits: Mapping[str, int] = field(default_factory=dict)  # {part of the data that it was trained with: its samples}

    def declared_tables(self) -> dict[str, Columns]:
        """Return the tables that its spec's entities are filled from, held to what is declared of them.

        Raises:
            SpecError: one is missing, or is not what is declared.
        """
        declared = self.spec.entities
        if declared is None or not declared.tables:
            return {}
        if self.tables is None:
            raise SpecError(
                f"{self.spec.model} declares entities, and has no tables to fill them from",
                hint="def tables(self) in the family's DataModule: {table: {column: array}}",
            )
        given = self.tables()
        Tables(declared, given)  # raises what is wrong with them
        return {name: given[name] for name in declared.tables}

    def inputs_at(self, end: str) -> Split:
        """Return held-out samples with every dynamic dimension at its "min", "opt" or "max", repeated or cut to fit."""
        shapes = {tensor.name: tensor.shape_at(end) for tensor in self.spec.inputs}  # type: ignore[arg-type]
        inputs = self.held_out.groups[0].inputs
        if self.spec.batched:
            return Split.of({name: fitted(values, shapes[name]) for name, values in inputs.items()})
        return Split.of({name: fitted(values[0], shapes[name])[None] for name, values in inputs.items()})


def fitted(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Repeat or cut `values` along every axis to `shape`."""
    for axis, size in enumerate(shape):
        values = np.take(values, np.arange(size) % values.shape[axis], axis=axis)
    return np.array(values, order="C")  # ascontiguousarray would make a scalar [1]
