"""What is in a graph: its inputs and outputs, where its arithmetic is, the types of its tensors."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.shape_inference import infer_shapes

from contracts.spec import DynamicDim, ModelSpec
from export.errors import GraphError

# Where the arithmetic is: what must run in the precision of the variant's name.
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def pinned(model: ModelProto, spec: ModelSpec, *, inputs: bool = True) -> ModelProto:
    """Fix, in place, the dimensions that `model` leaves open and the spec does not; return it, its shapes inferred.

    Args:
        inputs: Of the inputs, too, and not of the outputs alone.
    """
    wanted = {tensor.name: tensor.shape for tensor in (*spec.inputs, *spec.outputs)}
    _give_ranks(model, wanted)
    for value in (*(model.graph.input if inputs else ()), *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, wanted.get(value.name, ()), strict=False):
            if dim.dim_value > 0:
                continue
            if isinstance(size, int):
                dim.dim_value = size
            elif not dim.dim_param:  # neither a size nor a name, which TensorRT takes for 0
                dim.dim_param = size.name
    _open_claims(model, spec)
    return inferred(model)


def _give_ranks(model: ModelProto, wanted: Mapping[str, tuple[int | DynamicDim, ...]]) -> None:
    """Give an output that has no shape the one that follows from the graph, or that of the spec.

    So, too, one that is said to have another rank than in the spec: exporters guess that of what a Reshape makes.
    """
    outputs = [v for v in model.graph.output if v.type.HasField("tensor_type")]
    for value in outputs:
        kind = value.type.tensor_type
        if value.name in wanted and len(kind.shape.dim) != len(wanted[value.name]):
            kind.ClearField("shape")
    without = [v for v in outputs if not v.type.tensor_type.HasField("shape")]
    inferred_shapes = {v.name: v.type.tensor_type for v in infer_shapes(model).graph.output} if without else {}
    for value in without:
        if inferred_shapes[value.name].HasField("shape"):
            value.type.tensor_type.shape.CopyFrom(inferred_shapes[value.name].shape)
        for size in wanted.get(value.name, ()) if not value.type.tensor_type.HasField("shape") else ():
            dim = value.type.tensor_type.shape.dim.add()
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = size.name


def _open_claims(model: ModelProto, spec: ModelSpec) -> None:
    """Open the dimensions of outputs that the graph says are fixed, and the spec that they vary, if nothing fixes them.

    Converters of trees write a 1 there. Whether they vary as the spec says shows when the graph is run.
    """
    wanted = {tensor.name: tensor.shape for tensor in spec.outputs}
    claims = [
        (value.name, axis, dim, size.name)
        for value in model.graph.output
        for axis, (dim, size) in enumerate(
            zip(value.type.tensor_type.shape.dim, wanted.get(value.name, ()), strict=False)
        )
        if dim.dim_value and isinstance(size, DynamicDim)
    ]
    if not claims:
        return
    bare = ModelProto()
    bare.CopyFrom(model)
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    del bare.graph.value_info[:]
    known = {value.name: value.type.tensor_type.shape.dim for value in infer_shapes(bare).graph.output}
    for output, axis, dim, name in claims:
        if axis >= len(known[output]) or not known[output][axis].dim_value:
            dim.dim_param = name


def inferred(model: ModelProto) -> ModelProto:
    """Return a graph whose tensors have the types and shapes that follow from its inputs.

    What an exporter or a converter wrote down of them may be of another graph: of a batch of one, or before a Cast.
    Where onnx infers nothing, as behind operators that it does not know, the type alone is kept. `model` loses them.
    """
    noted = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    outputs = [*model.graph.output]
    for graph in subgraphs(model.graph):
        del graph.value_info[:]
    try:
        found = infer_shapes(model, data_prop=True)
    except Exception:  # it says what is wrong with the graph; so does whatever runs it, of the graph as it is
        return model
    del found.graph.output[:]  # a batch of 1 that is baked in is for whoever runs it to name the node of
    found.graph.output.extend(outputs)
    known = {value.name for value in found.graph.value_info}
    found.graph.value_info.extend(
        helper.make_tensor_value_info(name, kind, None) for name, kind in noted.items() if kind and name not in known
    )
    return found


def settled(converted: ModelProto, original: ModelProto) -> ModelProto:
    """Return what a converter made of `original` with its inputs and outputs as they were, and shapes inferred anew."""
    kinds = {v.name: v.type.tensor_type for v in (*original.graph.input, *original.graph.output)}
    for value in (*converted.graph.input, *converted.graph.output):
        if value.name in kinds and kinds[value.name].HasField("shape"):
            value.type.tensor_type.shape.CopyFrom(kinds[value.name].shape)
    return inferred(converted)


def io_tensors(model: ModelProto) -> tuple[dict[str, tuple[str, tuple[int, ...]]], ...]:
    """Return ({input: (numpy dtype, dims)}, {output: …}); a dimension that may vary is -1.

    Raises:
        GraphError: one is a sequence, a map or something else that Triton does not serve.
    """

    def tensors(values: Collection[onnx.ValueInfoProto]) -> dict[str, tuple[str, tuple[int, ...]]]:
        found = {}
        for value in values:
            if not value.type.HasField("tensor_type"):
                raise _no_tensor(value)
            kind = value.type.tensor_type
            dims = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1 for d in kind.shape.dim)
            found[value.name] = (str(np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))), dims)
        return found

    constants = {initializer.name for initializer in model.graph.initializer}
    return tensors([v for v in model.graph.input if v.name not in constants]), tensors(model.graph.output)


def _no_tensor(value: onnx.ValueInfoProto) -> GraphError:
    kind = str(value.type.WhichOneof("value"))
    note, hint = "Triton serves tensors", "export it again with tensors alone"
    if kind == "sequence_type" and value.type.sequence_type.elem_type.HasField("map_type"):
        note = "it is a map {class: probability} for each sample, which scikit-learn's ZipMap makes"
        hint = (
            "leave ZipMap out: to_onnx(model, X, options={'zipmap': False}) of skl2onnx; "
            "convert_lightgbm(…, zipmap=False) of onnxmltools"
        )
    elif kind == "sequence_type":
        hint = "let the graph give a tensor: ConcatFromSequence, or an output for each part"
    elif kind == "optional_type":
        hint = "export it again with what is optional always there, or always away"
    return GraphError(f"{value.name!r} is no tensor, but a {kind}", note=note, hint=hint)


def random_nodes(model: ModelProto) -> list[str]:
    """List the nodes that may give something else at every run: "RandomNormalLike (RandomNormalLike)"."""
    return [
        f"{node.name} ({node.op_type})"
        for graph in subgraphs(model.graph)
        for node in graph.node
        if node.op_type in _RANDOM or (node.op_type == "Dropout" and len(node.input) > 2)
    ]


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


def subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph, and the branches and bodies of every If, Loop and Scan in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from subgraphs(inner)


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


def _captured(node: NodeProto) -> set[str]:
    """Return what the branches and bodies of an If, Loop or Scan read; those may be tensors from outside."""
    bodies = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return {name for body in bodies for inner in body.node for name in (*inner.input, *_captured(inner))}
