"""A TensorRT plan on the GPU: its answers, and its time there as Triton runs it.

Triton keeps inputs and outputs in GPU memory and, where config.pbtxt asks for CUDA graphs, launches a plan as one. So
a plan is timed as replays of a captured graph between two events, on buffers that stay where they are. A call from
Python with its copies takes many times as long as a small engine computes, and would decide between two by noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from contracts.samples import Batch
from contracts.spec import ModelSpec
from export.errors import EngineError
from export.proof import engine

GRAPH, LAUNCHES = "replays of a CUDA graph", "launches, as no CUDA graph could be captured"
# As many between two events: an event is told in half microseconds, and a replay may take ten.
_REPLAYS = 20


@dataclass(frozen=True)
class _Resident:
    """A batch on the GPU, with the outputs it gives, and what computes these once more."""

    buffers: Mapping[str, Any]  # torch tensors; the addresses are in the graph
    again: Callable[[], None]


class PlanRunner:
    """A TensorRT plan on the current GPU, its buffers held by PyTorch. A Runner and a context manager.

    Attributes:
        how: What `gpu_ms` times: GRAPH, or LAUNCHES if a batch could not be captured.

    Raises:
        EngineError: the plan does not deserialize here (another TensorRT version or GPU architecture).
    """

    def __init__(self, plan: bytes, spec: ModelSpec) -> None:
        import torch

        self.how = GRAPH
        self._torch, self._spec, self._trt = torch, spec, engine.load("tensorrt")
        log = self._trt.Logger(self._trt.Logger.ERROR)
        self._runtime = self._trt.Runtime(log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"the plan of {spec.model} does not load on this machine",
                hint="build it here: a plan runs only on its own TensorRT version and GPU architecture",
            )
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch
        self._timed: dict[int, _Resident] = {}

    def __call__(self, batch: Batch) -> Batch:
        """Run one batch from and to memory of the host.

        Raises:
            EngineError: its shapes are outside of the optimization profile, or TensorRT could not run it.
        """
        torch = self._torch
        with torch.cuda.stream(self._stream):
            buffers = self._placed(batch)
            self._enqueue(batch)
            results = {o.name: buffers[o.name].cpu().numpy() for o in self._spec.outputs}
        self._stream.synchronize()
        return results

    def gpu_ms(self, batch: Batch) -> float:
        """Return how long the GPU takes to compute one batch that lies in its memory, of some in a row.

        A batch is put there and captured the first time that it is given; the same object is taken for the same batch.

        Raises:
            EngineError: as a call.
        """
        torch = self._torch
        if id(batch) not in self._timed:
            self._timed[id(batch)] = self._captured(batch)
        resident = self._timed[id(batch)]
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self._stream):
            start.record(self._stream)
            for _ in range(_REPLAYS):
                resident.again()
            end.record(self._stream)
        end.synchronize()
        return float(start.elapsed_time(end)) / _REPLAYS

    def inspect(self) -> str:
        """Return what TensorRT's engine inspector says of every layer, as JSON."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timed.clear()  # graphs first: they point into the context
        del self._context, self._engine, self._runtime

    def _placed(self, batch: Batch) -> dict[str, Any]:
        """Copy a batch to the GPU, make room for its outputs, and give TensorRT the addresses of both."""
        torch = self._torch
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
        return buffers

    def _enqueue(self, batch: Batch) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise EngineError(f"TensorRT could not run {self._spec.model} on {_shapes(batch)}")

    def _captured(self, batch: Batch) -> _Resident:
        """Put a batch into GPU memory and capture its computation, as Triton does: after one run that sets up.

        A graph has its shapes and addresses in it, so that one execution context serves every size in turn.
        """
        torch = self._torch
        with torch.cuda.stream(self._stream):
            buffers = self._placed(batch)
            self._enqueue(batch)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._enqueue(batch)
        except (RuntimeError, EngineError):  # loops, or shapes that depend on values: Triton launches these, too
            self.how = LAUNCHES
            return _Resident(buffers, lambda: self._launched(batch, buffers))
        return _Resident(buffers, graph.replay)

    def _launched(self, batch: Batch, buffers: Mapping[str, Any]) -> None:
        for name, values in batch.items():
            self._context.set_input_shape(name, values.shape)
        for name, buffer in buffers.items():
            self._context.set_tensor_address(name, buffer.data_ptr())
        self._enqueue(batch)


def _shapes(batch: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {list(values.shape)}" for name, values in batch.items())
