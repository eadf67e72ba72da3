"""How throughput, latency and memory grow with one thing at a time, and how steeply.

  batch, image, connections   a server over the stand-in of the default family, or over --model of the repository
  text                        the model of `peers --models text`, or --model, of the repository
  models                      small networks, all in one server
  versions                    the newest release of the default family, or of --model, linked to again and again

Each starts what it needs. A line's slope is that of a straight line on logarithmic axes: 1 means twice for twice the
size, 0 that it stays.
"""

import argparse
import sys
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
from benchmarks.releases import released
from benchmarks.speed import stand_in
from cli import tables
from cli.tables import Table, console
from contracts import layout
from contracts.errors import ProjectError

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
    """Measure what was asked for; print and keep it, as far as it went. Return 1 if something could not be measured."""
    kept: dict[str, list[dict[str, Any]]] = {}
    left, failed = [*(options.what or SIZES)], False
    try:
        while left:
            try:
                _one(left[0], options, kept)
            except ProjectError as error:  # the others can be measured all the same
                failed = True
                print(f"✗ {_WHAT[left[0]]}: {error}", flush=True)
            left.pop(0)
    except KeyboardInterrupt:
        print(f"\nStopped. What is left: python -m benchmarks growth {' '.join(left)}", file=sys.stderr)
        raise
    finally:
        if kept:
            results.keep("growth", kept)
    return 1 if failed else 0


def table(found: Sequence[Any], what: str) -> Table:
    """Lay out the points, a row each, and the slopes below them."""
    names = [name for name in vars(found[0]) if name != "size"]
    shown = tables.table(what, *(name.replace("_", " ") for name in names))
    for one in found:
        shown.add_row(f"{one.size:,}", *(f"{getattr(one, name):,.4g}" for name in names))
    shown.add_row("slope", *(_slope([(one.size, getattr(one, name)) for one in found]) for name in names))
    return shown


def _one(axis: str, options: argparse.Namespace, kept: dict[str, list[dict[str, Any]]]) -> None:
    """Measure one thing, and put its points among what is kept, also those behind which it failed."""
    sizes = [size for size in options.sizes or SIZES[axis] if size <= (options.most or size)]
    if not sizes:
        raise MeasurementError(f"no size is left up to {options.most}", hint="a larger --most, or other --sizes")
    print(f"{_WHAT[axis]}: {', '.join(map(str, sizes))}", flush=True)
    found = []
    try:
        with tempfile.TemporaryDirectory(prefix="growth-", dir=_home()) as scratch:
            Path(scratch).chmod(0o755)  # root's server becomes somebody else
            for one in _measured(axis, sizes, options, Path(scratch)):
                figures = ", ".join(f"{name} {value:,.4g}" for name, value in vars(one).items() if name != "size")
                print(f"  {one.size:6,}: {figures}", flush=True)  # some take minutes
                found.append(one)
        if not found:
            raise MeasurementError("the model takes none of these sizes", hint="smaller --sizes")
    finally:
        if found:
            console().print(table(found, _WHAT[axis]))
            kept[axis] = [asdict(one) for one in found]


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
    for release in released.newest(root):
        if release.sealed and model in release.models:
            return release.directory
    raise MeasurementError(f"{model} belongs to no sealed release in {layout.shown(root)}", hint="python -m export")


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
