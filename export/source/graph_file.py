"""An export source from an ONNX graph that was trained elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from contracts.manifest import Source
from contracts.spec import ModelSpec
from export import graphs
from export.errors import GraphError
from export.proof import contract
from export.proof.runners import Runner, memory_runner, onnx_runner
from export.source.base import ExportSource
from export.source.samples import fingerprint, read_samples


def from_graph(graph: Path, spec: ModelSpec, samples: Sequence[Path], calibration_samples: int) -> ExportSource:
    """Make an export source of an ONNX graph trained elsewhere: half of its inputs calibrate, half are held out.

    Args:
        samples: .npz files, a group of samples of equal shapes each, or folders of them (source/samples.py).

    Raises:
        GraphError: the graph is none, or does not take and give what the spec says.
        SampleError: the inputs do not fit the spec, or are too few.
    """
    loaded = graphs.load(graph)
    digest = graphs.digest(loaded)  # of what was loaded, not of the file: weights may lie in another one
    model = graphs.pinned(graphs.in_float32(graphs.normalise(loaded)), spec)
    if not (gate := contract.graph_gate(model, spec)).passed:
        raise GraphError(
            f"{graph} is not what the spec says",
            note=gate.detail,
            hint="mend the spec, or export the graph again with its dynamic dimensions dynamic",
        )
    first, second = read_samples(samples, spec).halves()
    compared_with = "the framework that it comes from, as the samples have it," if second.expected else None
    return ExportSource(
        spec=spec,
        origin=Source(graph.name, digest, fingerprint(samples), None, None, None, compared_with),
        reference=lambda: _as_it_came(graph, [tensor.name for tensor in spec.outputs]),
        write_graph=lambda path: graphs.save(model, path),
        calibration=first.first(calibration_samples),
        search=first,
        held_out=second,
    )


def _as_it_came(path: Path, outputs: Sequence[str]) -> Runner:
    """Open the graph as it was brought, and where onnxruntime does not load that, as it was read.

    It takes no two nodes of one name, and no shapes that lie in another file: neither changes an answer.
    """
    try:
        return onnx_runner(path, outputs)
    except GraphError as error:
        try:
            return memory_runner(graphs.with_distinct_names(graphs.load(path)), outputs)
        except GraphError:
            raise error from None
