"""What a load tool sends: the golden requests of the model's release, or images.

A golden request has the reference's answer. What a server says to an image nobody knows; there a tool can only compare
an answer under load with that of the idle server.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import target
from benchmarks.errors import MeasurementError
from clients import Client
from clients.core.metadata import ModelMetadata
from contracts import golden, layout
from contracts.golden import GoldenRequest
from deploy.triton.payload import Tensors

_MOST_REQUESTS, _MOST_BYTES = 64, 64 << 20  # that are put together; one is larger than another
_IMAGE_HEADS = (b"\x89PNG", b"\xff\xd8\xff")


@dataclass(frozen=True)
class Workload:
    """The requests for a model, sent in turn."""

    metadata: ModelMetadata
    requests: tuple[GoldenRequest, ...]
    source: str  # "32 golden requests", "64 images from artifacts/examples/shoes"

    def __str__(self) -> str:
        if self.has_answers:
            return f"{self.source}; answers checked against the reference's"
        return f"{self.source}: no golden requests; answers compared with the idle server's only"

    @property
    def model(self) -> str:
        """Whom they are for."""
        return self.metadata.model

    @property
    def max_batch_size(self) -> int:
        """How many samples a request may hold; 0: the model takes no batches, and a request is what it is."""
        return self.metadata.max_batch_size

    @property
    def has_answers(self) -> bool:
        """Whether the reference's answers are known."""
        return any(request.answers for request in self.requests)

    @property
    def rows(self) -> tuple[GoldenRequest, ...]:
        """A request a sample; where there are no batches, the requests as they are."""
        if not self.max_batch_size:
            return self.requests
        return tuple(row for request in self.requests for row in _rows(request))

    @property
    def images(self) -> tuple[bytes, ...]:
        """The image of each sample; none where a sample is something else."""
        found = [next(iter(row.inputs.values())).ravel() for row in self.rows if len(row.inputs) == 1]
        texts = [value[0] for value in found if value.dtype == np.object_ and len(value) == 1]
        images = tuple(bytes(text) for text in texts if bytes(text).startswith(_IMAGE_HEADS))
        return images if len(images) == len(self.rows) else ()

    def of_rows(self, count: int) -> tuple[GoldenRequest, ...]:
        """Put requests of `count` samples together, of those that have the same shapes; each begins at another one.

        Raises:
            MeasurementError: the model takes no such batches.
        """
        if count == 1:
            return self.rows[:_MOST_REQUESTS]
        if count > self.max_batch_size:
            most = f"{self.max_batch_size} at most" if self.max_batch_size else "one at a time"
            raise MeasurementError(f"{self.model} does not take {count} samples in a request", note=f"it takes {most}")
        alike: dict[object, list[GoldenRequest]] = {}
        for row in self.rows:
            alike.setdefault(_shapes(row), []).append(row)
        begins = [(rows, start) for rows in alike.values() for start in range(len(rows))]
        fit = max(1, _MOST_BYTES // (count * max(row.size_bytes for row in self.rows)))
        chosen = begins[:: -(-len(begins) // min(fit, _MOST_REQUESTS))]
        return tuple(
            _joined([*itertools.islice(itertools.cycle(rows), start, start + count)]) for rows, start in chosen
        )


def find(url: str, model: str, repository: Path, images: Path | None = None) -> Workload:
    """Find what can be sent to a model that a server serves, as `url` tells: grpc://host:port or http://.

    Args:
        repository: That the server serves, where golden requests are.
        images: A folder of .png files to send in their place. Where neither is, the examples of the model's name are.

    Raises:
        MeasurementError: there is nothing to send, with what is lacking.
        ClientError: the server does not answer, or has no such model.
    """
    with Client(url) as client:
        metadata = client.metadata(model)
    if images is None and (found := golden.one_way(golden.find(repository, model))):
        return Workload(metadata, found, f"{len(found)} golden requests")
    folder = images or layout.examples() / model
    if lacking := [tensor for tensor in metadata.inputs if tensor.datatype != "BYTES"]:
        raise _nothing_to_send(metadata, lacking, folder)
    if not images and not any(folder.glob("*.png")):
        raise _nothing_to_send(metadata, metadata.inputs, folder)
    requests = tuple(_of_image(metadata, image) for image in target.images(folder))
    return Workload(metadata, requests, f"{len(requests)} images from {layout.shown(folder)}")


def answers(url: str, requests: Sequence[GoldenRequest]) -> list[Tensors]:
    """Send every request once, alone, and return the answers: the reference's, as far as those are known.

    Raises:
        MeasurementError: an answer is wrong.
        ClientError: there is none.
    """
    found: list[Tensors] = []
    with Client(url) as client:
        for request in requests:
            found.append(client.infer(request.model, request.inputs, outputs=[*request.answers]))
            if told := request.fault(found[-1]):
                raise wrong_when_idle(request.model, told)
    return found


def wrong_when_idle(model: str, told: str) -> MeasurementError:
    """Make the error of a server that is wrong before there is any load."""
    return MeasurementError(
        f"{model} answers a golden request wrong, without any load: {told}",
        hint="is the version that is served the one that lies in the repository? python -m deploy status",
    )


def _nothing_to_send(metadata: ModelMetadata, lacking: Sequence[object], images: Path) -> MeasurementError:
    said = "; ".join(map(str, lacking))
    export = "export it again, so that its release has golden requests"
    if all(tensor.datatype == "BYTES" for tensor in metadata.inputs):
        note = f"there are no golden requests for it, and no .png in {layout.shown(images)}"
        hint = f"{export}, or name a folder of images: --images DIRECTORY"
    else:
        note, hint = "there are no golden requests for it, and an image is no such input", export
    return MeasurementError(f"there is nothing to send to {metadata.model} as its input {said}", note=note, hint=hint)


def _of_image(metadata: ModelMetadata, image: bytes) -> GoldenRequest:
    inputs = {
        tensor.name: np.full([max(1, size) for size in tensor.shape], image, np.object_) for tensor in metadata.inputs
    }
    return GoldenRequest(metadata.model, inputs, {})


def _rows(request: GoldenRequest) -> Iterator[GoldenRequest]:
    for row in (slice(index, index + 1) for index in range(request.rows)):
        inputs = {name: values[row] for name, values in request.inputs.items()}
        answers = {name: values[row] for name, values in request.answers.items()}
        yield GoldenRequest(request.model, inputs, answers, request.tolerance)


def _shapes(request: GoldenRequest) -> object:
    tensors = (*request.inputs.items(), *request.answers.items())
    return tuple((name, values.shape[1:], values.dtype.str) for name, values in tensors)


def _joined(rows: Sequence[GoldenRequest]) -> GoldenRequest:
    first = rows[0]
    inputs = {name: np.concatenate([row.inputs[name] for row in rows]) for name in first.inputs}
    answers = {name: np.concatenate([row.answers[name] for row in rows]) for name in first.answers}
    return GoldenRequest(first.model, inputs, answers, first.tolerance)
