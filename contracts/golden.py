"""Golden requests: real requests that lie in a release, with the reference's answers.

Whatever needs a request takes it from there, and checks the answer: gates, drill, probes, perf_analyzer, Locust, soak,
overload. So none of them needs a family's code, and a model that was brought is tested as well as our own.

`golden.npz` in the version's directory holds arrays without any pickles; its entry `requests` describes them, as JSON.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts import repository
from contracts.errors import ManifestError
from contracts.samples import Batch, load_arrays, save_arrays

FILE_NAME = "golden.npz"
_MOST_BYTES = 1 << 30  # that its arrays may take
# Of an output's largest value. What a row is batched with moves the last digits, by other kernels; an INT8 or FP16
# variant may be as far from itself as it may be from its reference, but not by this much.
_LEAST_IN_COMPANY, _MOST_IN_COMPANY = 1e-3, 0.05


@dataclass(frozen=True)
class GoldenRequest:
    """A request for a model of the release, and the reference's answer to it.

    Attributes:
        model: The network, or an ensemble above it.
        inputs: {input: array}, as a client sends them: batch first where the model takes batches. Strings are bytes in
            arrays of objects.
        answers: {output: array}; an output that the model has beside these is not looked at.
        tolerance: {output: largest absolute difference of any element from the reference's}; an output that has none
            must be equal.
    """

    model: str
    inputs: Batch
    answers: Batch
    tolerance: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The first dimension of its inputs: the samples in it, where the model takes batches."""
        shape = next(iter(self.inputs.values())).shape
        return shape[0] if shape else 1

    @property
    def size_bytes(self) -> int:
        """What it takes to keep it."""
        return sum(_bytes(values) for values in (*self.inputs.values(), *self.answers.values()))

    def fault(self, answer: Batch) -> str | None:
        """Say what is wrong with an answer to it; None if nothing is."""
        for output, right in self.answers.items():
            if output not in answer:
                return f"an answer without the output {output!r}"
            if told := _difference(answer[output], right, self.tolerance.get(output, 0.0)):
                return f"a wrong answer: {output} {told}"
        return None


def tolerance_in_company(tolerance: float, scale: float) -> float:
    """Return how far the answer to a sample in a batch may be from the answer that it gets alone.

    Args:
        tolerance: How far it may be from the reference's.
        scale: The output's largest absolute value.
    """
    return min(max(tolerance, _LEAST_IN_COMPANY * scale), _MOST_IN_COMPANY * scale)


def write(requests: Iterable[GoldenRequest], directory: Path) -> None:
    """Write `directory`/golden.npz."""
    arrays: dict[str, NDArray[Any]] = {}
    described = []
    for number, request in enumerate(requests):
        entry: dict[str, Any] = {"model": request.model, "tolerance": dict(request.tolerance)}
        for role, batch in (("inputs", request.inputs), ("answers", request.answers)):
            entry[role] = {
                name: _put(f"{number}/{role}/{place}", values, arrays)
                for place, (name, values) in enumerate(batch.items())
            }
        described.append(entry)
    arrays["requests"] = np.array(json.dumps(described))
    save_arrays(directory / FILE_NAME, arrays)


def read(directory: Path) -> tuple[GoldenRequest, ...]:
    """Read the golden requests of a version; none from a version that was published before there were any.

    Raises:
        ManifestError: the file is damaged.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        return ()
    try:
        arrays = load_arrays(path, _MOST_BYTES)
        return tuple(
            GoldenRequest(
                entry["model"],
                {name: _taken(described, arrays) for name, described in entry["inputs"].items()},
                {name: _taken(described, arrays) for name, described in entry["answers"].items()},
                entry["tolerance"],
            )
            for entry in json.loads(str(arrays["requests"]))
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ManifestError(f"{path} is damaged", note=str(error) or type(error).__name__) from error


def find(root: Path, model: str) -> tuple[GoldenRequest, ...]:
    """Find the golden requests for `model` in a model repository: those of its newest version, or, for an ensemble,
    of the newest version of the network below it. None where nothing that has any was published.

    Raises:
        ManifestError: a file with golden requests is damaged.
    """
    own = root / model
    others = sorted(path for path in root.glob("*") if path.is_dir() and path != own and not path.name.startswith("."))
    for directory in (own, *others):
        versions = repository.versions(directory) if directory.is_dir() else []
        requests = read(directory / str(versions[-1])) if versions else ()
        if wanted := tuple(request for request in requests if request.model == model):
            return wanted
    return ()


def one_way(requests: Sequence[GoldenRequest]) -> tuple[GoldenRequest, ...]:
    """Return those of a model that ask it in the shortest way: of one that takes records beside columns, records.

    What is measured is one thing, and not the mean of two.
    """
    fewest = min((len(request.inputs) for request in requests), default=0)
    return tuple(request for request in requests if len(request.inputs) == fewest)


def _put(place: str, values: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    if values.dtype != np.object_:
        arrays[place] = values
        return {"place": place}
    # Strings: numpy would pickle them, and its own fixed-width bytes lose zeros at their ends.
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in values.ravel()]
    arrays[place] = np.frombuffer(b"".join(texts), np.uint8)
    return {"place": place, "shape": list(values.shape), "lengths": [len(text) for text in texts]}


def _taken(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    values = arrays[described["place"]]
    if "lengths" not in described:
        return values
    lengths: Sequence[int] = described["lengths"]
    if sum(lengths) != len(values) or math.prod(described["shape"]) != len(lengths):
        raise ValueError("strings of other lengths than are written down")
    raw, start = values.tobytes(), 0
    texts = np.empty(len(lengths), np.object_)
    for index, length in enumerate(lengths):
        texts[index] = raw[start : start + length]
        start += length
    return texts.reshape(described["shape"])


def _difference(found: NDArray[Any], right: NDArray[Any], tolerance: float) -> str | None:
    if found.shape != right.shape:
        return f"has shape {list(found.shape)}, not {list(right.shape)}"
    if right.dtype == np.object_:
        same = [_as_bytes(a) == _as_bytes(b) for a, b in zip(found.ravel(), right.ravel(), strict=True)]
        wrong = next((i for i, equal in enumerate(same) if not equal), None)
        if wrong is None:
            return None
        return f"is {_as_bytes(found.ravel()[wrong])!r}, not {_as_bytes(right.ravel()[wrong])!r}"
    if right.dtype.kind not in "fiub":
        return None if np.array_equal(found, right) else "differs"
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.subtract(found, right, dtype=np.float64))
    alike = np.asarray(found == right)
    if right.dtype.kind == "f":
        alike |= np.isnan(found) & np.isnan(right)
    distance = np.where(alike, 0, distance)
    if bool((distance <= tolerance).all()):
        return None
    return f"is {float(distance.max()):.3g} away, {tolerance:.3g} at most"


def _as_bytes(text: Any) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


def _bytes(values: NDArray[Any]) -> int:
    return sum(map(len, values.ravel())) if values.dtype == np.object_ else values.nbytes
