"""FP16 that does not overflow: the graph, what it keeps in FP32 and why, and how its rounding is proven on a CPU.

NVIDIA's ModelOpt AutoCast converts: a node stays in FP32 when its weights or its values on real inputs leave
float16's range. What it cannot see, an error that grows in one layer, is measured here, and that layer kept too.

onnxruntime computes an FP16 graph on a CPU in float32 and drops the casts between its nodes: an overflow that
TensorRT would hit never shows. `simulate_fp16` writes the same graph so that it does: float32 arithmetic, every
FP16 tensor rounded to float16.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from contracts.samples import Batch
from export import graphs
from export.precision import autocast
from export.precision.autocast import Low
from export.proof.runners import memory_runner

_LOW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
# A layer whose relative error on samples is over this, and this many times that of what it was given, is at fault.
# Rounding to 11 bits costs 0.0005 a layer.
_LARGE_ERROR, _GROWTH = 0.02, 4.0
_ROUNDS = 5
_MEMORY = 500_000_000  # bytes of intermediate tensors to hold at a time


@dataclass(frozen=True)
class KeptLayer:
    """A layer that stays in FP32."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def convert(fp32: Path, fp16: Path, samples: Sequence[Batch], *, batched: bool = True) -> tuple[KeptLayer, ...]:
    """Write the FP16 graph of `fp32` and return what was kept in FP32 because FP16 would ruin it.

    What comes before the first and after the last heavy layer (normalising, softmax) always stays: it costs
    nothing, and it is where range and resolution matter most.

    Args:
        samples: Some tens of real inputs, in batches as the graph takes them.

    Raises:
        GraphError: ModelOpt could not convert it.
    """
    model = graphs.load(fp32)
    graphs.require_whole(model, "FP16")
    border = graphs.border_nodes(model)
    samples = _affordable(model, samples, batched=batched)
    reference = list(_tensors(model, samples))
    faults: dict[str, str] = {}
    overflows: dict[str, str] = {}
    for attempt in range(_ROUNDS + 1):
        half, reasons = autocast.converted(fp32, samples, [*border, *faults])
        half = graphs.settled(half, model)
        onnx.save(half, fp16)
        overflows = {n: reasons.get(n, "ModelOpt keeps it") for n in _in_fp32(model, half) - {*border, *faults}}
        found = _faults(model, half, reference, samples, {*border, *overflows, *faults}) if attempt < _ROUNDS else {}
        if not found:  # what still errs after the last attempt is for the gates to judge
            break
        faults |= found
    kept = overflows | faults
    return tuple(KeptLayer(n.name, kept[n.name]) for n in model.graph.node if n.name in kept)


def cast(
    graph: Path, made: Path, samples: Sequence[Batch], low: Low = "fp16", *, batched: bool = True
) -> tuple[KeptLayer, ...]:
    """Write what `graph` computes in FP32 as FP16 or BF16, as far as the range allows; return what stays in FP32.

    For BF16, which has FP32's range, and for what a Q/DQ graph leaves in FP32. Errors of layers are not looked for:
    where a value is rounded before a Q/DQ pair it may become the next of 256, which is no fault of the layer. Whether
    the whole is good enough is for the gates.

    Raises:
        GraphError: ModelOpt could not convert it.
    """
    model = graphs.load(graph)
    graphs.require_whole(model, low.upper())
    border = graphs.border_nodes(model)
    half, reasons = autocast.converted(graph, _affordable(model, samples, batched=batched), border, low)
    half = graphs.settled(half, model)
    onnx.save(half, made)
    kept = _in_fp32(model, half) - {*border}
    return tuple(
        KeptLayer(n.name, reasons.get(n.name, "ModelOpt keeps it")) for n in model.graph.node if n.name in kept
    )


def simulate_fp16(half: ModelProto) -> ModelProto:
    """Return an FP32 graph that computes what the FP16 graph `half` does, every FP16 tensor rounded to float16.

    Of a BF16 graph, every BF16 tensor rounded to bfloat16.

    Lossy casts in a float32 graph are the ones that onnxruntime does not optimise away. What it takes and gives keeps
    its type: only a Cast reads or writes that.
    """
    types, given = graphs.tensor_types(half), {value.name for value in half.graph.output}
    twin = ModelProto()
    twin.CopyFrom(half)
    for initializer in twin.graph.initializer:
        if initializer.data_type in _LOW:
            initializer.CopyFrom(_widened(initializer))
    nodes: list[NodeProto] = []
    for node in twin.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _LOW:
                attribute.t.CopyFrom(_widened(attribute.t))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _LOW:
                attribute.i = TensorProto.FLOAT
        nodes.append(node)
        for index, name in enumerate(node.output):
            if (low := types.get(name)) in _LOW:
                exact, stored = f"{name}/exact", f"{name}/rounded"
                node.output[index] = exact
                if name in given:
                    nodes.append(helper.make_node("Cast", [exact], [name], to=low))
                    continue
                nodes.append(helper.make_node("Cast", [exact], [stored], to=low))
                nodes.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    del twin.graph.node[:], twin.graph.value_info[:]
    twin.graph.node.extend(nodes)
    return twin


