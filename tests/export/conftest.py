"""A source made from the session's checkpoint, small enough to be proven in a second, and its graphs."""

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from cli.progress import Progress
from contracts.manifest import Recipe
from contracts.samples import Split
from contracts.spec import Precision
from export import pipeline, steps
from export.cache import Cache
from export.context import ExportContext, ExportRequest
from export.precision import fp16, int8
from export.proof import timing
from export.source.base import ExportSource
from tests.conftest import Workspace, new_workspace

RECIPE = Recipe("modelopt", "max", 128)
REQUEST = ExportRequest("python -m export fashion", precisions=["fp32", "int8"], search="never", serve=False)


@pytest.fixture(scope="session")
def fashion(checkpoint: Path) -> ExportSource:
    """The checkpoint with 128 images to calibrate, 500 to search and 2,000 held out."""
    from export.source.checkpoint import from_checkpoint
    from training import checkpoints, families

    family = families.load("fashion")
    whole = from_checkpoint(family, checkpoints.read(checkpoint, family), calibration_samples=128)
    # On 2,000 images even a drop of nothing has an upper bound of 0.14 points.
    limits = {p: dataclasses.replace(x, drop=1.0) for p, x in whole.spec.limits.items()}
    return dataclasses.replace(
        whole,
        spec=dataclasses.replace(whole.spec, limits=limits),
        search=whole.search.first(500),
        held_out=whole.held_out.first(2000),
    )


@pytest.fixture(scope="session")
def graphs_of_fashion(fashion: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    directory = tmp_path_factory.mktemp("graphs")
    paths: dict[Precision, Path] = {p: directory / f"{p}.onnx" for p in ("fp32", "fp16", "int8")}
    fashion.write_graph(paths["fp32"])
    fp16.convert(paths["fp32"], paths["fp16"], [*fashion.calibration.first(32).batches(32)])
    int8.quantize(paths["fp32"], paths["int8"], fashion.calibration, RECIPE)
    return paths


@pytest.fixture(scope="session")
def quantized(
    fashion: ExportSource, graphs_of_fashion: dict[Precision, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The network quantized by a recipe, once a session; `dark`: calibrated on black images."""
    directory = tmp_path_factory.mktemp("quantized")

    def make(recipe: Recipe, *, dark: bool = False) -> Path:
        path = directory / f"{recipe.quantizer}-{recipe.method}-{recipe.samples}-{'dark' if dark else 'real'}.onnx"
        calibration = Split.of({"pixels": fashion.calibration.groups[0].inputs["pixels"] * (not dark)})
        return path if path.exists() else int8.quantize(graphs_of_fashion["fp32"], path, calibration, recipe)

    return make


@pytest.fixture(scope="session")
def steps_once(fashion: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an export of the small source keeps of its steps, with FP32 and INT8: made once a session."""
    workspace = new_workspace(tmp_path_factory.mktemp("steps"))
    cache = Cache(workspace.root / "steps", {})
    pipeline.run(fashion, REQUEST, model_directory=workspace.model, cache=cache, progress=Progress())
    return workspace.root / "steps"


@pytest.fixture
def kept_steps(steps_once: Path, workspace: Workspace) -> Path:
    """The same in the test's own workspace. Links will do: a step is replaced as a whole, never written into."""
    return Path(shutil.copytree(steps_once, workspace.root / "steps", copy_function=os.link))


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few timings as decide anything: for tests that do not ask which variant is the fastest."""
    monkeypatch.setattr(timing, "measure", functools.partial(timing.measure, rounds=5))


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


@pytest.fixture(scope="session")
def empty_store(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables; making those takes seconds, so pytest's cache keeps it for the next session."""
    kept = pytestconfig.cache.mkdir("mlflow") / f"{version('mlflow')}.db" if pytestconfig.cache else None
    if kept and kept.exists():
        return kept
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    if kept:
        shutil.copy(path, kept.with_suffix(f".{os.getpid()}"))
        kept.with_suffix(f".{os.getpid()}").rename(kept)
    return path
