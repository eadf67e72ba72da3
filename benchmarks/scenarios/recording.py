"""Recorded traffic: a JSON object a line, as text or gzipped.

  {"at_s": 0.0, "model": "shirts", "inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES",
   "b64": ["iVBORw0KGgo…"]}]}
  {"at_s": 0.013, "model": "words", "priority": 1, "inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES",
   "data": ["a word"]}]}

  at_s      seconds since the recording began; any start will do, the first request is sent at once. Lines may come in
            another order: who writes one when the answer is there does not write them in that of their starts
  model     that was asked
  inputs    as in an inference request of the V2 protocol, in JSON: name, shape, datatype and data, flat; bytes that are
            no text have b64 in place of data, each element in base64
  priority  1 is the highest; left out, or 0: the server's default
  outputs   which are asked for, [{"name": …}]; left out: all

Other keys are passed over. Nothing else is sent: no header, no user, no id.
"""

import base64
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from benchmarks.errors import MeasurementError
from contracts import layout
from contracts.golden import GoldenRequest

_LONGEST_S = 1e6
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Recorded:
    """A request that was recorded; equal ones share theirs."""

    at_s: float  # since the first
    request: GoldenRequest
    priority: int = 0
    outputs: tuple[str, ...] = ()  # that are asked for; none: all


def read(path: Path, speed: float = 1.0) -> tuple[Recorded, ...]:
    """Read recorded traffic.

    Args:
        speed: 2 is twice as fast as it was.

    Raises:
        MeasurementError: the file cannot be read, holds nothing, would take days, or a line of it is none; with its
            number.
    """
    if not 0 < speed < math.inf:
        raise MeasurementError(f"--speed is {speed:g}; 1 is as it was, 2 is twice as fast")
    try:
        with _opened(path) as lines:
            found = sorted(_read(lines, path), key=lambda each: each.at_s)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MeasurementError(f"{layout.shown(path)} cannot be read", note=str(error)) from error
    if not found:
        raise MeasurementError(f"{layout.shown(path)} holds no request")
    first_s, last_s = found[0].at_s, found[-1].at_s
    if (seconds := (last_s - first_s) / speed) > _LONGEST_S:
        told = f"{layout.shown(path)} would take {seconds / 86400:,.0f} days: from {first_s:,.0f} to {last_s:,.0f} s"
        raise MeasurementError(told, hint="are all its times of one clock, and in seconds? Else: --speed")
    return tuple(replace(each, at_s=(each.at_s - first_s) / speed) for each in found)


def longest_pause_s(recorded: Sequence[Recorded]) -> float:
    """Return the longest time in which nothing is sent."""
    return max((later.at_s - earlier.at_s for earlier, later in pairwise(recorded)), default=0.0)


def line(at_s: float, request: GoldenRequest, priority: int = 0) -> str:
    """Write a request as a line of recorded traffic, without its end."""
    said: dict[str, Any] = {"at_s": round(at_s, 6), "model": request.model}
    if priority:
        said["priority"] = priority
    said["inputs"] = [_described(name, values) for name, values in request.inputs.items()]
    if request.answers:
        said["outputs"] = [{"name": name} for name in request.answers]
    return json.dumps(said, separators=(",", ":"))


def _opened(path: Path) -> IO[str]:
    """Open a file as text, gzipped or not; a mark of UTF-8 at its beginning is passed over."""
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == _GZIP
    return gzip.open(path, "rt", encoding="utf-8-sig") if is_gzip else path.open(encoding="utf-8-sig")


def _read(lines: Iterable[str], path: Path) -> Iterator[Recorded]:
    known: dict[str, GoldenRequest] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            said = json.loads(text)
            at_s, priority = float(said["at_s"]), int(said.get("priority", 0))
            if not (math.isfinite(at_s) and priority >= 0):
                raise ValueError(f"at_s is {at_s:g}, or the priority negative")
            outputs = tuple(str(output["name"]) for output in said.get("outputs", ()))
            what = json.dumps([said["model"], said["inputs"], outputs])
            if what not in known:
                known[what] = GoldenRequest(str(said["model"]), _inputs(said["inputs"]), {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            hint = "the format: docs/how-to/load.md"
            if not text.endswith("\n") and isinstance(error, json.JSONDecodeError):
                hint = "it is the last one, and not whole: take it out"
            raise MeasurementError(f"line {number} of {layout.shown(path)} is none", note=reason, hint=hint) from error
        yield Recorded(at_s, known[what], priority, outputs)


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
