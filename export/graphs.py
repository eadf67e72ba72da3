"""ONNX graphs as the export reads and changes them. Every node has a name that a person can place.

The nodes of a checkpoint's graph are named after its modules ("network.2.first.0/Conv"), those of a graph
brought from elsewhere keep their names. Later steps, TensorRT's layers and the report use these names.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from contracts.spec import ModelSpec
from export.errors import GraphError

# Where the arithmetic is: what must run in the precision of the variant's name.
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Per-channel DequantizeLinear exists since 13.
_OLDEST_OPSET = 13
_MOST_ELEMENTS = 1 << 31  # of a constant: 8 GB in FP32
_MADE_OF_A_SHAPE = ("ConstantOfShape", "Expand")  # what their last input says
_MOST_DIMENSIONS = 64


def load(path: Path) -> ModelProto:
    """Read and check a graph.

    Raises:
        GraphError: the file is missing, damaged, or is no ONNX graph; or it has a constant that no memory holds.
    """
    try:
        model = onnx.load(path)
        _check_constants(path, model.graph)
        onnx.checker.check_model(model)
    except FileNotFoundError:
        raise GraphError(f"{path} does not exist") from None
    except GraphError:
        raise
    except Exception as error:  # protobuf's, onnx's own and its C++ checker's have no common class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise GraphError(f"{path} is no ONNX graph, or a damaged one", note=reason) from error
    return model


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
            sizes[node.output[0]] = math.prod(map(int, numpy_helper.to_array(shape).flat))
    for name, elements in sizes.items():
        if elements > _MOST_ELEMENTS:
            raise GraphError(
                f"{path}: the constant {name} has {elements:,} elements", note=f"the limit is {_MOST_ELEMENTS:,}"
            )


def normalise(model: ModelProto) -> ModelProto:
    """Name every node of `model`, turn its constants into weights, and raise its opset to one with INT8 per channel.

    It is changed in place, unless a newer opset makes a new one of it.

    Raises:
        GraphError: the opset is older and onnx cannot convert the graph.
    """
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OLDEST_OPSET)
        except (RuntimeError, onnx.version_converter.ConvertError) as error:
            raise GraphError(
                f"the graph has opset {opset}, at least {_OLDEST_OPSET} is needed, and onnx cannot convert it",
                note=str(error).splitlines()[0],
                hint=f"export it again with opset {_OLDEST_OPSET} or newer",
            ) from error
    _fold_constants(model)
    used: set[str] = set()
    for node in model.graph.node:
        name = wanted = _module(node) or node.name or node.op_type
        count = 1
        while name in used:
            count += 1
            name = f"{wanted}_{count}"
        used.add(name)
        node.name = name
        del node.metadata_props[:]  # PyTorch's have the file names of the machine that exported
    return model


def pinned(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """Fix, in place, the dimensions that `model` leaves open and the spec does not; return `model`."""
    wanted = {tensor.name: tensor.shape for tensor in (*spec.inputs, *spec.outputs)}
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, wanted.get(value.name, ()), strict=False):
            if isinstance(size, int) and not dim.dim_value:
                dim.dim_value = size
    return model


def io_tensors(model: ModelProto) -> tuple[dict[str, tuple[str, tuple[int, ...]]], ...]:
    """Return ({input: (numpy dtype, dims)}, {output: …}); a dimension that may vary is -1.

    Raises:
        GraphError: one is a sequence, a map or something else that Triton does not serve.
    """

    def tensors(values: Collection[onnx.ValueInfoProto]) -> dict[str, tuple[str, tuple[int, ...]]]:
        found = {}
        for value in values:
            if not value.type.HasField("tensor_type"):
                raise GraphError(f"{value.name!r} is no tensor, but a {value.type.WhichOneof('value')}")
            kind = value.type.tensor_type
            dims = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1 for d in kind.shape.dim)
            found[value.name] = (str(np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))), dims)
        return found

    constants = {initializer.name for initializer in model.graph.initializer}
    return tensors([v for v in model.graph.input if v.name not in constants]), tensors(model.graph.output)


def heavy_nodes(model: ModelProto) -> list[str]:
    """List the names of the convolutions and matrix products, in the order they run."""
    return [node.name for node in model.graph.node if node.op_type in HEAVY]


def border_nodes(model: ModelProto) -> list[str]:
    """List the nodes before the first and after the last heavy one on every path: normalising, softmax, shapes.

    Not what dequantizes an operand of a heavy one: it gives what that computes in.
    """
    before, after = set(), set()
    reached: set[str] = set()
    for node in model.graph.node:
        if node.op_type in HEAVY or reached & set(node.input):
            reached |= set(node.output)
        else:
            before.add(node.name)
    needed: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type in HEAVY or needed & set(node.output):
            needed |= set(node.input)
        else:
            after.add(node.name)
    border = [node for node in model.graph.node if node.name in before | after]
    return [node.name for node in border if node.op_type != "DequantizeLinear"]


def tensor_types(model: ModelProto) -> Mapping[str, int]:
    """Return {tensor: its TensorProto.DataType} for every tensor that shape inference can type."""
    inferred = infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.input, *inferred.value_info, *inferred.output]}
    return types | {i.name: i.data_type for i in inferred.initializer}


def with_outputs(model: ModelProto, tensors: Collection[str], dtype: int = TensorProto.FLOAT) -> ModelProto:
    """Copy `model` and let the copy also output `tensors`, all of one element type."""
    copy = ModelProto()
    copy.CopyFrom(model)
    present = {output.name for output in copy.graph.output}
    copy.graph.output.extend(helper.make_tensor_value_info(t, dtype, None) for t in tensors if t not in present)
    return copy


def _captured(node: NodeProto) -> set[str]:
    """Return what the branches and bodies of an If, Loop or Scan read; those may be tensors from outside."""
    bodies = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return {name for body in bodies for inner in body.node for name in (*inner.input, *_captured(inner))}


def _fold_constants(model: ModelProto) -> None:
    """Turn Constant nodes into weights: the quantizers take a weight that is a node for an activation."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _module(node: NodeProto) -> str | None:
    """Return "network.2.first.1/Conv" from what PyTorch's exporter noted, or None."""
    noted = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes")
    if noted is None:
        return None
    scopes = [scope.strip(" '\"") for scope in noted.strip("[]").split(",")]
    module = scopes[-2] if len(scopes) > 1 else ""  # the last one is the operator's own name
    return f"{module}/{node.op_type}" if module else node.op_type


def without_dead_nodes(model: ModelProto) -> ModelProto:
    """Remove the nodes and weights that no output needs, in place; return `model`."""
    needed = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input) | _captured(node)
    weights = [initializer for initializer in model.graph.initializer if initializer.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(weights)
    return model
