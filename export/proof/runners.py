"""Something that runs a variant on a batch: onnxruntime on the CPU. A TensorRT plan is plan_runner's."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from contracts.samples import Batch, Group, Split
from export.errors import GraphError, RunError
from export.proof import blame

Runner = Callable[[Batch], Batch]


def onnx_runner(graph: Path, outputs: Sequence[str], *, fused: bool = True) -> Runner:
    """Open `graph` in onnxruntime on the CPU, with the thread settings the CPU server uses (its defaults).

    Args:
        fused: Compute in 8 bits between Q/DQ pairs. Without, a pair rounds and the arithmetic is float32: all that
            onnxruntime can do with FP8, whose graphs it otherwise refuses, or answers wrong.

    Raises:
        GraphError: onnxruntime does not load it. The runner raises a RunError where a node fails.
    """
    return _session_runner(graph, outputs, fused)


def memory_runner(model: ModelProto, outputs: Sequence[str], *, fused: bool = True) -> Runner:
    """Open a graph that is not on disk in the same way."""
    return _session_runner(model.SerializeToString(), outputs, fused)


def _session_runner(graph: Path | bytes, outputs: Sequence[str], fused: bool) -> Runner:
    session, names = _session(graph, fused=fused), list(outputs)

    def run(batch: Batch) -> Batch:
        if not names:  # onnxruntime would give all
            return {}
        try:
            return dict(zip(names, session.run(names, dict(batch)), strict=True))
        except Exception as error:
            if not blame.is_the_runtimes(error):
                raise
            again = partial(_run_plainly, names=names, batch=batch)
            raise blame.not_run(graph, error, batch, again) from error

    return run


def _session(graph: Path | bytes, *, fused: bool = True, plainly: bool = False) -> Any:
    """Open a session.

    Args:
        plainly: Optimise nothing, so that every node runs, and fails, under its own name.

    Raises:
        GraphError: onnxruntime does not load the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # The next level takes a Relu before an FP8 pair for a part of the pair, and leaves it out (1.24).
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if plainly:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what fails is told as an error; the GPU build warns of every machine without one
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not blame.is_the_runtimes(error):
            raise
        raise blame.not_loaded(graph if isinstance(graph, Path) else None, error) from error


def _run_plainly(graph: bytes, *, names: Sequence[str], batch: Batch) -> None:
    _session(graph, plainly=True).run(list(names), dict(batch))


def predict(run: Runner, split: Split, batch: int, advance: Callable[[int], None] = lambda n: None) -> list[Batch]:
    """Run all samples of a split; `advance` is told of every batch done.

    Args:
        batch: How many samples of a group at a time; 0: each alone, as a network without a batch takes it.

    Returns:
        The outputs of each group, [n, …]; for 0 those of each sample, as they are.

    Raises:
        GraphError: it does not run, or an output has not as many rows as the batch.
    """
    if batch == 0:
        alone = []
        for sample in split.batches(0):
            alone.append(run(sample))
            advance(1)
        return alone
    return [_of_group(run, group, batch, advance) for group in split.groups]


def _of_group(run: Runner, group: Group, batch: int, advance: Callable[[int], None]) -> Batch:
    parts: list[Batch] = []
    for inputs in Split((group,)).batches(batch):
        count, outputs = length(inputs), _run_batch(run, inputs)
        for name, values in outputs.items():
            if values.shape[:1] != (count,):
                raise GraphError(
                    f"the output {name!r} is {list(values.shape)} for a batch of {count}, not a row for each sample",
                    hint="export the graph again with a dynamic batch, or say batch = false in the spec",
                )
            if parts and values.shape[1:] != (before := parts[0][name].shape[1:]):
                raise GraphError(
                    f"a row of the output {name!r} is {list(before)} in one batch, and {list(values.shape[1:])} in "
                    "another: the answer to a sample depends on how many there are",
                    hint="say batch = false in the spec, or give it rows of their own: no product over the batch",
                )
        parts.append(outputs)
        advance(count)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _run_batch(run: Runner, inputs: Batch) -> Batch:
    try:
        return run(inputs)
    except RunError as error:
        if length(inputs) == 1:
            raise
        try:
            run({name: values[:1] for name, values in inputs.items()})
        except RunError:
            raise error from None
        raise blame.baked_in(error, length(inputs)) from error


def length(batch: Batch) -> int:
    """Return the number of samples in a batch."""
    return len(next(iter(batch.values())))
