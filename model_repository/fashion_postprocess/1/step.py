"""Probabilities [B, classes] to labels and scores, best first: what this step makes of the arrays of requests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CALLED = "the postprocessor"
TOP_K = 3  # as in config.pbtxt


class Failed(Exception):  # noqa: N818  # what becomes of the request, as the other steps have it
    """The network gave what is no answer: no fault of the request."""


class Step:
    """Knows the labels, which lie beside config.pbtxt."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Read the labels."""
        labels = (folder / "labels.txt").read_text().splitlines()
        self.labels = np.array([label.encode() for label in labels], dtype=np.object_)

    def answer(self, requests: Sequence[Mapping[str, NDArray[Any]]]) -> list[Mapping[str, NDArray[Any]] | Exception]:
        """Return what each request gets: its outputs, or why it has none."""
        rows = [request["probabilities"] for request in requests]
        probabilities = np.concatenate(rows) if len(rows) > 1 else rows[0]
        finite = np.isfinite(probabilities).all(axis=1)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_K]
        labels, scores = self.labels[order], np.take_along_axis(probabilities, order, axis=1)
        found: list[Mapping[str, NDArray[Any]] | Exception] = []
        start, all_finite = 0, bool(finite.all())
        for own in rows:
            part = slice(start, start := start + len(own))
            if all_finite or finite[part].all():
                top = {"top_labels": labels[part], "top_scores": scores[part]}
                found.append({"label": labels[part, :1], "score": scores[part, :1], **top})
            else:
                # Sorted all the same, they would be an answer like any other.
                first = np.argmin(finite[part])
                found.append(Failed(f"image {first} of {len(own)}, from 0: the network gave no finite numbers"))
        return found
