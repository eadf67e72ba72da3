"""BF16 tensors as arrays of their bits: neither numpy nor the Python backend's own arrays have such a type.

The Python backend hands BF16 tensors over as DLPack only, and onnxruntime is what speaks it here.
"""

import ctypes
import math
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort  # its public OrtValue leaves DLPack out

_ONNX_BFLOAT16 = 16
_CPU = ort.OrtDevice(ort.OrtDevice.cpu(), ort.OrtDevice.default_memory(), 0)


def bits_of(tensor: Any) -> NDArray[np.uint16]:
    """Return the bits of one of Triton's tensors, not copied."""
    return view_of(ort.OrtValue.from_dlpack(tensor.to_dlpack(), False))


def tensor_of(name: str, bits: NDArray[np.uint16]) -> Any:
    """Make one of Triton's tensors with these bits. Copied: the tensor would not keep numpy's memory alive."""
    value = ort.OrtValue.ortvalue_from_shape_and_onnx_type(bits.shape, _ONNX_BFLOAT16, _CPU)
    view_of(value)[...] = bits
    return pb_utils.Tensor.from_dlpack(name, value.to_dlpack())


def view_of(value: Any) -> NDArray[np.uint16]:
    """Return the memory of an OrtValue of onnxruntime's C interface; alive as long as the array is."""
    memory = (ctypes.c_uint16 * math.prod(value.shape())).from_address(value.data_ptr())
    memory.owner = value  # the array holds on to `memory`, and that to the tensor
    return np.ndarray(value.shape(), np.uint16, memory)
