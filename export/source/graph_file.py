"""An export source from an ONNX graph that was trained elsewhere."""

import hashlib
from pathlib import Path

import onnx

from contracts import manifest
from contracts.manifest import Source
from contracts.spec import ModelSpec
from export import graphs
from export.errors import GraphError
from export.proof import contract
from export.proof.runners import length, onnx_runner, take
from export.source.base import ExportSource, Split
from export.source.samples import read_samples


def from_graph(graph: Path, spec: ModelSpec, samples: Path, calibration_samples: int) -> ExportSource:
    """Make an export source of an ONNX graph trained elsewhere: half of its inputs calibrate, half are held out.

    Args:
        samples: A .npz with one array [N, …] an input, and perhaps `labels`.

    Raises:
        GraphError: the graph is none, or does not take and give what the spec says.
        SampleError: the inputs do not fit the spec, or are too few.
    """
    loaded = graphs.load(graph)
    # Of what was loaded, not of the file: weights may lie in another one.
    digest = hashlib.sha256(loaded.SerializeToString(deterministic=True)).hexdigest()
    model = _pinned(graphs.normalise(loaded), spec)
    if not (gate := contract.graph_gate(model, spec)).passed:
        raise GraphError(
            f"{graph} is not what the spec says",
            note=gate.detail,
            hint="mend the spec, or export the graph again with its dynamic dimensions dynamic",
        )
    inputs, labels = read_samples(samples, spec)
    half = length(inputs) // 2
    first, second = slice(half), slice(half, None)
    return ExportSource(
        spec=spec,
        origin=Source(graph.name, digest, manifest.sha256(samples), None, None, None),
        reference=lambda: onnx_runner(graph, [tensor.name for tensor in spec.outputs]),
        write_graph=lambda path: onnx.save(model, path),
        calibration=take(inputs, slice(min(half, calibration_samples))),
        search=Split(take(inputs, first), None if labels is None else labels[first]),
        held_out=Split(take(inputs, second), None if labels is None else labels[second]),
    )


def _pinned(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """Fix, in place, the dimensions that `model` leaves open and the spec does not; return `model`."""
    wanted = {tensor.name: tensor.shape for tensor in (*spec.inputs, *spec.outputs)}
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, wanted.get(value.name, ()), strict=False):
            if isinstance(size, int) and not dim.dim_value:
                dim.dim_value = size
    return model
