"""Which convolutions and matrix products a quantizer left in FP32, and why, for who wonders where the 8 bits are."""

from collections.abc import Mapping

from onnx import ModelProto, NodeProto, TensorProto

from export import graphs
from export.precision import int8

# ModelOpt's, for matrix products and for the channels of convolutions: below, the kernels of 8 bits are slower.
_FEWEST = 16


def reasons(model: ModelProto) -> list[str]:
    """List the heavy layers of a Q/DQ graph that do not read 8 bits, each with the reason: "fc (Gemm): …"."""
    quantized = set(int8.quantized_layers(model))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        f"{node.name} ({node.op_type}): {_reason(node, weights)}"
        for node in model.graph.node
        if node.op_type in graphs.HEAVY and node.name not in quantized
    ]


def _reason(node: NodeProto, weights: Mapping[str, TensorProto]) -> str:
    found = [weights[name] for name in node.input[:2] if name in weights]
    if not found:
        return "both of its operands are computed"
    dims = list(found[0].dims)
    if len(dims) < 2 or min(dims[:2]) < _FEWEST:
        shape = " × ".join(map(str, dims))
        return f"its weights are {shape}, and quantizers leave what has fewer than {_FEWEST} channels or columns"
    return "the quantizer, or the recipe, left it in FP32"
