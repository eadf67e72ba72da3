"""What is exported: a reference to be like, a graph to start from, and real inputs to prove the likeness on.

A subject comes from a checkpoint of ours, or from an ONNX graph that was trained elsewhere. From here on the two
are the same; only the reference differs, the PyTorch module or the FP32 graph itself.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from contracts import manifest
from contracts.manifest import Source
from contracts.spec import DynamicDim, ModelSpec
from export import contract, graphs
from export.errors import GraphError, SampleError
from export.gates import Answers
from export.onnx import graph_from_module, module_runner
from export.runners import Batch, Runner, length, onnx_runner, take
from training.checkpoints import Checkpoint
from training.families import Family

# With fewer held-out samples than this no figure says anything: one flipped answer would be over 5 %.
_FEWEST = 20


@dataclass(frozen=True)
class Split:
    """Real inputs, and what is true of them if that is known."""

    inputs: Batch
    labels: Answers | None

    def __len__(self) -> int:
        return length(self.inputs)


@dataclass(frozen=True)
class Subject:
    """Everything an export needs to know of what it exports."""

    spec: ModelSpec
    source: Source
    reference: Callable[[], Runner]  # opened when needed: with everything cached it never is
    write_graph: Callable[[Path], object]  # the FP32 graph
    calibration: Batch
    search: Split  # recipes are compared on it, so that none is chosen for its luck on the held-out split
    held_out: Split

    def at(self, end: str) -> Batch:
        """Held-out inputs with every dynamic dimension at its "min", "opt" or "max", repeated or cut to fit."""
        shapes = {tensor.name: tensor.shape_at(end) for tensor in self.spec.inputs}  # type: ignore[arg-type]
        return {name: _fitted(values, shapes[name]) for name, values in self.held_out.inputs.items()}


def from_checkpoint(family: Family, checkpoint: Checkpoint, calibration_samples: int) -> Subject:
    """A checkpoint of a family, with the splits of the data it was trained on."""
    data, spec, lineage = family.data(), family.spec, checkpoint.lineage
    if data.fingerprint != lineage.data_fingerprint:
        raise SampleError(
            "the data is not what the checkpoint was trained on",
            note=f"fingerprint {data.fingerprint[:12]}…, trained on {lineage.data_fingerprint[:12]}…",
            hint="held-out samples may have been trained on: restore the data and its split, or train again",
        )
    [name] = [tensor.name for tensor in spec.inputs]
    return Subject(
        spec=spec,
        source=Source(
            file=checkpoint.path.name,
            sha256=checkpoint.sha256,
            data_fingerprint=lineage.data_fingerprint,
            mlflow_run_id=lineage.mlflow_run_id,
            git_commit=lineage.git_commit,
            git_dirty=lineage.git_dirty,
        ),
        reference=lambda: module_runner(checkpoint.module, spec),
        write_graph=lambda path: graph_from_module(checkpoint.module, spec, path),
        calibration={name: data.split("train")[0][:calibration_samples]},
        search=_split(name, *data.split("val")),
        held_out=_split(name, *data.split("test")),
    )


def from_graph(graph: Path, spec: ModelSpec, samples: Path, calibration_samples: int) -> Subject:
    """An ONNX graph trained elsewhere, with representative inputs: half to calibrate, half held out.

    Args:
        samples: A .npz with one array [N, …] an input, and perhaps `labels`.

    Raises:
        GraphError: the graph is none, or does not take and give what the spec says.
        SampleError: the inputs do not fit the spec, or are too few.
    """
    loaded = graphs.load(graph)
    # Of what was loaded, not of the file: weights may lie in another one.
    digest = hashlib.sha256(loaded.SerializeToString(deterministic=True)).hexdigest()
    model = _pinned(graphs.normalised(loaded), spec)
    if not (gate := contract.graph_gate(model, spec)).passed:
        raise GraphError(
            f"{graph} is not what the spec says",
            note=gate.detail,
            hint="mend the spec, or export the graph again with its dynamic dimensions dynamic",
        )
    inputs, labels = _read_samples(samples, spec)
    half = length(inputs) // 2
    first, second = slice(half), slice(half, None)
    return Subject(
        spec=spec,
        source=Source(graph.name, digest, manifest.sha256(samples), None, None, None),
        reference=lambda: onnx_runner(graph, [tensor.name for tensor in spec.outputs]),
        write_graph=lambda path: onnx.save(model, path),
        calibration=take(inputs, slice(min(half, calibration_samples))),
        search=Split(take(inputs, first), None if labels is None else labels[first]),
        held_out=Split(take(inputs, second), None if labels is None else labels[second]),
    )


def _pinned(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """`model`, in place, with the dimensions fixed that it leaves open and the spec does not."""
    wanted = {tensor.name: tensor.shape for tensor in (*spec.inputs, *spec.outputs)}
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, wanted.get(value.name, ()), strict=False):
            if isinstance(size, int) and not dim.dim_value:
                dim.dim_value = size
    return model


def _split(name: str, inputs: NDArray[Any], labels: Answers) -> Split:
    return Split({name: inputs}, labels)


def _read_samples(path: Path, spec: ModelSpec) -> tuple[dict[str, NDArray[Any]], Answers | None]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except FileNotFoundError:
        raise SampleError(f"{path} does not exist") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # TypeError: a .npy
        raise SampleError(
            f"{path} is no .npz of plain arrays, or a damaged one",
            note=str(error).partition("\n")[0] or type(error).__name__,
            hint="numpy.savez(path, **{input name: array})",
        ) from error
    labels = arrays.pop("labels", None)
    wanted = {tensor.name: tensor for tensor in spec.inputs}
    if arrays.keys() != wanted.keys():
        raise SampleError(f"{path} holds {_listed(arrays)}", note=f"the inputs of the spec are {_listed(wanted)}")
    for name, values in arrays.items():
        if values.dtype != wanted[name].dtype:
            raise SampleError(f"{name} in {path} is {values.dtype}", note=f"the spec says {wanted[name].dtype}")
        if values.ndim != len(wanted[name].shape) or not all(
            d.min <= size <= d.max if isinstance(d, DynamicDim) else size == d
            for d, size in zip(wanted[name].shape[1:], values.shape[1:], strict=True)
        ):
            raise SampleError(
                f"{name} in {path} has shape {list(values.shape)}", note=f"the spec: {wanted[name].shape}"
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SampleError(f"{name} in {path} has inf or nan in it")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.ndim != (2 if spec.task == "ctc" else 1)):
        raise SampleError(
            f"labels in {path} are {labels.dtype} {list(labels.shape)}",
            note="class indices [N], or for the task ctc [N, length] padded with -1",
        )
    counts = {len(values) for values in [*arrays.values(), *([] if labels is None else [labels])]}
    if len(counts) > 1 or min(counts) < 2 * _FEWEST:
        raise SampleError(
            f"{path} has {' and '.join(str(c) for c in sorted(counts))} samples",
            note=f"every array needs the same number, at least {2 * _FEWEST}: half calibrate, half are held out",
        )
    classes = next(tensor.shape[-1] for tensor in spec.outputs if tensor.name == spec.answer_output)
    least = -1 if spec.task == "ctc" else 0
    if labels is not None and isinstance(classes, int) and not (least <= labels.min() and labels.max() < classes):
        raise SampleError(
            f"labels in {path} reach from {labels.min()} to {labels.max()}",
            note=f"{spec.answer_output} has {classes} classes, counted from 0",
        )
    return arrays, None if labels is None else labels.astype(np.int64)


def _fitted(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """`values` with every axis repeated or cut to `shape`."""
    for axis, size in enumerate(shape):
        values = np.take(values, np.arange(size) % values.shape[axis], axis=axis)
    return np.ascontiguousarray(values)


def _listed(names: object) -> str:
    return ", ".join(names) or "nothing"  # type: ignore[arg-type]  # mappings
