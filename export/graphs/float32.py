"""FP32 from a graph in double or half precision: what it takes and gives keeps its type, all between is FP32.

Whether that answers like the graph itself is for the gates: the reference is the graph as it came.
"""

from collections.abc import Collection, Mapping

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from export.graphs.file import require_whole
from export.graphs.structure import subgraphs

_OTHERS = frozenset({TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_TYPES = ("to", "dtype", "output_datatype")  # attributes that name the type of what a node gives


def in_float32(model: ModelProto) -> ModelProto:
    """Let `model` compute in FP32 what it computes in another float type, in place; return it.

    Raises:
        GraphError: its weights are too many to be changed.
    """
    if not _uses_others(model):
        return model
    require_whole(model, "another precision")
    given = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    for graph in subgraphs(model.graph):
        _retype(graph, keep=given if graph is model.graph else {})
    _cast_at_the_border(model.graph)
    return model


def float32_border(model: ModelProto) -> tuple[ModelProto, dict[str, int]]:
    """Let what `model` takes and gives be FP32 where it is another float type, in place.

    Returns:
        It, and {input or output: the type that it had}, for `with_border`.
    """
    border = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output) if _is_other(v)}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in border:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type == "Cast" and node.output[0] in border:
            node.attribute[0].i = TensorProto.FLOAT
    return model, border


def with_border(model: ModelProto, border: Mapping[str, int]) -> ModelProto:
    """Give inputs and outputs the types back that they had before `float32_border`, in place; return the graph."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = border.get(value.name, value.type.tensor_type.elem_type)
    if border:
        _cast_at_the_border(model.graph)
    return model


def _uses_others(model: ModelProto) -> bool:
    graphs = list(subgraphs(model.graph))
    tensors = [t for graph in graphs for t in graph.initializer]
    attributes = [a for graph in graphs for node in graph.node for a in node.attribute]
    values = [v for graph in graphs for v in (*graph.input, *graph.output)]
    return bool(
        _OTHERS & {t.data_type for t in (*tensors, *(a.t for a in attributes if a.HasField("t")))}
        or _OTHERS & {v.type.tensor_type.elem_type for v in values}
        or any(a.name in _TYPES and a.i in _OTHERS for a in attributes)
    )


def _retype(graph: GraphProto, keep: Collection[str]) -> None:
    """Make every weight, constant and declared type of a graph FP32, but for its inputs and outputs to `keep`."""
    for tensor in graph.initializer:
        _to_float32(tensor)
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.type == AttributeProto.TENSOR:
            _to_float32(attribute.t)
        if attribute.name in _TYPES and attribute.i in _OTHERS:
            attribute.i = TensorProto.FLOAT
    for value in (*graph.input, *graph.output):
        if value.name not in keep and _is_other(value):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]  # what it said of the tensors between is inferred anew


def _cast_at_the_border(graph: GraphProto) -> None:
    """Give each input and output of another float type a Cast, and let all between read and write what is FP32."""
    weights = {tensor.name for tensor in graph.initializer}
    taken = [v for v in graph.input if _is_other(v)]
    given = [v for v in graph.output if _is_other(v) and v.name not in {*weights, *(i.name for i in taken)}]
    present = {name for node in graph.node for name in (*node.input, *node.output)}
    inner = {v.name: _unused(f"{v.name}/float32", present) for v in (*taken, *given)}
    for inside in subgraphs(graph):
        _rename(inside, inner)
        for value in inside.output if inside is not graph else ():  # a branch may give a tensor from outside
            value.name = inner.get(value.name, value.name)
    nodes = [
        *(_cast(v.name, inner[v.name], TensorProto.FLOAT) for v in taken),
        *graph.node,
        *(_cast(inner[v.name], v.name, v.type.tensor_type.elem_type) for v in given),
    ]
    del graph.node[:]
    graph.node.extend(nodes)


def _cast(given: str, made: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [given], [made], f"{max(given, made, key=len)}/Cast", to=to)


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for place in (node.input, node.output):
            for index, name in enumerate(place):
                place[index] = names.get(name, name)


def _unused(wanted: str, present: Collection[str]) -> str:
    while wanted in present:
        wanted += "_"
    return wanted


def _is_other(value: ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in _OTHERS


def _to_float32(tensor: TensorProto) -> None:
    if tensor.data_type in _OTHERS:
        with np.errstate(over="ignore"):  # what is beyond its range is inf, and the gates see what that does
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
