"""Requests and answers of the Open Inference Protocol with Triton's binary extension, from and to arrays."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import BrokenError
from gateway.triton.models import Tensor
from gateway.typed.known.values import NUMPY

LENGTH = "inference-header-content-length"
_PREFIX = struct.Struct("<I")


def request(
    tensors: Mapping[str, Tensor],
    arrays: Mapping[str, NDArray[Any]],
    *,
    outputs: Sequence[str] = (),
    request_id: str,
    timeout_us: int,
) -> tuple[dict[str, str], bytes]:
    """Write a request; return its headers and its body.

    Args:
        outputs: Which are wanted; none: all.
        timeout_us: That it may wait in Triton's queue.
    """
    parts = {name: _encoded(tensors[name].datatype, array) for name, array in arrays.items()}
    head: dict[str, Any] = {
        "id": request_id,
        "parameters": {"timeout": timeout_us, "binary_data_output": True},
        "inputs": [
            {
                "name": name,
                "datatype": tensors[name].datatype,
                "shape": arrays[name].shape,
                "parameters": {"binary_data_size": len(part)},
            }
            for name, part in parts.items()
        ],
    }
    if outputs:
        head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    written = json.dumps(head, separators=(",", ":")).encode()
    return {LENGTH: str(len(written))}, b"".join((written, *parts.values()))


def answer(headers: Mapping[str, str], body: bytes) -> dict[str, NDArray[Any]]:
    """Read an answer: {output: array}; text is bytes, in arrays of objects.

    Raises:
        BrokenError: it is none.
    """
    try:
        at = int(headers.get(LENGTH, len(body)))
        arrays = {}
        for output in json.loads(body[:at])["outputs"]:
            size = (output.get("parameters") or {}).get("binary_data_size")
            shape, datatype = tuple(output["shape"]), output["datatype"]
            if size is None:
                arrays[output["name"]] = _of_json(datatype, output["data"], shape)
                continue
            arrays[output["name"]] = _decoded(datatype, memoryview(body)[at : at + size], shape)
            at += size
        return arrays
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise BrokenError(f"the Triton's answer cannot be read: {error!r}") from error


def error(body: bytes) -> str:
    """Return what Triton says went wrong."""
    try:
        return str(json.loads(body)["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return "it does not say why"


def _encoded(datatype: str, array: NDArray[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(part for each in array.flat for part in (_PREFIX.pack(len(each)), each))
    return array.astype(NUMPY[datatype], copy=False).tobytes()


def _decoded(datatype: str, part: memoryview, shape: tuple[int, ...]) -> NDArray[Any]:
    if datatype != "BYTES":
        return np.frombuffer(part, NUMPY[datatype]).reshape(shape)
    found, at = [], 0
    while at < len(part):
        (length,) = _PREFIX.unpack_from(part, at)
        at += _PREFIX.size
        found.append(bytes(part[at : at + length]))
        at += length
    made = np.empty(len(found), np.object_)
    made[:] = found
    return made.reshape(shape)


def _of_json(datatype: str, data: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if datatype != "BYTES":
        return np.asarray(data, NUMPY[datatype]).reshape(shape)
    made = np.empty(len(data), np.object_)
    made[:] = [text.encode() for text in data]
    return made.reshape(shape)
