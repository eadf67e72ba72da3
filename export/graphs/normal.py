"""A graph as the rest of the export wants it, whatever exporter wrote it and when."""

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    TensorShapeProto,
    helper,
    inliner,
    numpy_helper,
)

from export.graphs.file import require_whole
from export.graphs.structure import subgraphs

# Per-channel DequantizeLinear exists since 13.
_OLDEST_OPSET = 13
# Up to 3 every weight is an input as well; functions exist since 8.
_OLDEST_IR = 8
_LONGEST_NAME = 200
# What Upsample and Resize did before they had a choice, and onnx's converter (1.21) forgets to say.
_RESIZE_HAS_A_MODE = 11
_RESIZE_OF_OLD = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
# Attributes of a Constant beside `value`, and the types that they have.
_VALUES = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def normalise(model: ModelProto) -> ModelProto:
    """Name every node of `model`, turn its constants into weights, and raise its opset to one with INT8 per channel.

    Functions of its own are written out, weights are no inputs any more, and sparse ones become dense. It is changed in
    place, unless a newer opset or a function makes a new one of it. What onnx cannot convert stays as old as it is:
    then there is FP32 of it, and perhaps no other precision.
    """
    _without_weights_as_inputs(model)
    for graph in subgraphs(model.graph):
        _without_sparse_weights(graph)
    if model.functions:
        model = _without_functions(model)
    model = _of_a_newer_opset(model)
    for graph in subgraphs(model.graph):
        _fold_constants(graph)
    _without_idle(_idle_transposes(model))
    _name_nodes(model)
    _rename_tensors(model)
    return model


def as_runtimes_take_it(model: ModelProto) -> ModelProto:
    """Copy `model`, with what changes no answer and what onnxruntime does not take mended; or return it as it is.

    That is two nodes of one name, a dimension of 0, as some exporters wrote what may vary, and a Transpose that leaves
    every axis where it is.
    """
    names = [node.name for graph in subgraphs(model.graph) for node in graph.node if node.name]
    if len(names) == len({*names}) and not _dims_of_0(model) and not _idle_transposes(model):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    _name_nodes(copy)
    _without_idle(_idle_transposes(copy))
    for dim in _dims_of_0(copy):
        dim.Clear()
    return copy


def _dims_of_0(model: ModelProto) -> list[TensorShapeProto.Dimension]:
    dims = [dim for value in model.graph.input for dim in value.type.tensor_type.shape.dim]
    return [dim for dim in dims if dim.HasField("dim_value") and not dim.dim_value]


def _idle_transposes(model: ModelProto) -> list[NodeProto]:
    transposes = [n for graph in subgraphs(model.graph) for n in graph.node if n.op_type == "Transpose" and n.attribute]
    return [node for node in transposes if list(node.attribute[0].ints) == [*range(len(node.attribute[0].ints))]]


def _without_idle(transposes: Sequence[NodeProto]) -> None:
    """Make each an Identity: onnxruntime (1.24) fuses it into a Gemm as if it exchanged the axes."""
    for node in transposes:
        node.op_type = "Identity"
        del node.attribute[:]


def _name_nodes(model: ModelProto) -> None:
    used: set[str] = set()
    for graph in subgraphs(model.graph):
        for node in graph.node:
            node.name = _unused(_plain(_module(node) or node.name or node.op_type), used)
            del node.metadata_props[:]  # PyTorch's have the file names of the machine that exported


def _rename_tensors(model: ModelProto) -> None:
    """Let no tensor inside be called as ModelOpt calls those of its own Casts, and none that is left out be last."""
    public = {value.name for value in (*model.graph.input, *model.graph.output)}
    for graph in subgraphs(model.graph):
        for node in graph.node:
            for place in (node.input, node.output):
                while place and not place[-1]:  # TensorRT counts it
                    place.pop()
                for index, name in enumerate(place):
                    place[index] = _renamed(name, public)
        for named in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
            named.name = _renamed(named.name, public)


def _renamed(name: str, public: Collection[str]) -> str:
    return name if name in public else name.replace("_cast_to_", "_cast_into_")


def _plain(name: str) -> str:
    """Return a name that TensorRT takes, which has a limit, and ModelOpt, which takes it for a regular expression."""
    return "".join(c if c.isprintable() and c not in "[]" else "_" for c in name[:_LONGEST_NAME])


def _unused(wanted: str, used: set[str]) -> str:
    """Return a name that is not among the used ones, with a number where it has to; it is one of them from then on."""
    name, count = wanted, 1
    while name in used:
        count += 1
        name = f"{wanted}_{count}"
    used.add(name)
    return name


def _without_functions(model: ModelProto) -> ModelProto:
    """Write out the functions; where onnx cannot, they stay: onnxruntime takes them, and FP32 can be made."""
    own = {o.domain: o.version for o in model.opset_import}
    older = any(own.get(o.domain, o.version) != o.version for f in model.functions for o in f.opset_import)
    try:
        return inliner.inline_local_functions(model, convert_version=older)
    except RuntimeError:
        return model


def _without_weights_as_inputs(model: ModelProto) -> None:
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    weights = {tensor.name for tensor in (*model.graph.initializer, *_sparse_values(model.graph))}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def _sparse_values(graph: GraphProto) -> list[TensorProto]:
    return [sparse.values for sparse in graph.sparse_initializer]  # it has the name of the whole


def _without_sparse_weights(graph: GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]


def _dense(sparse: SparseTensorProto) -> TensorProto:
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def _of_a_newer_opset(model: ModelProto) -> ModelProto:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), _OLDEST_OPSET)
    if opset >= _OLDEST_OPSET:
        return model
    try:
        require_whole(model, f"a newer opset than {opset}")
        newer = onnx.version_converter.convert_version(model, _OLDEST_OPSET)
    except Exception:  # it fails in many ways; an old graph is still one, and only what needs a newer opset is refused
        return model
    for node in newer.graph.node:
        if node.op_type == "Resize" and opset < _RESIZE_HAS_A_MODE and len(node.attribute) < len(_RESIZE_OF_OLD):
            node.attribute.extend(helper.make_attribute(key, value) for key, value in _RESIZE_OF_OLD.items())
    return newer


def _fold_constants(graph: GraphProto) -> None:
    """Turn Constant nodes into weights: the quantizers take a weight that is a node for an activation."""
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and (tensor := _constant(node)) is not None:
            graph.initializer.append(tensor)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _constant(node: NodeProto) -> TensorProto | None:
    [attribute] = node.attribute
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    if attribute.name == "sparse_value":
        sparse = SparseTensorProto()
        sparse.CopyFrom(attribute.sparse_tensor)
        sparse.values.name = node.output[0]
        return _dense(sparse)
    if attribute.name not in _VALUES:
        return None  # of strings
    values = np.array(helper.get_attribute_value(attribute), _VALUES[attribute.name])
    return numpy_helper.from_array(values, node.output[0])


def _module(node: NodeProto) -> str | None:
    """Return "network.2.first.1/Conv" from what PyTorch's exporter noted, or None."""
    noted = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes")
    if noted is None:
        return None
    scopes = [scope.strip(" '\"") for scope in noted.strip("[]").split(",")]
    module = scopes[-2] if len(scopes) > 1 else ""  # the last one is the operator's own name
    return f"{module}/{node.op_type}" if module else node.op_type
