"""What is served, computed without a server: the plan in TensorRT, in a rehearsal the graph in ONNX Runtime."""

import runpy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gpu_day import needs
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import StepError
from cli.progress import Progress
from contracts import bundle, golden, layout, manifest, model_config, repository
from contracts.golden import GoldenRequest
from contracts.manifest import Manifest
from contracts.samples import Batch
from deploy.devices import driver, fit
from export.commands import cache_of, find_source
from export.context import ExportContext, ExportRequest
from export.proof.plan_runner import PlanRunner
from export.proof.runners import Runner, onnx_runner
from export.steps import reference_outputs

# Around every bound of a CUDA graph: alone, beneath and at what is captured, one more than that.
SIZES = (1, 2, 5, 16, 17, 63, 64)


@dataclass(frozen=True)
class Served:
    """The newest release of the day, and requests for its network."""

    directory: Path  # of its version
    release: Manifest
    requests: tuple[GoldenRequest, ...]  # for the network itself

    @property
    def model(self) -> str:
        """The network's name."""
        return self.release.model

    def of_rows(self, rows: int) -> GoldenRequest | None:
        """Put so many samples of the same shapes together into a request; None if they do not fit into one."""
        alike: dict[object, list[GoldenRequest]] = {}
        for request in self.requests:
            shapes = tuple((name, values.shape[1:]) for name, values in request.inputs.items())
            alike.setdefault(shapes, []).append(request)
        together = max(alike.values(), key=lambda found: sum(request.rows for request in found))
        first = together[0]
        index = np.arange(rows) % sum(request.rows for request in together)
        try:
            inputs = {n: np.concatenate([r.inputs[n] for r in together])[index] for n in first.inputs}
            answers = {n: np.concatenate([r.answers[n] for r in together])[index] for n in first.answers}
        except (ValueError, IndexError):  # no batch, or rows that depend on the data
            return None
        return GoldenRequest(first.model, inputs, answers, first.tolerance)


def served(day: Day) -> Served:
    """Return the newest release of the day; there is one."""
    folder = needs.network(day)
    assert folder is not None
    directory = folder / str(repository.versions(folder)[-1])
    return Served(directory, manifest.read(directory), golden.find(day.repository, folder.name))


def sizes(most: int) -> list[int]:
    """Return the batch sizes to ask for, of a model that takes so many rows; without batches one."""
    return sorted({*(size for size in SIZES if size <= most), *([most] if most else [])}) or [1]


@contextmanager
def runner(day: Day, release: Served) -> Iterator[Runner]:
    """Open what the server computes with."""
    if day.device == "cpu":
        yield onnx_runner(release.directory / "model.onnx", _outputs(release.requests))
        return
    with PlanRunner(plan(release).read_bytes(), context(day).source.spec) as run:
        yield run


def plan(release: Served) -> Path:
    """Return the plan that Triton loads on the first GPU that it sees.

    Raises:
        StepError: there is none for it.
    """
    found = driver.ask()
    gpus = driver.visible(found.gpus) if found else []
    config = model_config.read(bundle.at(release.directory).models[release.model] / model_config.FILE_NAME)
    files = [release.directory / fit.plan_file(config, gpu) for gpu in gpus[:1]]
    if not (files and files[0].exists()):
        told = f"{files[0].name} is not there" if files else "no GPU is visible"
        raise StepError(f"{release.model} has no plan for the first GPU: {told}")
    return files[0]


def context(day: Day) -> ExportContext:
    """Return what the day's export knew: the source, its splits and the reference's answers, from its cache."""
    # Not imported: `python -m export` in a process that has done so gets a warning.
    command_line = runpy.run_path(str(layout.ROOT / "export" / "__main__.py"))["command_line"]
    options = command_line().parse_args([*day.export, "--repository", str(day.repository)])
    work, progress = layout.artifacts() / "export", Progress()
    source = find_source(options, progress, work)
    cache = cache_of(source.spec, work)
    return ExportContext(source, ExportRequest(""), cache, progress, reference_outputs(source, cache, progress))


def largest_difference(found: Batch, right: Batch) -> float:
    """Return how far two answers are apart; infinite if they cannot be compared."""
    furthest = 0.0
    for name, values in right.items():
        if found[name].shape != values.shape:
            return float("inf")
        if values.dtype.kind in "OSU":
            furthest = max(furthest, float(not np.array_equal(found[name], values)))
        elif values.size:
            apart = np.abs(np.subtract(found[name], values, dtype=np.float64))
            furthest = max(furthest, float(np.nan_to_num(apart, nan=np.inf).max()))
    return furthest


def _outputs(requests: Sequence[GoldenRequest]) -> list[str]:
    return list(requests[0].answers)
