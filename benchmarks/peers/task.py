"""What is asked of every system alike: a graph, and requests with the reference's answers.

Small, text and table are releases of the model repository with their golden requests, a sample a request: of the
families that have a folder in configs/peers/. Large is made by `large.py`.
"""

import hashlib
import json
import math
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.errors import MeasurementError
from benchmarks.peers import large
from benchmarks.peers.names import MODELS
from benchmarks.releases import released
from contracts import golden, layout, manifest
from contracts.bundle import Bundle
from contracts.golden import GoldenRequest
from deploy.triton.payload import Tensors

# As many as wrk has threads, each of which sends one: so all are asked the same, the limit too. With more, what a batch
# of the limit is padded to would be another matter than what a server's batches are.
_QUESTIONS = 4


@dataclass(frozen=True)
class Shape:
    """One kind of model that is compared."""

    name: str  # on the command line
    kind: str  # of apps/work.py
    model: str  # that is asked in Triton
    what: str
    files: tuple[str, ...]  # of the release, that the peers read a request with
    connections: tuple[int, ...] = (1, 16, 64)  # of the closed loop, ascending
    times: float = 1.0  # as long as others it is measured, as its answers take longer


def _of_families() -> Iterator[Shape]:
    """Read configs/peers/FAMILY/task.toml of each family that is compared."""
    for path in (layout.ROOT / "configs" / "peers").glob("*/task.toml"):
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        yield Shape(told["name"], told["kind"], path.parent.name, told["what"], tuple(told["files"]))


_LARGE = Shape("large", "photos", large.MODEL, "224×224 JPEG, ResNet-50", ("photos.py",), (1, 4, 16), 3)
SHAPES = {shape.name: shape for shape in sorted((_LARGE, *_of_families()), key=lambda each: MODELS.index(each.name))}


@dataclass(frozen=True)
class Question:
    """A request of one sample, with the reference's answer."""

    golden: GoldenRequest
    body: bytes  # as whoever is not Triton gets it: the image, the text, or the row as a JSON object

    def fault(self, answer: Tensors) -> str | None:
        """Say what is wrong with an answer that may have been computed in a batch; None if nothing is.

        Args:
            answer: Without the dimension of the batch, or with it.
        """
        right = self.golden.answers
        shaped = {
            name: values.reshape(right[name].shape) if values.size == right[name].size else values
            for name, values in answer.items()
            if name in right
        }
        return self.golden.fault(shaped)


@dataclass(frozen=True)
class Task:
    """What is asked of every system."""

    shape: Shape
    repository: Path  # of Triton, with the release
    folder: Path  # what the peers load
    graph_sha256: str
    questions: tuple[Question, ...]

    @property
    def bodies_sha256(self) -> str:
        """The digest of all bodies, one behind the other."""
        return hashlib.sha256(b"".join(question.body for question in self.questions)).hexdigest()


def prepare(shape: Shape, scratch: Path) -> Task:
    """Put together what is needed to ask for a shape, below `scratch`.

    Raises:
        MeasurementError: nothing of it was released.
        ManifestError: its release is damaged.
    """
    root = large.repository() if shape.name == "large" else layout.model_repository()
    release = released.asked(root, shape.model)
    folder = scratch / shape.name
    folder.mkdir()
    graph = release.directory / "model.onnx"
    shutil.copy(graph, folder)
    for name in shape.files:
        shutil.copy(_find(release, name), folder)
    (folder / "task.json").write_text(json.dumps({"kind": shape.kind}))
    asked = [request for request in golden.read(release.directory) if request.model == shape.model]
    rows = [row for request in golden.one_way(asked) for row in _rows(request)]
    spread = rows[:: max(1, len(rows) // _QUESTIONS)][:_QUESTIONS]
    questions = tuple(Question(row, _body(row)) for row in spread)
    return Task(shape, root, folder, manifest.sha256(graph), questions)


def _find(release: Bundle, name: str) -> Path:
    found = [path for folder in release.models.values() for path in folder.rglob(name)]
    if not found:
        raise MeasurementError(f"the release of {release.network} holds no {name}", hint="export it again")
    return found[0]


def _rows(request: GoldenRequest) -> Sequence[GoldenRequest]:
    numbers = {name: values for name, values in request.answers.items() if values.dtype.kind == "f"}
    # What a row is batched with moves the last digits.
    tolerance = {
        name: golden.tolerance_in_company(request.tolerance.get(name, 0.0), float(np.abs(values).max(initial=0)))
        for name, values in numbers.items()
    }
    return [
        GoldenRequest(
            request.model,
            {name: values[row : row + 1] for name, values in request.inputs.items()},
            {name: values[row : row + 1] for name, values in request.answers.items()},
            tolerance,
        )
        for row in range(request.rows)
    ]


def _body(row: GoldenRequest) -> bytes:
    """Return the one input as it is, or several as a JSON object, with null where a number is not known."""
    values = {name: values.ravel()[0] for name, values in row.inputs.items()}
    if len(values) == 1:
        return bytes(next(iter(values.values())))
    return json.dumps({name: _plain(value) for name, value in values.items()}).encode()


def _plain(value: object) -> str | float | None:
    if isinstance(value, bytes):
        return value.decode()
    number = float(value)  # type: ignore[arg-type]  # a number of numpy's
    return None if math.isnan(number) else number
