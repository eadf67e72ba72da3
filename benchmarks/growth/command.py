"""How throughput, latency and memory grow with one thing at a time, and how steeply.

  batch, image, connections   a server over the stand-in of the default family, or over --model of the repository
  text                        the model of `peers --models text`, or --model, of the repository
  models                      small networks, all in one server
  versions                    the newest release of the default family, or of --model, linked to again and again

Each starts what it needs. A line's slope is that of a straight line on logarithmic axes: 1 means twice for twice the
size, 0 that it stays.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results, target
from benchmarks.errors import MeasurementError
from benchmarks.growth import asked, inputs, models, versions
from benchmarks.peers.task import SHAPES
from benchmarks.speed import stand_in
from cli import tables
from cli.tables import Table, console
from contracts import bundle, layout, repository

SIZES: Mapping[str, Sequence[int]] = {
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "image": (28, 56, 112, 224, 448, 896),
    "text": (1, 4, 16, 32, 64, 96),
    "models": (1, 2, 5, 10, 20, 50),
    "connections": (1, 4, 16, 64, 256, 1024),
    "versions": (1, 10, 100, 1000),
}
_WHAT = {
    "batch": "samples in a request",
    "image": "pixels of a side",
    "text": "words of a text",
    "models": "models in a server",
    "connections": "connections",
    "versions": "versions of a model",
}


def main(options: argparse.Namespace) -> int:
    """Measure what was asked for; print and keep it."""
    kept = {}
    for axis in options.what or SIZES:
        sizes = [size for size in options.sizes or SIZES[axis] if size <= (options.most or size)]
        print(f"{_WHAT[axis]}: {', '.join(map(str, sizes))}", flush=True)
        with tempfile.TemporaryDirectory(prefix="growth-", dir=_home()) as scratch:
            Path(scratch).chmod(0o755)  # root's server becomes somebody else
            found = list(_said(_measured(axis, sizes, options, Path(scratch))))
        console().print(table(found, _WHAT[axis]))
        kept[axis] = [asdict(one) for one in found]
    results.keep("growth", kept)
    return 0


def table(found: Sequence[Any], what: str) -> Table:
    """Lay out the points, a row each, and the slopes below them."""
    names = [name for name in vars(found[0]) if name != "size"]
    shown = tables.table(what, *(name.replace("_", " ") for name in names))
    for one in found:
        shown.add_row(f"{one.size:,}", *(f"{getattr(one, name):,.4g}" for name in names))
    shown.add_row("slope", *(_slope([(one.size, getattr(one, name)) for one in found]) for name in names))
    return shown


def _measured(axis: str, sizes: Sequence[int], options: argparse.Namespace, place: Path) -> Iterator[Any]:
    if axis == "models":
        yield from models.measure(place, sizes, options.seconds)
    elif axis == "versions":
        yield from versions.measure(_version(options.model or layout.DEFAULT_FAMILY), place, sizes)
    else:
        ways: dict[str, Callable[..., Iterator[Any]]] = {
            "batch": asked.rows,
            "connections": asked.connections,
            "image": inputs.images,
            "text": inputs.texts,
        }
        model, root = _served(axis, options.model, place)
        with asked.serving(root, place / "server") as up:
            yield from ways[axis](up, asked.workload(up, root, model), sizes, options.seconds)


def _served(axis: str, model: str | None, place: Path) -> tuple[str, Path]:
    """Return the model that is asked, and the repository that has it."""
    if model or axis == "text":
        return model or SHAPES["text"].model, target.repository()
    stand_in.write(layout.ROOT / "model_repository", place / "model_repository")
    return stand_in.MODEL, place / "model_repository"


def _version(model: str) -> Path:
    """Return the directory of the newest release that the model belongs to.

    Raises:
        MeasurementError: it belongs to none.
    """
    root = target.repository()
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        numbers = repository.versions(folder)
        found = bundle.of(root, folder.name, numbers[-1]) if numbers else None
        if found and found.sealed and model in found.models:
            return found.directory
    raise MeasurementError(f"{model} belongs to no sealed release in {layout.shown(root)}", hint="python -m export")


def _said(found: Iterator[Any]) -> Iterator[Any]:
    """Say each point as it comes: some take minutes."""
    for one in found:
        figures = ", ".join(f"{name} {value:,.4g}" for name, value in vars(one).items() if name != "size")
        print(f"  {one.size:6,}: {figures}", flush=True)
        yield one


def _slope(points: Sequence[tuple[float, float]]) -> str:
    """Return the slope of a line through them on logarithmic axes; none where there is no such line."""
    usable = [(size, value) for size, value in points if size > 0 and 0 < value < float("inf")]
    if len(usable) < 3 or len(usable) < len(points):
        return "–"
    sizes, values = np.log(np.array(usable)).T
    slope, _ = np.polyfit(sizes, values, 1)
    return f"{round(float(slope), 2) + 0.0:.2f}"  # no -0.00


def _home() -> Path:
    """Return where scratch goes: beside the artifacts, which have room for a thousand versions."""
    layout.artifacts().mkdir(parents=True, exist_ok=True)
    return layout.artifacts()
