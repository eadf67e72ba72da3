"""Graphs on disk: one file, and where the weights are more than that holds, a second one beside it.

A protobuf message ends at 2 GB. What comes near that keeps its weights outside from the first step to the last: they
are never in memory here, and only FP32 is made of them.
"""

import hashlib
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    uses_external_data,
)

from export.errors import GraphError
from export.graphs.structure import subgraphs

WEIGHTS = "model.onnx.data"  # as it is published, so that the graph beside it is the same file wherever it lies
_MOST_ELEMENTS = 1 << 31  # of a constant: 8 GB in FP32
_MOST_IN_MEMORY = 450_000_000  # elements of what lies outside: in FP32 they are a message of 1.8 GB
_SMALL = 1 << 16  # bytes of a tensor that is read even so: a shape, an axis
_MADE_OF_A_SHAPE = ("ConstantOfShape", "Expand")  # what their last input says
_MOST_DIMENSIONS = 64
_CHUNK = 16 << 20
_PROPERTY = "weights.sha256"


def load(path: Path) -> ModelProto:
    """Read and check a graph.

    Weights in another file are read, too, unless they are too many: then they are named by where they lie.

    Raises:
        GraphError: the file, or the one with its weights, is missing, damaged, or is no ONNX graph; or it has a
            constant that no memory holds.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise GraphError(f"{path} does not exist") from None
    except Exception as error:  # protobuf's
        raise GraphError(f"{path} is no ONNX graph, or a damaged one", note=_said(error)) from error
    outside = list(_outside(model))
    _check_files(path, outside)
    try:
        _check_constants(path, model.graph)
        _import_domains(model)
        if many := _elements(outside) > _MOST_IN_MEMORY:
            onnx.checker.check_model(path)
        for tensor in outside:
            if not many or math.prod(tensor.dims) * 8 <= _SMALL:
                load_external_data_for_tensor(tensor, str(path.parent))
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]
            else:
                _name_file(tensor, path.parent)
        if not many:
            _check(model)
    except GraphError:
        raise
    except Exception as error:  # onnx's own and its C++ checker's have no common class
        raise _not_valid(path, model, error) from error
    return model


def save(model: ModelProto, path: Path) -> None:
    """Write a graph; weights that lie outside of it are copied into one file beside it."""
    if not any(_outside(model)):
        onnx.save(model, path)
        return
    written, digest_of_all = ModelProto(), hashlib.sha256()
    written.CopyFrom(model)
    with (path.parent / WEIGHTS).open("wb") as weights:
        for tensor in _outside(written):
            start = weights.tell()
            for chunk in _content(tensor):
                weights.write(chunk)
                digest_of_all.update(chunk)
            _place(tensor, WEIGHTS, start, weights.tell() - start)
    # Other weights are another graph: its digest is what steps and variants are told apart by.
    onnx.helper.set_model_props(written, {_PROPERTY: digest_of_all.hexdigest()})
    onnx.save(written, path)


def copy(graph: Path, target: Path) -> None:
    """Copy a graph that `save` wrote, with its weights."""
    shutil.copyfile(graph, target)
    if (weights := graph.parent / WEIGHTS).exists():
        shutil.copyfile(weights, target.parent / WEIGHTS)


def size_bytes(graph: Path) -> int:
    """Return what a graph that `save` wrote takes on the disk, with its weights."""
    weights = graph.parent / WEIGHTS
    return graph.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


def digest(model: ModelProto) -> str:
    """Return the SHA-256 of a graph and of its weights, wherever they lie."""
    outside = list(_outside(model))
    if not outside:
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    structure = ModelProto()
    structure.CopyFrom(model)
    for tensor in _outside(structure):
        del tensor.external_data[:]  # where they lie is not what they are
    found = hashlib.sha256(structure.SerializeToString(deterministic=True))
    for tensor in outside:
        for chunk in _content(tensor):
            found.update(chunk)
    return found.hexdigest()


def require_whole(model: ModelProto, purpose: str) -> None:
    """See that all weights are in memory.

    Raises:
        GraphError: they are too many.
    """
    if count := _elements(list(_outside(model))):
        raise GraphError(
            f"its weights are too many for {purpose}: {count:,}, which take {count * 4 / 1e9:.1f} GB in FP32",
            note=f"what changes them holds a graph in one message of 2 GB: {_MOST_IN_MEMORY:,} at most",
        )


def _outside(model: ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors whose values are not in the message."""
    for graph in subgraphs(model.graph):
        constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
        yield from (tensor for tensor in (*graph.initializer, *constants) if uses_external_data(tensor))


