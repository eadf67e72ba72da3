"""Something that runs a variant on a batch: onnxruntime on the CPU, or a TensorRT plan on the GPU."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from contracts.samples import Batch, Group, Split
from contracts.spec import ModelSpec
from export.errors import EngineError, GraphError

Runner = Callable[[Batch], Batch]


def onnx_runner(graph: Path, outputs: Sequence[str]) -> Runner:
    """Open `graph` in onnxruntime on the CPU, with the thread settings the CPU server uses (its defaults)."""
    return _session_runner(graph, outputs)


def memory_runner(model: ModelProto, outputs: Sequence[str]) -> Runner:
    """Open a graph that is not on disk in the same way."""
    return _session_runner(model.SerializeToString(), outputs)


def _session_runner(graph: Path | bytes, outputs: Sequence[str]) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; the GPU build warns of every machine without one
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = list(outputs)

    def run(batch: Batch) -> Batch:
        return dict(zip(names, session.run(names, dict(batch)), strict=True))

    return run


class PlanRunner:
    """A TensorRT plan on the current GPU, its buffers held by PyTorch. A Runner and a context manager.

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

    def __call__(self, batch: Batch) -> Batch:
        """Run one batch.

        Raises:
            EngineError: its shapes are outside of the optimization profile, or TensorRT could not run it.
        """
        torch = self._torch
        with torch.cuda.stream(self._stream):
            # Contiguous: TensorRT reads the bytes in order, whatever strides numpy had for them.
            whole = {name: np.ascontiguousarray(values) for name, values in batch.items()}
            buffers = {name: torch.from_numpy(values).cuda(non_blocking=True) for name, values in whole.items()}
            for name, values in whole.items():
                if not self._context.set_input_shape(name, values.shape):
                    raise EngineError(f"{_shapes(batch)} is outside of the optimization profile of {self._spec.model}")
            for output in self._spec.outputs:
                shape = tuple(self._context.get_tensor_shape(output.name))
                if min(shape, default=0) < 0:
                    raise EngineError(f"the shape of {output.name!r} depends on values, which is not supported")
                buffers[output.name] = torch.empty(shape, dtype=getattr(torch, output.dtype), device="cuda")
            for name, buffer in buffers.items():
                self._context.set_tensor_address(name, buffer.data_ptr())
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise EngineError(f"TensorRT could not run {self._spec.model} on {_shapes(batch)}")
            results = {o.name: buffers[o.name].cpu().numpy() for o in self._spec.outputs}
        self._stream.synchronize()
        return results

    def inspect(self) -> str:
        """Return what TensorRT's engine inspector says of every layer, as JSON."""
        import tensorrt as trt

        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._context, self._engine


def predict(run: Runner, split: Split, batch: int, advance: Callable[[int], None] = lambda n: None) -> list[Batch]:
    """Run all samples of a split; `advance` is told of every batch done.

    Args:
        batch: How many samples of a group at a time; 0: each alone, as a network without a batch takes it.

    Returns:
        The outputs of each group, [n, …]; for 0 those of each sample, as they are.

    Raises:
        GraphError: an output has not as many rows as the batch.
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
        count, outputs = length(inputs), run(inputs)
        for name, values in outputs.items():
            if values.shape[:1] != (count,):
                raise GraphError(
                    f"the output {name!r} is {list(values.shape)} for a batch of {count}, not a row for each sample",
                    hint="export the graph again with a dynamic batch, or say batch = false in the spec",
                )
        parts.append(outputs)
        advance(count)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def length(batch: Batch) -> int:
    """Return the number of samples in a batch."""
    return len(next(iter(batch.values())))


def _shapes(batch: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {list(values.shape)}" for name, values in batch.items())
