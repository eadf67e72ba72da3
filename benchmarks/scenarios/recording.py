"""Recorded traffic: a JSON object a line, in the order of its times.

  {"at_s": 0.0, "model": "shirts", "inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES",
   "b64": ["iVBORw0KGgo…"]}]}
  {"at_s": 0.013, "model": "words", "priority": 1, "inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES",
   "data": ["a word"]}]}

  at_s      seconds since the recording began; any start will do, the first request is sent at once
  model     that was asked
  inputs    as in an inference request of the V2 protocol, in JSON: name, shape, datatype and data, flat; bytes that are
            no text have b64 in place of data, each element in base64
  priority  1 is the highest; left out, or 0: the server's default
  outputs   which are asked for, [{"name": …}]; left out: all

Other keys are passed over. Nothing else is sent: no header, no user, no id.
"""

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from benchmarks.errors import MeasurementError
from contracts import layout
from contracts.golden import GoldenRequest


@dataclass(frozen=True)
class Recorded:
    """A request that was recorded; equal ones share theirs."""

    at_s: float  # since the first
    request: GoldenRequest
    priority: int = 0


def read(path: Path, speed: float = 1.0) -> tuple[Recorded, ...]:
    """Read recorded traffic.

    Args:
        speed: 2 is twice as fast as it was.

    Raises:
        MeasurementError: the file cannot be read, holds nothing, or a line of it is none; with its number.
    """
    if not 0 < speed < math.inf:
        raise MeasurementError(f"--speed is {speed:g}; 1 is as it was, 2 is twice as fast")
    try:
        with path.open(encoding="utf-8") as lines:
            found = list(_read(lines, path))
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(f"{layout.shown(path)} cannot be read", note=str(error)) from error
    if not found:
        raise MeasurementError(f"{layout.shown(path)} holds no request")
    first_s = found[0].at_s
    return tuple(Recorded((each.at_s - first_s) / speed, each.request, each.priority) for each in found)


def line(at_s: float, request: GoldenRequest, priority: int = 0) -> str:
    """Write a request as a line of recorded traffic, without its end."""
    said: dict[str, Any] = {"at_s": round(at_s, 6), "model": request.model}
    if priority:
        said["priority"] = priority
    said["inputs"] = [_described(name, values) for name, values in request.inputs.items()]
    if request.answers:
        said["outputs"] = [{"name": name} for name in request.answers]
    return json.dumps(said, separators=(",", ":"))


def _read(lines: Iterable[str], path: Path) -> Iterator[Recorded]:
    known: dict[str, GoldenRequest] = {}
    last_s = -math.inf
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            said = json.loads(text)
            at_s, priority = float(said["at_s"]), int(said.get("priority", 0))
            if not (math.isfinite(at_s) and at_s >= last_s and priority >= 0):
                raise ValueError(f"at_s is {at_s:g} behind {last_s:g}, or the priority negative")
            what = json.dumps([said["model"], said["inputs"], said.get("outputs")])
            if what not in known:
                known[what] = GoldenRequest(str(said["model"]), _inputs(said["inputs"]), {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            hint = "the format: docs/how-to/load.md"
            raise MeasurementError(f"line {number} of {layout.shown(path)} is none", note=reason, hint=hint) from error
        last_s = at_s
        yield Recorded(at_s, known[what], priority)


def _inputs(described: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    if not described:
        raise ValueError("it has no inputs")
    return {str(each["name"]): _array(each) for each in described}


def _array(described: Mapping[str, Any]) -> NDArray[Any]:
    datatype, shape = described["datatype"], [int(size) for size in described["shape"]]
    kind = triton_to_np_dtype(datatype)
    if kind is None or datatype == "BF16":
        raise ValueError(f"datatype {datatype!r} is not known")
    values: list[Any] = described["data"] if "data" in described else described["b64"]
    if kind is not np.object_:
        return np.array(values, kind).reshape(shape)
    elements = np.empty(len(values), np.object_)
    elements[:] = (
        [base64.b64decode(value, validate=True) for value in values]
        if "data" not in described
        else [str(value).encode() for value in values]
    )
    return elements.reshape(shape)


def _described(name: str, values: NDArray[Any]) -> dict[str, Any]:
    from tritonclient.utils import np_to_triton_dtype

    said = {"name": name, "shape": [*values.shape], "datatype": np_to_triton_dtype(values.dtype)}
    if values.dtype != np.object_:
        return {**said, "data": values.ravel().tolist()}
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in values.ravel()]
    try:
        return {**said, "data": [text.decode() for text in texts]}
    except UnicodeDecodeError:
        return {**said, "b64": [base64.b64encode(text).decode() for text in texts]}
