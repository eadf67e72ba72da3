"""The network itself in PyTorch on the GPU, without TensorRT: is the GPU's arithmetic what was proven on a CPU?

A rehearsal does the same on the CPU, where it shows that the comparison runs.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_day.checks import gpu_timing, offline
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError
from contracts.samples import Batch
from contracts.spec import Precision
from export import graphs
from export.context import ENDS, ExportContext
from export.precision.fp16 import simulate_fp16
from export.proof import gates
from export.proof.compare import Comparison, compare
from export.proof.runners import Runner, memory_runner, predict
from export.source.base import fitted
from export.source.served_module import ServedModule, evaluating
from export.steps import fp32_graph, half_graph


def fp32(day: Day, record: Record) -> None:
    """Hold FP32 on the GPU, TF32 off, to the limits that the FP32 graph is held to."""
    context = offline.context(day)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    _hold(context, "fp32", _runner(context, _device(day), None), record)
    if day.device == "gpu":  # what the plans are built without, as a figure
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        with_tf32 = _compared(context, _runner(context, "cuda", None))
        record.figure(with_tf32=_differences(with_tf32))


def fp16(day: Day, record: Record) -> None:
    """Hold FP16 on the GPU to the spec's limits, and to our emulation of it, on the whole held-out split.

    Raises:
        SkippedError: the spec has no limits for FP16.
    """
    context = offline.context(day)
    if "fp16" not in context.source.spec.limits:
        raise SkippedError(f"the spec of {context.source.spec.model} has no limits for fp16")
    on_gpu = _runner(context, _device(day), torch.float16)
    _hold(context, "fp16", on_gpu, record)
    half, _ = half_graph(context, "fp16", fp32_graph(context))
    emulated = memory_runner(simulate_fp16(graphs.load(half)), context.outputs)
    spec, held_out = context.source.spec, context.source.held_out
    size = spec.max_batch
    found, ours = predict(on_gpu, held_out, size), predict(emulated, held_out, size)
    apart = compare(found, ours, spec, held_out.targets)
    record.figure(from_our_emulation=_differences(apart))
    proofs = gates.check(spec, "fp16", context.judged("held-out"), replace(apart, scores=None), {})
    for gate in (gate for gate in proofs if "_difference:" in gate.id):
        record.check(f"from our emulation: {gate.name}", gate.passed, f"{gate.figure:.3g}, {gate.bound} {gate.limit:g}")


def timing(day: Day, record: Record) -> None:
    """Time FP32 and FP16 by the harness, between events, and as replays of a CUDA graph."""
    context, device, rows = offline.context(day), _device(day), []
    for name, dtype in (("fp32", None), ("fp16", torch.float16)):
        served = _served(context).to(device)
        run = _runner(context, device, dtype, served)
        for batch, inputs in _batches(context).items():
            resident = [torch.from_numpy(np.array(inputs[t.name])).to(device) for t in context.source.spec.inputs]
            compute = _computing(served, resident, dtype, device)
            ways = gpu_timing.three_ways(lambda run=run, inputs=inputs: run(inputs), compute)  # type: ignore[misc]
            share = round(ways.harness_over_graph, 1)
            rows.append({"precision": name, "rows": batch, **asdict(ways), "harness over graph": share})
    record.figure(times=rows)
    record.check("the network could be captured as a CUDA graph", all(row["graph_ms"] is not None for row in rows))
    shares = ", ".join(f"{row['precision']} at {row['rows']}: {row['harness over graph']}×" for row in rows)
    record.check("timed three ways; harness against graph replay", True, shares)


def _batches(context: ExportContext) -> dict[int, Batch]:
    """Return {batch size: inputs}: one sample, what the engine is tuned for, and the most it takes."""
    spec, inputs = context.source.spec, context.source.held_out.groups[0].inputs
    if not spec.batched:
        return {1: {name: values[0] for name, values in inputs.items()}}
    return {
        size: {name: fitted(values, (size, *values.shape[1:])) for name, values in inputs.items()}
        for size in spec.batch_sizes
    }


def _device(day: Day) -> str:
    """Return where PyTorch computes.

    Raises:
        SkippedError: on a GPU, and PyTorch sees none.
    """
    if day.device == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise SkippedError(f"PyTorch {torch.__version__} sees no GPU: is it a build for the CPU?")
    return "cuda"


def _served(context: ExportContext) -> ServedModule:
    if context.source.module is None:
        raise SkippedError("a graph was brought: there is no PyTorch module of it")
    return ServedModule.of(context.source.module(), context.source.spec).eval()


def _runner(
    context: ExportContext, device: str, dtype: torch.dtype | None, served: ServedModule | None = None
) -> Runner:
    """Make a runner of the module on a device, from and to the host; with a dtype by PyTorch's autocast."""
    spec = context.source.spec
    module = (served or _served(context)).to(device)

    def run(batch: Batch) -> Batch:
        inputs = [torch.from_numpy(np.array(batch[tensor.name])).to(device) for tensor in spec.inputs]
        outputs = _computing(module, inputs, dtype, device)()
        return {t.name: o.to(getattr(torch, t.dtype)).cpu().numpy() for t, o in zip(spec.outputs, outputs, strict=True)}

    return run


def _computing(
    module: ServedModule, inputs: list[torch.Tensor], dtype: torch.dtype | None, device: str
) -> Callable[[], tuple[torch.Tensor, ...]]:
    def compute() -> tuple[torch.Tensor, ...]:
        # No cache of cast weights: a graph would hold on to what is freed.
        cast = torch.autocast(device, dtype or torch.float16, enabled=dtype is not None, cache_enabled=False)
        with evaluating(), cast:
            outputs: tuple[torch.Tensor, ...] = module(*inputs)
        return outputs

    return compute


def _hold(context: ExportContext, precision: Precision, run: Runner, record: Record) -> None:
    """Check it by the gates that a graph of this precision goes through."""
    source = context.source
    held_out = _compared(context, run)
    others = {
        f"shapes at their {end}": compare(
            predict(run, source.inputs_at(end), source.spec.max_batch), context.reference[end], source.spec
        )
        for end in ENDS
    }
    record.figure(**{f"{precision}_from_the_reference": _differences(held_out)})
    for gate in gates.check(source.spec, precision, context.judged("held-out"), held_out, others):
        record.check(gate.name, gate.passed, f"{gate.figure:.5g}, {gate.bound} {gate.limit:g}")


def _compared(context: ExportContext, run: Runner) -> Comparison:
    source = context.source
    outputs = predict(run, source.held_out, source.spec.max_batch)
    return compare(outputs, context.reference["held-out"], source.spec, source.held_out.targets)


def _differences(comparison: Comparison) -> list[dict[str, Any]]:
    return [{"output": output, **asdict(found)} for output, found in comparison.differences.items()]
