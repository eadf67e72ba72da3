"""What `python -m clients embed` does: texts as vectors, or the lines of a file that are nearest to them."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.client import Client
from clients.command_line import commands, files
from clients.core import tasks
from clients.errors import ClientError, InvalidInputError

_TEXTS = 256  # that are sent in one call, which is split into the model's batches

Vectors = NDArray[np.float32]


def embed(options: argparse.Namespace) -> int:
    """Embed the texts; print or save the vectors, or search with them."""
    texts = [*options.texts, *(_lines(options.file) if options.file else ())]
    if not texts:
        raise InvalidInputError("there is no text to embed", hint="TEXT …, --file FILE, or --file - for standard input")
    among = _lines(options.among) if options.among else []
    with commands.connected(options) as client:
        model = options.model or _only_model(client)
        vectors = _vectors(client, model, texts)
        if options.among:
            _print_nearest(texts, _nearest(vectors, _vectors(client, model, among), options.top), among, options.json)
        elif options.save:
            _save(options.save, vectors)
        else:
            for text, vector in zip(texts, vectors.tolist(), strict=True):
                print(json.dumps({"text": text, "embedding": vector} if options.json else vector))
    print(f"{len(texts) + len(among):,} embedded; answered by {model}", file=sys.stderr)
    return 0


def _lines(path: Path) -> list[str]:
    """Read texts, one a line; those without any are left out.

    Raises:
        InvalidInputError: it cannot be read, is not UTF-8, or has no text.
    """
    try:
        content = sys.stdin.buffer.read() if str(path) == files.STDIN else path.read_bytes()
        found = [line for line in content.decode().split("\n") if line.strip()]
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    if not found:
        raise InvalidInputError(f"{path} has no texts", hint="one a line")
    return [line.removesuffix("\r") for line in found]


def _only_model(client: Client) -> str:
    """Find the one model that takes a text and gives an embedding.

    Raises:
        InvalidInputError: there is none, or there are several.
    """
    found = sorted({name for name in (str(s["name"]) for s in client.statistics()) if _embeds(client, name)})
    if len(found) == 1:
        return found[0]
    raise InvalidInputError(
        f"{len(found) or 'no'} models on this server take a text and give an embedding"
        + (f": {', '.join(found)}" if found else ""),
        hint="--model NAME" if found else "`models` lists what is served",
    )


def _embeds(client: Client, name: str) -> bool:
    try:
        metadata = client.metadata(name)
    except ClientError:  # it is just being unloaded, say
        return False
    takes = [(tensor.name, tensor.datatype) for tensor in metadata.inputs]
    return takes == [(tasks.TEXT, "BYTES")] and tasks.EMBEDDING in [tensor.name for tensor in metadata.outputs]


def _vectors(client: Client, model: str, texts: Sequence[str]) -> Vectors:
    with commands.progress("embed", len(texts), "texts") as advance:
        parts = []
        for start in range(0, len(texts), _TEXTS):
            parts.append(client.embed(texts[start : start + _TEXTS], model=model))
            advance(len(parts[-1]))
    return np.concatenate(parts)


def _nearest(vectors: Vectors, among: Vectors, top: int) -> Iterator[list[tuple[int, float]]]:
    """Yield of each vector the rows of `among` with the largest cosine, and that, best first."""
    one, other = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (vectors, among))
    for likeness in one @ other.T:
        yield [(int(row), float(likeness[row])) for row in np.argsort(-likeness, kind="stable")[:top]]


def _print_nearest(
    texts: Sequence[str], found: Iterator[list[tuple[int, float]]], among: Sequence[str], as_json: bool
) -> None:
    for text, nearest in zip(texts, found, strict=True):
        if as_json:
            rows = [{"text": among[row], "line": row + 1, "cosine": cosine} for row, cosine in nearest]
            print(json.dumps({"text": text, "nearest": rows}))
        else:
            print(text, *(f"  {cosine:.3f}  {among[row]}" for row, cosine in nearest), sep="\n")


def _save(path: Path, vectors: Vectors) -> None:
    try:
        with path.open("wb") as file:  # numpy.save would add a suffix
            np.save(file, vectors, allow_pickle=False)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}") from error
    print(f"Saved {len(vectors):,} vectors of {vectors.shape[1]} numbers to {path}")