def _faults(
    model: ModelProto, half: ModelProto, reference: Sequence[Batch], samples: Sequence[Batch], kept: set[str]
) -> dict[str, str]:
    """Find the layers in which the error of the FP16 graph jumps: {name: what is wrong}."""
    error: dict[str, float] = {}
    rounded = _tensors(simulate_fp16(half), samples, like=reference[0])
    for tensors, right in zip(rounded, reference, strict=True):
        for name, values in tensors.items():
            error[name] = max(error.get(name, 0.0), _relative_error(values, right[name]))
    producer = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, str] = {}
    for node in model.graph.node:
        given = max((error.get(name, 0.0) for name in node.input), default=0.0)
        made = max((error.get(name, 0.0) for name in node.output), default=0.0)
        if made <= _LARGE_ERROR or made <= _GROWTH * given:
            continue
        # A kept layer that still errs was given too little: a variance whose squares were rounded, say.
        at_fault = [n for n in _above(node, producer) if n.name not in kept] if node.name in kept else [node]
        reason = "inf or nan in float16" if np.isinf(made) else f"{made:.1%} error in float16"
        found |= {n.name: reason for n in at_fault}
    return found


def _above(node: NodeProto, producer: Mapping[str, NodeProto]) -> list[NodeProto]:
    """Return everything that `node` was computed from, up to the heavy layers before it."""
    above: dict[str, NodeProto] = {}
    waiting = [node]
    while waiting:
        for name in waiting.pop().input:
            source = producer.get(name)
            if source is not None and source.op_type not in graphs.HEAVY and source.name not in above:
                above[source.name] = source
                waiting.append(source)
    return list(above.values())


def _in_fp32(model: ModelProto, half: ModelProto) -> set[str]:
    """Return the layers of the FP32 graph `model` that compute in FP32 in `half` as well."""

    def computing(graph: ModelProto) -> set[str]:
        types = graphs.tensor_types(graph)
        return {n.name for n in graph.graph.node if any(types.get(o) == TensorProto.FLOAT for o in n.output)}

    return computing(model) & computing(half)


def _tensors(
    model: ModelProto, samples: Sequence[Batch], like: Batch | None = None
) -> Iterator[dict[str, NDArray[Any]]]:
    """Compute every float32 tensor that the nodes of `model` make, or those that `like` has: of each batch in turn."""
    types = graphs.tensor_types(model)
    made = [name for node in model.graph.node for name in node.output]
    wanted = [n for n in made if (n in like if like is not None else types.get(n) == TensorProto.FLOAT)]
    run = memory_runner(graphs.with_outputs(model, wanted), wanted)
    return (dict(run(batch)) for batch in samples)


def _affordable(model: ModelProto, samples: Sequence[Batch], *, batched: bool) -> list[Batch]:
    """Return as many of `samples` as have their intermediate tensors in memory together, of each batch some."""
    ones = [{name: values[:1] for name, values in batch.items()} if batched else batch for batch in samples]
    costs = [max(1, sum(t.nbytes for t in tensors.values())) for tensors in _tensors(model, ones)]
    if not batched:
        return list(samples[: max(1, _MEMORY // max(costs))])
    share = _MEMORY // len(samples)
    return [
        {name: values[: max(1, share // cost)] for name, values in batch.items()}
        for batch, cost in zip(samples, costs, strict=True)
    ]


def _relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the RMS difference as a share of the expected RMS; infinite where it is not a number."""
    if not np.isfinite(found).all():
        return float("inf") if np.isfinite(expected).all() else 0.0
    scale = float(np.sqrt(np.square(expected, dtype=np.float64).mean())) if expected.size else 0.0
    difference = np.subtract(found, expected, dtype=np.float64)
    return float(np.sqrt(np.square(difference).mean())) / scale if scale else 0.0


def _widened(tensor: TensorProto) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