def _not_valid(path: Path, model: ModelProto, error: Exception) -> GraphError:
    """Return the error of what onnx's checker refuses: protobuf reads something out of many a file that is no graph."""
    opsets = ", ".join(f"{o.version} of {o.domain}" if o.domain else str(o.version) for o in model.opset_import)
    if not (model.graph.node and opsets):
        return GraphError(f"{path} is no ONNX graph, or a damaged one", note=_said(error))
    return GraphError(
        f"{path} is not a valid graph of opset {opsets}",
        note=_said(error),
        hint="export it again, with another opset if its nodes are of an older or a newer one",
    )


def _check(model: ModelProto) -> None:
    """Let onnx check a graph, but not that its outputs have shapes: no runtime asks for those."""
    without = [
        v for v in model.graph.output if v.type.HasField("tensor_type") and not v.type.tensor_type.HasField("shape")
    ]
    for value in without:
        value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    for value in without:
        value.type.tensor_type.ClearField("shape")


def _check_files(path: Path, outside: Sequence[TensorProto]) -> None:
    """See that the files with the weights are there, and are long enough."""
    for tensor in outside:
        said = ExternalDataInfo(tensor)
        file = path.parent / said.location
        belongs = f"which holds weights of {path.name} ({tensor.name!r} for one)"
        if file.is_symlink() and file.exists():
            raise GraphError(
                f"{file}, {belongs}, is a link, and onnx follows none to weights",
                hint=f"what was downloaded into a cache of links is copied whole by: cp -rL {path.parent} ELSEWHERE",
            )
        if Path(said.location).is_absolute() or not file.resolve().is_relative_to(path.parent.resolve()):
            raise GraphError(
                f"{said.location}, {belongs}, does not lie in its folder",
                note="onnx and onnxruntime read weights from the graph's own folder alone",
                hint="onnx.load(…) where they are, and onnx.save(model, path, save_as_external_data=True)",
            )
        if not file.is_file():
            raise GraphError(
                f"{file} does not exist, {belongs}",
                hint="copy it beside the graph under that name: an export that has two files is both of them",
            )
        end = (said.offset or 0) + (said.length or 0)
        if (size := file.stat().st_size) < end:
            raise GraphError(
                f"{file}, {belongs}, ends too early",
                note=f"it has {size:,} bytes, and {end:,} are needed",
                hint="copy it again: it is damaged, or of another export",
            )


def _check_constants(path: Path, graph: GraphProto) -> None:
    """Refuse a graph of some bytes that makes a tensor of gigabytes: whoever folds its constants would make it."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.HasField("t")
    }
    sizes = {name: math.prod(tensor.dims) for name, tensor in constants.items()}
    for node in graph.node:
        for inner in [attribute.g for attribute in node.attribute if attribute.HasField("g")]:
            _check_constants(path, inner)
        shape = constants.get(node.input[-1]) if node.op_type in _MADE_OF_A_SHAPE and node.input else None
        if shape is not None and sizes[node.input[-1]] <= _MOST_DIMENSIONS:
            values = numpy_helper.to_array(shape, base_dir=str(path.parent))
            sizes[node.output[0]] = math.prod(map(int, values.flat))
    for name, elements in sizes.items():
        if elements > _MOST_ELEMENTS:
            raise GraphError(
                f"{path}: the constant {name} has {elements:,} elements", note=f"the limit is {_MOST_ELEMENTS:,}"
            )


def _import_domains(model: ModelProto) -> None:
    """Import the domain of onnxruntime's own operators where it is used and not imported: it does not ask for that."""
    used = {node.domain for graph in subgraphs(model.graph) for node in graph.node}
    if "com.microsoft" in used - {o.domain for o in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def _name_file(tensor: TensorProto, folder: Path) -> None:
    """Let a tensor say where its values lie from everywhere: a graph in memory has no folder."""
    said = ExternalDataInfo(tensor)
    file = (folder / said.location).resolve()
    length = said.length if said.length is not None else file.stat().st_size - (said.offset or 0)
    _place(tensor, str(file), said.offset or 0, length)


def _place(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _content(tensor: TensorProto) -> Iterator[bytes]:
    said = ExternalDataInfo(tensor)
    with Path(said.location).open("rb") as stream:
        stream.seek(said.offset or 0)
        left = said.length or 0
        while left and (chunk := stream.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk


def _elements(tensors: Sequence[TensorProto]) -> int:
    return sum(math.prod(tensor.dims) for tensor in tensors)


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
