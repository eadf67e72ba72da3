"""Test texts as files, a text a line: what to look for, and what to look through."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.families.minilm.data import DataModule

QUERIES, DOCUMENTS = "queries.txt", "documents.txt"


def write(directory: Path, count: int) -> int:
    """Replace `directory` by the first `count` test queries, all documents, and `labels.csv` (file, label).

    A query's file is said with its line, `queries.txt:1`; its label is the document that belongs to it.

    Returns:
        How many queries were written.
    """
    corpus = DataModule().corpus("test")
    queries = corpus.queries[:count]
    shutil.rmtree(directory, ignore_errors=True)  # what labels.csv lists is all there is
    directory.mkdir(parents=True)
    for name, texts in ((QUERIES, queries), (DOCUMENTS, corpus.documents)):
        (directory / name).write_text("".join(f"{text}\n" for text in texts))
    with (directory / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        rows.writerows((f"{QUERIES}:{line}", corpus.documents[line - 1]) for line in range(1, len(queries) + 1))
    return len(queries)


def requests(count: int) -> dict[str, NDArray[Any]]:
    """Return test texts as the ensemble takes them, {"text": bytes [count, 1]}.

    They are in the order of the split, which is by length: of fewer than all, some of every length.
    """
    texts = DataModule().texts("test")
    rows = np.linspace(0, len(texts) - 1, min(count, len(texts)), dtype=np.intp)
    return {"text": np.array([texts[row].encode() for row in rows], np.object_).reshape(-1, 1)}
