"""A TensorRT engine on one GPU, with an execution context, a stream and memory of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorrt as trt
from cuda.bindings import runtime
from numpy.typing import NDArray

from python_based import fit, plans
from python_based.batching import Feed
from python_based.config import ModelConfig
from python_based.cuda_memory import HostDeviceBuffer, check_cuda, compute_capability
from python_based.errors import ModelError, RequestError

_DTYPES: dict[str, tuple[str, type[np.generic]]] = {  # TensorRT's: Triton's and numpy's
    "BOOL": ("BOOL", np.bool_),
    "UINT8": ("UINT8", np.uint8),
    "INT8": ("INT8", np.int8),
    "INT32": ("INT32", np.int32),
    "INT64": ("INT64", np.int64),
    "HALF": ("FP16", np.float16),
    "BF16": ("BF16", np.uint16),  # its bits
    "FLOAT": ("FP32", np.float32),
}


class Engine:
    """The engine of the plan that the configuration names for this GPU.

    Raises:
        ModelError: there is no such plan, this TensorRT or GPU cannot load it, or config.pbtxt does not fit it.
    """

    def __init__(self, config: ModelConfig) -> None:
        check_cuda(runtime.cudaSetDevice(config.device))
        file, plan = plans.read(config, compute_capability(config.device), trt.__version__)
        self._log = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ModelError(f"TensorRT {trt.__version__} cannot load {file}; the server's log has its reasons")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._outputs = [n for n in names if n not in self._inputs]
        found = {name: self._described(name) for name in names}
        fit.require(config, file, {n: found[n] for n in self._inputs}, {n: found[n] for n in self._outputs})
        profile = self._profile(config, file)
        self._limits = {name: self._engine.get_tensor_profile_shape(name, profile) for name in self._inputs}
        for name, (_, _, largest) in self._limits.items():
            if config.max_batch_size and config.max_batch_size > largest[0]:
                raise ModelError(f"max_batch_size is {config.max_batch_size}, {file} takes {largest[0]} of {name!r}")
        self._memory = {name: HostDeviceBuffer(_DTYPES[self._dtype(name)][1]) for name in names}
        self._stream = check_cuda(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self._context = self._engine.create_execution_context()
        if not self._context.set_optimization_profile_async(profile, self._stream):
            raise ModelError(f"{file} does not run with optimization profile {profile}")
        check_cuda(runtime.cudaStreamSynchronize(self._stream))

    def run(self, feeds: Sequence[Feed], wanted: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Run all feeds as one batch; return the wanted outputs, which the next run overwrites.

        Raises:
            RequestError: a shape is outside of the optimization profile.
            ModelError: TensorRT or CUDA failed.
        """
        for name in self._inputs:
            self._feed(name, [feed[name] for feed in feeds])
        results = {name: self._room_for(name) for name in self._outputs}
        if not self._context.execute_async_v3(self._stream):
            raise ModelError("TensorRT could not run the batch")
        for name in wanted:
            self._memory[name].to_host(results[name], self._stream)
        check_cuda(runtime.cudaStreamSynchronize(self._stream))
        return [results[name] for name in wanted]

    def _feed(self, name: str, parts: Sequence[NDArray[Any]]) -> None:
        """Put the requests one after another into pinned memory, and send that on its way."""
        shape = parts[0].shape if len(parts) == 1 else (sum(map(len, parts)), *parts[0].shape[1:])
        smallest, _, largest = map(tuple, self._limits[name])
        if not all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            raise RequestError(f"input {name!r} is {list(shape)}; the engine takes {list(smallest)} to {list(largest)}")
        memory = self._memory[name]
        joined = memory.host(shape)
        if len(parts) == 1:
            joined[...] = parts[0]
        else:
            np.concatenate(parts, out=joined)
        memory.to_device(joined, self._stream)
        if not self._context.set_input_shape(name, shape):
            raise ModelError(f"TensorRT refused the shape {list(shape)} of input {name!r}")
        self._context.set_tensor_address(name, memory.device)

    def _room_for(self, name: str) -> NDArray[Any]:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise ModelError(f"the shape of output {name!r} depends on values, which this backend does not support")
        room = self._memory[name].host(shape)
        self._context.set_tensor_address(name, self._memory[name].device)
        return room

    def _dtype(self, name: str) -> str:
        return str(self._engine.get_tensor_dtype(name)).removeprefix("DataType.")

    def _described(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return a tensor's dtype as Triton calls it, and its dimensions."""
        dtype = self._dtype(name)
        if self._engine.is_shape_inference_io(name) or dtype not in _DTYPES:
            raise ModelError(f"{name!r} is a shape tensor or of type {dtype}, which this backend does not support")
        if self._engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
            raise ModelError(f"{name!r} is not laid out in order, which this backend does not support")
        return _DTYPES[dtype][0], tuple(self._engine.get_tensor_shape(name))

    def _profile(self, config: ModelConfig, file: str) -> int:
        """Return the index of the optimization profile that the instance groups name, 0 if none does."""
        named = {name for group in config.profiles for name in group or ("0",)}
        if len(named) > 1:
            raise ModelError(f"instance_group: profiles {', '.join(sorted(named))}; this backend takes one for all")
        index = named.pop() if named else "0"
        if not index.isdecimal() or int(index) >= self._engine.num_optimization_profiles:
            raise ModelError(f"instance_group: {file} has no optimization profile {index!r}")
        return int(index)
