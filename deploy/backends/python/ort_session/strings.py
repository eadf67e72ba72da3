"""Strings that need not be UTF-8, in and out of onnxruntime: its Python interface has `str` alone.

Triton's BYTES are any bytes, and the native backend hands them on as they are. So do these, by two ways around the
interface: a constant of a graph may be any bytes, so values come from a graph that is nothing but its constant, made
here (1.4 ms); and a value's memory is an array of C++ strings, which is read. `check` sees whether it is so.
"""

import ctypes
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from python_based.errors import ModelError

_STRING = 8  # onnx.TensorProto.STRING
_WORDS = 4  # of a std::string of libstdc++: where its bytes are, how many, and 16 bytes for short ones


def check() -> None:
    """See whether strings come back as they went in.

    Raises:
        ModelError: this onnxruntime was built otherwise.
    """
    texts = np.array([b"", b"\xff short", b"\0 longer than what fits into the object itself"], np.object_)
    if bytes_of(value_of(texts)).tolist() != texts.tolist():
        raise ModelError(f"onnxruntime {ort.__version__} holds its strings in a way that is not known")


def value_of(texts: NDArray[np.object_]) -> ort.OrtValue:
    """Make a value of onnxruntime's out of bytes objects of any shape; out of `str`, too, which it gives as results."""
    encoded = [text.encode() if isinstance(text, str) else text for text in texts.ravel()]
    dims = b"".join(_number(1, dim) for dim in texts.shape)
    constant = dims + _number(2, _STRING) + b"".join(_field(6, text) for text in encoded) + _field(8, b"x")
    shape = b"".join(_field(1, _number(1, dim)) for dim in texts.shape)
    output = _field(1, b"x") + _field(2, _field(1, _number(1, _STRING) + _field(2, shape)))
    graph = _field(2, b"constant") + _field(5, constant) + _field(12, output)
    model = _number(1, 8) + _field(8, _number(2, 17)) + _field(7, graph)  # IR version 8, opset 17
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run_with_ort_values(["x"], {})[0]


def bytes_of(value: ort.OrtValue) -> NDArray[np.object_]:
    """Read a value of onnxruntime's as bytes objects."""
    shape = value.shape()
    texts = np.empty(shape, np.object_)
    if texts.size:
        memory = (ctypes.c_uint64 * (_WORDS * texts.size)).from_address(value._get_c_value().data_ptr())
        words = np.ctypeslib.as_array(memory).reshape(-1, _WORDS)
        texts.ravel()[:] = [ctypes.string_at(place, length) for place, length in words[:, :2].tolist()]
    return texts


def _field(number: int, content: bytes) -> bytes:
    """Write a field of a protobuf message that has a length: bytes, text, a message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _varint(value)


def _varint(value: int) -> bytes:
    written = b""
    while value > 127:
        written += bytes([value & 127 | 128])
        value >>= 7
    return written + bytes([value])


def decoded(texts: NDArray[np.object_]) -> NDArray[np.object_]:
    """Decode bytes to str: onnxruntime takes b"text" for the string "b'text'", without an error.

    Raises:
        UnicodeDecodeError: they are not UTF-8.
    """
    found: NDArray[Any] = np.empty(texts.shape, np.object_)
    found.ravel()[:] = [text if isinstance(text, str) else text.decode() for text in texts.ravel()]
    return found
