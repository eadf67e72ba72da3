"""An export source from an ONNX graph that was trained elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from contracts.manifest import Source
from contracts.samples import Batch
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
    model = _pinned(graphs.in_float32(graphs.normalise(loaded)), spec)
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
        reference=lambda: _as_it_came(graph, [tensor.name for tensor in spec.outputs], graphs.random_nodes(model)),
        write_graph=lambda path: graphs.save(model, path),
        calibration=first.first(calibration_samples),
        search=first,
        held_out=second,
    )


def _pinned(model: ModelProto, spec: ModelSpec) -> ModelProto:
    """Fix the dimensions that the spec fixes; where the graph has branches and is not loaded so, of its outputs alone.

    At a known size onnxruntime (1.24) holds the shapes of branches together that are never taken at that size.
    """
    if len([*graphs.subgraphs(model.graph)]) == 1:
        return graphs.pinned(model, spec)
    as_it_was = ModelProto()
    as_it_was.CopyFrom(model)
    fixed, opened = graphs.pinned(model, spec), graphs.pinned(as_it_was, spec, inputs=False)
    return opened if _is_loaded(opened) and not _is_loaded(fixed) else fixed


def _is_loaded(model: ModelProto) -> bool:
    try:
        graphs.require_whole(model, "onnxruntime in memory")
        memory_runner(model, [])
    except GraphError:
        return False
    return True


def _as_it_came(path: Path, outputs: Sequence[str], random: Sequence[str]) -> Runner:
    """Open the graph as it was brought, and where onnxruntime does not load that, as it was read.

    Args:
        random: Its nodes that may draw at random. The runner refuses a graph whose answers depend on them.
    """
    loaded = graphs.load(path)
    mended = graphs.as_runtimes_take_it(loaded)
    try:
        run = onnx_runner(path, outputs) if mended is loaded else memory_runner(mended, outputs)
    except GraphError as error:  # as of shapes that lie in another file
        try:
            run = memory_runner(mended, outputs)
        except GraphError:
            raise error from None
    return _the_same_twice(run, random) if random else run


def _the_same_twice(run: Runner, random: Sequence[str]) -> Runner:
    def twice(batch: Batch) -> Batch:
        first, second = run(batch), run(batch)
        for name, values in first.items():
            if not np.array_equal(values, second[name]):
                raise GraphError(
                    f"two runs of it differ in {name!r}, so that nothing can be compared with it",
                    note=f"what draws at random: {', '.join(random)}",
                    hint="export it again in eval mode; or let the noise be an input of the graph",
                )
        return first

    return twice
