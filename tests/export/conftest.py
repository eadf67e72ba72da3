"""A subject made from the session's checkpoint, small enough to be proven in a second, and its graphs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.manifest import Recipe
from contracts.spec import Precision
from export import half, int8, pipeline, subject
from export.cache import Cache
from export.progress import Progress
from export.proof import Bench, Request
from export.runners import take
from export.subject import Split, Subject
from training import checkpoints, families

RECIPE = Recipe("modelopt", "max", 128)


def smaller(split: Split, count: int) -> Split:
    return Split(take(split.inputs, slice(count)), None if split.labels is None else split.labels[:count])


@pytest.fixture(scope="session")
def fashion(checkpoint: Path) -> Subject:
    """The checkpoint with 128 images to calibrate, 500 to search and 2,000 held out."""
    family = families.load("fashion")
    whole = subject.from_checkpoint(family, checkpoints.read(checkpoint, family), calibration_samples=128)
    # On 2,000 images even a drop of nothing has an upper bound of 0.14 points.
    limits = {p: dataclasses.replace(x, accuracy_drop_points=1.0) for p, x in whole.spec.limits.items()}
    return dataclasses.replace(
        whole,
        spec=dataclasses.replace(whole.spec, limits=limits),
        search=smaller(whole.search, 500),
        held_out=smaller(whole.held_out, 2000),
    )


@pytest.fixture(scope="session")
def graphs_of_fashion(fashion: Subject, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    directory = tmp_path_factory.mktemp("graphs")
    paths: dict[Precision, Path] = {p: directory / f"{p}.onnx" for p in ("fp32", "fp16", "int8")}
    fashion.write_graph(paths["fp32"])
    half.convert(paths["fp32"], paths["fp16"], take(fashion.calibration, slice(32)))
    int8.quantize(paths["fp32"], paths["int8"], fashion.calibration, RECIPE)
    return paths


@pytest.fixture(scope="session")
def reference_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture
def bench_of(reference_cache: Path) -> Callable[..., Bench]:
    """What a subject's variants are held against; its reference is computed once a session."""

    def make(subject: Subject, **asked: object) -> Bench:
        cache, progress = Cache(reference_cache, {}), Progress()
        request = Request(command="python -m export", **asked)  # type: ignore[arg-type]
        return Bench(subject, request, cache, progress, pipeline.reference(subject, cache, progress))

    return make
