"""Something that runs a variant on a batch: onnxruntime on the CPU, or a TensorRT plan on the GPU."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from contracts.spec import ModelSpec
from export.errors import EngineError

# inputs [B, …] -> outputs by name, each [B, …]
Runner = Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]


def onnx_runner(graph: Path, spec: ModelSpec) -> Runner:
    """Run `graph` with onnxruntime on the CPU, with the thread settings the CPU server uses (its defaults)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; the GPU build warns of every machine without one
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in spec.outputs]
    [source] = spec.inputs

    def run(batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, {source.name: batch}), strict=True))

    return run


class PlanRunner:
    """Run a TensorRT plan on the current GPU, its buffers held by PyTorch. A context manager.

    Raises:
        EngineError: the plan does not deserialize here (another TensorRT version or GPU architecture).
    """

    def __init__(self, plan: bytes, spec: ModelSpec) -> None:
        import tensorrt as trt
        import torch

        self._torch, self._spec = torch, spec
        self._engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"the plan of {spec.model} does not load on this machine",
                hint="build it here: a plan runs only on its own TensorRT version and GPU architecture",
            )
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch

    def __call__(self, batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        torch = self._torch
        [source] = self._spec.inputs
        with torch.cuda.stream(self._stream):
            buffers = {source.name: torch.from_numpy(batch).cuda(non_blocking=True)}
            self._context.set_input_shape(source.name, batch.shape)
            for output in self._spec.outputs:
                shape = tuple(self._context.get_tensor_shape(output.name))
                buffers[output.name] = torch.empty(shape, dtype=getattr(torch, output.dtype), device="cuda")
            for name, buffer in buffers.items():
                self._context.set_tensor_address(name, buffer.data_ptr())
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise EngineError(f"TensorRT could not run {self._spec.model} on a batch of {len(batch)}")
            results = {o.name: buffers[o.name].cpu().numpy() for o in self._spec.outputs}
        self._stream.synchronize()
        return results

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._context, self._engine


def predict(
    run: Runner, inputs: NDArray[Any], batch: int, advance: Callable[[int], None] = lambda n: None
) -> NDArray[Any]:
    """Logits [N, classes] of all `inputs`, `batch` at a time; `advance` is told of every batch done."""
    logits = []
    for start in range(0, len(inputs), batch):
        logits.append(run(inputs[start : start + batch])["logits"])
        advance(len(logits[-1]))
    return np.concatenate(logits)


def median_latency_ms(
    runners: Mapping[str, Runner], inputs: NDArray[Any], batches: tuple[int, ...], rounds: int = 10, burst: int = 5
) -> dict[str, dict[str, float]]:
    """Median milliseconds of one call, {runner: {batch size: ms}}.

    The runners take turns, a burst of calls each, so that a machine that slows down slows all of them. The call
    before each burst does not count: onnxruntime's threads go on spinning for a moment after a call, and those
    of the runner before would be timed too (on two cores that doubled every figure).
    """
    samples: dict[str, dict[str, list[float]]] = {name: {str(b): [] for b in batches} for name in runners}
    for _ in range(rounds):
        for batch in batches:
            chunk = np.ascontiguousarray(inputs[:batch])
            for name, run in runners.items():
                run(chunk)
                for _ in range(burst):
                    started = time.perf_counter()
                    run(chunk)
                    samples[name][str(batch)].append((time.perf_counter() - started) * 1e3)
    return {
        name: {batch: round(statistics.median(times), 4) for batch, times in by_batch.items()}
        for name, by_batch in samples.items()
    }
