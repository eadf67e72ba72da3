"""What one answer of a trained model costs, to compare the trials of a search by.

It is the processor time of ONNX Runtime for one sample, on one thread, in this process: of the medians of bursts the
lower quartile, as what else runs on the machine only ever adds to it. What a server takes for a request is measured
by `python -m export` and `python -m benchmarks`, and is more.
"""

import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from contracts.samples import Batch, Split
from contracts.spec import ModelSpec
from training.families import Estimator

_BURSTS, _CALLS = 200, 5  # the call before each burst does not count
_SAMPLES = 20  # different ones
_FEWEST, _BUDGET_S = 10, 3.0  # bursts, where calls are slow
_PAUSE_S = 0.005  # a neighbour that takes half of the core for a moment shall not meet all of them
_OPSET = 18


def of_network(served: nn.Module, split: Split, spec: ModelSpec) -> float:
    """Return milliseconds a sample of the module that a family serves."""
    samples = _samples(split, spec)
    inputs = tuple(torch.from_numpy(samples[0][tensor.name]) for tensor in spec.inputs)
    names = [tensor.name for tensor in spec.inputs]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            served.cpu().eval(), inputs, path, input_names=names, opset_version=_OPSET, dynamo=True, verbose=False
        )
        return _quartile_ms(path, samples)


def of_estimator(estimator: Estimator, split: Split, spec: ModelSpec) -> float:
    """Return milliseconds a sample of a fitted estimator's graph."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        estimator.write_graph(path)
        return _quartile_ms(path, _samples(split, spec))


def _samples(split: Split, spec: ModelSpec) -> list[Batch]:
    size = 1 if spec.batched else 0
    return [
        {name: np.ascontiguousarray(values) for name, values in batch.items()}
        for batch in split.first(_SAMPLES).batches(size)
    ]


def _quartile_ms(path: Path, samples: list[Batch]) -> float:
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    known = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    # A graph of fixed shapes takes samples of the first one's shapes alone.
    fitting = [sample for sample in samples if all(_fits(sample[name], shape) for name, shape in known.items())]
    medians: list[float] = []
    deadline = time.monotonic() + _BUDGET_S
    while len(medians) < _BURSTS and (len(medians) < _FEWEST or time.monotonic() < deadline):
        sample = fitting[len(medians) % len(fitting)]
        medians.append(_burst_ns(session, {name: sample[name] for name in known}))
        time.sleep(_PAUSE_S)
    return float(np.percentile(medians, 25)) / 1e6


def _burst_ns(session: Any, feed: Batch) -> float:
    times = []
    for _ in range(_CALLS + 1):
        begun = time.thread_time_ns()
        session.run(None, feed)
        times.append(time.thread_time_ns() - begun)
    return statistics.median(times[1:])


def _fits(values: Any, shape: list[Any]) -> bool:
    return all(not isinstance(size, int) or size == length for size, length in zip(shape, values.shape, strict=True))
