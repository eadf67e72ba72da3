"""A source made from the session's checkpoint, small enough to be proven in a second, and its graphs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.progress import Progress
from contracts.manifest import Recipe
from contracts.spec import Precision
from export import steps
from export.cache import Cache
from export.context import ExportContext, ExportRequest
from export.precision import fp16, int8
from export.proof.runners import take
from export.source.base import ExportSource, Split
from export.source.checkpoint import from_checkpoint
from training import checkpoints, families

RECIPE = Recipe("modelopt", "max", 128)


def smaller(split: Split, count: int) -> Split:
    return Split(take(split.inputs, slice(count)), None if split.labels is None else split.labels[:count])


@pytest.fixture(scope="session")
def fashion(checkpoint: Path) -> ExportSource:
    """The checkpoint with 128 images to calibrate, 500 to search and 2,000 held out."""
    family = families.load("fashion")
    whole = from_checkpoint(family, checkpoints.read(checkpoint, family), calibration_samples=128)
    # On 2,000 images even a drop of nothing has an upper bound of 0.14 points.
    limits = {p: dataclasses.replace(x, accuracy_drop_points=1.0) for p, x in whole.spec.limits.items()}
    return dataclasses.replace(
        whole,
        spec=dataclasses.replace(whole.spec, limits=limits),
        search=smaller(whole.search, 500),
        held_out=smaller(whole.held_out, 2000),
    )


@pytest.fixture(scope="session")
def graphs_of_fashion(fashion: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    directory = tmp_path_factory.mktemp("graphs")
    paths: dict[Precision, Path] = {p: directory / f"{p}.onnx" for p in ("fp32", "fp16", "int8")}
    fashion.write_graph(paths["fp32"])
    fp16.convert(paths["fp32"], paths["fp16"], take(fashion.calibration, slice(32)))
    int8.quantize(paths["fp32"], paths["int8"], fashion.calibration, RECIPE)
    return paths


@pytest.fixture(scope="session")
def reference_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture
def context_of(reference_cache: Path) -> Callable[..., ExportContext]:
    """What a source's variants are held against; its reference is computed once a session."""

    def make(source: ExportSource, **asked: object) -> ExportContext:
        cache, progress = Cache(reference_cache, {}), Progress()
        request = ExportRequest(command="python -m export", **asked)  # type: ignore[arg-type]
        return ExportContext(source, request, cache, progress, steps.reference_outputs(source, cache, progress))

    return make
