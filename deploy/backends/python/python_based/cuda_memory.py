"""Memory for one tensor on its way to the GPU or back: a pinned half on the host and one on the device.

Both are kept from run to run and grow when a larger tensor comes: allocating takes longer than small models run.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda.bindings import runtime
from numpy.typing import NDArray

from python_based.errors import ModelError


def check_cuda(result: tuple[Any, ...]) -> Any:
    """Return what a CUDA call gave.

    Raises:
        ModelError: it failed, with CUDA's reason.
    """
    error, *values = result
    if error != runtime.cudaError_t.cudaSuccess:
        raise ModelError(f"CUDA: {runtime.cudaGetErrorString(error)[1].decode()}")
    return values[0] if values else None


def compute_capability(device: int) -> str:
    """Return a GPU's compute capability, "9.0"."""
    attribute = runtime.cudaDeviceAttr
    parts = (attribute.cudaDevAttrComputeCapabilityMajor, attribute.cudaDevAttrComputeCapabilityMinor)
    return ".".join(str(check_cuda(runtime.cudaDeviceGetAttribute(part, device))) for part in parts)


class HostDeviceBuffer:
    """Host and device memory of one tensor."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.device = 0  # address
        self._dtype = np.dtype(dtype)
        self._host = 0
        self._capacity_bytes = 0

    def host(self, shape: Sequence[int]) -> NDArray[Any]:
        """Return the host's half as an array of that shape, valid until the next call; both halves are made to fit."""
        self._reserve(max(math.prod(shape) * self._dtype.itemsize, 1))  # TensorRT wants an address for nothing, too
        memory: Any = (ctypes.c_uint8 * self._capacity_bytes).from_address(self._host)
        return np.ndarray(shape, self._dtype, memory)

    def to_device(self, values: NDArray[Any], stream: Any) -> None:
        """Start copying `values`, an array of `host`, to the device."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        check_cuda(runtime.cudaMemcpyAsync(self.device, self._host, values.nbytes, kind, stream))

    def to_host(self, values: NDArray[Any], stream: Any) -> None:
        """Start copying from the device into `values`, an array of `host`."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check_cuda(runtime.cudaMemcpyAsync(self._host, self.device, values.nbytes, kind, stream))

    def _reserve(self, size_bytes: int) -> None:
        if size_bytes <= self._capacity_bytes:
            return
        self._capacity_bytes = 0  # should one of the calls fail
        if self._host:
            check_cuda(runtime.cudaFreeHost(self._host))
        if self.device:
            check_cuda(runtime.cudaFree(self.device))
        self._host = self.device = 0
        self._host = check_cuda(runtime.cudaMallocHost(size_bytes))
        self.device = check_cuda(runtime.cudaMalloc(size_bytes))
        self._capacity_bytes = size_bytes
