"""What every peer does with a request, without any server around it: bytes to arrays, the graph, the answer's bytes.

Runs in the environment of each peer, and imports nothing of the project but what lies in the task's folder: the graph,
and the release's own module that reads a request. So all that is compared is what stands around this.

PEER_TASK in the environment names that folder, PEER_SETTINGS holds the peer's settings as JSON.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import orjson  # type: ignore[import-not-found]  # in the environments of the peers
from numpy.typing import NDArray

JSON, BINARY = "application/json", "application/octet-stream"
Arrays = Mapping[str, NDArray[Any]]  # {input or output of the graph: [B, …]}

TASK, SETTINGS = "PEER_TASK", "PEER_SETTINGS"


def settings() -> dict[str, Any]:
    """Return the settings that the peer was started with."""
    return dict(json.loads(os.environ.get(SETTINGS, "{}")))


class Kind(Protocol):
    """How the requests of one kind are read and answered."""

    media_type: str  # of an answer

    def read(self, body: bytes) -> Any:
        """Make of a request's body one row for the graph."""

    def join(self, rows: Sequence[Any]) -> Arrays:
        """Make the graph's inputs of rows."""

    def answers(self, results: Arrays) -> list[bytes]:
        """Make an answer's body of each row of the graph's outputs."""


class Work:
    """A graph with what is around it, in one process."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the task in `folder`; `threads` compute one batch."""
        self.kind = KINDS[json.loads((folder / "task.json").read_text())["kind"]](folder)
        self.media_type = self.kind.media_type
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    @classmethod
    def of_environment(cls) -> "Work":
        """Load what the environment names."""
        return cls(Path(os.environ[TASK]), int(settings().get("threads", 1)))

    def one(self, body: bytes) -> bytes:
        """Answer one request."""
        return self.many([body])[0]

    def many(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Answer requests as one batch."""
        return self.run([self.kind.read(body) for body in bodies])

    def run(self, rows: Sequence[Any]) -> list[bytes]:
        """Answer rows that were read, as one batch."""
        found = self.session.run(self.outputs, self.kind.join(rows))
        return self.kind.answers(dict(zip(self.outputs, found, strict=True)))


class Images:
    """PNG bytes to the three likeliest labels, as JSON; read by the release's images.py."""

    media_type = JSON
    top = 3

    def __init__(self, folder: Path) -> None:
        self.images = _module(folder, "images")
        self.limits = self.images.Limits()
        self.labels = (folder / "labels.txt").read_text().splitlines()

    def read(self, body: bytes) -> NDArray[np.uint8]:
        """Decode to uint8 [1, 28, 28]."""
        pixels: NDArray[np.uint8] = self.images.decode(body, self.limits)
        return pixels

    def join(self, rows: Sequence[NDArray[np.uint8]]) -> Arrays:
        """Stack to uint8 [B, 1, 28, 28]."""
        return {"pixels": np.stack(rows)}

    def answers(self, results: Arrays) -> list[bytes]:
        """Name the likeliest labels of each row."""
        probabilities = results["probabilities"]
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top]
        scores = np.take_along_axis(probabilities, order, axis=1)
        found = []
        for places, row in zip(order.tolist(), scores.tolist(), strict=True):
            labels = [self.labels[place] for place in places]
            answer = {"label": labels[:1], "score": row[:1], "top_labels": labels, "top_scores": row}
            found.append(orjson.dumps(answer))
        return found


class Photos:
    """JPEG bytes to the five likeliest classes, as JSON."""

    media_type = JSON
    size = (224, 224)

    def __init__(self, folder: Path) -> None:
        self.open = _module(folder, "photos").decode

    def read(self, body: bytes) -> NDArray[np.uint8]:
        """Decode to uint8 [3, 224, 224]."""
        pixels: NDArray[np.uint8] = self.open(body)
        return pixels

    def join(self, rows: Sequence[NDArray[np.uint8]]) -> Arrays:
        """Stack to uint8 [B, 3, 224, 224]."""
        return {"pixels": np.stack(rows)}

    def answers(self, results: Arrays) -> list[bytes]:
        """Tell the classes and scores of each row, which the graph has sorted."""
        rows = zip(results["classes"].tolist(), results["scores"].tolist(), strict=True)
        return [orjson.dumps({"classes": classes, "scores": scores}) for classes, scores in rows]


class Texts:
    """UTF-8 to an embedding, float32 [384] as bytes; tokenized by the release's texts.py."""

    media_type = BINARY

    def __init__(self, folder: Path) -> None:
        self.texts = _module(folder, "texts")
        self.tokenizer = self.texts.Texts(folder / "tokenizer.json", self.texts.Limits())

    def read(self, body: bytes) -> list[int]:
        """Tokenize."""
        tokens: list[int] = self.tokenizer.tokens(body)
        return tokens

    def join(self, rows: Sequence[list[int]]) -> Arrays:
        """Pad to the longest, int32 [B, L]."""
        ids, mask = self.texts.padded(rows, max(map(len, rows)))
        return {"input_ids": ids, "attention_mask": mask}

    def answers(self, results: Arrays) -> list[bytes]:
        """Return each row's bytes."""
        return [row.tobytes() for row in results["embedding"]]


class Rows:
    """A flight as a JSON object to a probability, as JSON; read by the release's features.py."""

    media_type = JSON

    def __init__(self, folder: Path) -> None:
        self.features = _module(folder, "features")
        self.vocabularies = self.features.read_vocabularies(folder / "vocabularies.json")

    def read(self, body: bytes) -> tuple[dict[str, str], Any, dict[str, float]]:
        """Check a flight as the release's own step does."""
        features, given = self.features, orjson.loads(body)
        at = features.read_departure(given["departure"])
        numbers = {name: np.nan if given[name] is None else float(given[name]) for name in features.RANGES}
        for name, value in numbers.items():
            features.check_number(name, value)
        return {name: given[name] for name in features.CATEGORIES}, at, numbers

    def join(self, rows: Sequence[Any]) -> Arrays:
        """Encode to categories int32 [B, 3] and numbers float32 [B, 23]."""
        texts = {name: [row[0][name] for row in rows] for name in self.features.CATEGORIES}
        numbers = {name: np.array([row[2][name] for row in rows]) for name in self.features.RANGES}
        categories, columns = self.features.encode(texts, [row[1] for row in rows], numbers, self.vocabularies)
        return {"categories": categories, "numbers": columns}

    def answers(self, results: Arrays) -> list[bytes]:
        """Tell each row's probability."""
        return [orjson.dumps({"probability": row}) for row in results["probability"].tolist()]


KINDS: dict[str, Callable[[Path], Kind]] = {"images": Images, "photos": Photos, "texts": Texts, "rows": Rows}


def _module(folder: Path, name: str) -> Any:
    """Import what lies in the task's folder."""
    sys.path.insert(0, str(folder))
    return importlib.import_module(name)
