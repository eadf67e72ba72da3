"""The limit: what this machine answers where nothing stands between a request and the model.

A release's own steps and its graph, called on its golden requests in processes of their own, with the Python and the
packages that the server's models have: no protocol, no queue, no copy. Every server's figures are a share of these.

  with limit.opened(repository, "shirts", processes=2) as limit:
      limit.measure(rows=16, seconds=2).per_s
"""

import argparse
import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import results, target
from benchmarks.errors import MeasurementError
from benchmarks.releases import released
from benchmarks.rounds import in_turn, median_interval
from benchmarks.workload import Workload
from cli import tables
from cli.tables import console
from clients.core.metadata import ModelMetadata
from contracts import golden, layout, manifest, model_config
from contracts.bundle import Bundle
from contracts.golden import GoldenRequest
from deploy.triton import environment

ROWS = (1, 4, 8, 16, 32, 64)  # samples in a call, of which the best is the limit
_CPU = "cpu"  # the configuration that is served without a GPU
_IN_PROCESS = Path(__file__).with_name("in_process.py")


@dataclass(frozen=True)
class Figures:
    """What a measurement gave; a call is of `rows` samples."""

    rows: int
    processes: int
    threads: int  # of ONNX Runtime, in each process
    per_s: float  # samples a second, of all processes
    p50_ms: float  # of a call
    p99_ms: float
    cpu_us: float  # of a sample


def main(arguments: argparse.Namespace) -> int:
    """Measure one call at a time, and all cores at every size of a call."""
    where, rounds, seconds = target.repository(), arguments.rounds, arguments.seconds
    with opened(where, arguments.model) as one, opened(where, arguments.model, cores()) as all_:
        ways = {(1, 1): functools.partial(one.measure, 1, seconds)}
        ways |= {(all_.processes, n): functools.partial(all_.measure, n, seconds) for n in ROWS if all_.takes(n)}
        found = in_turn(ways, rounds)
    title = f"{arguments.model} in process, medians of {rounds} rounds (95 %)"
    shown = tables.table("processes", "samples a call", "samples/s", "p50 ms", "CPU µs a sample", title=title)
    for (processes, rows), by_round in found.items():
        columns = ([getattr(one, name) for one in by_round] for name in ("per_s", "p50_ms", "cpu_us"))
        per_s, p50_ms, cpu_us = map(median_interval, columns)
        shown.add_row(str(processes), str(rows), per_s.spread, f"{p50_ms.median:.3f}", f"{cpu_us.median:,.0f}")
    console().print(shown)
    kept = {"model": arguments.model, "graph": one.graph_sha256}
    results.keep("limit", {**kept, "rounds": [asdict(one) for by_round in found.values() for one in by_round]})
    return 0


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class InProcess:
    """A release that is loaded, in one process or several, and waits to be run."""

    def __init__(
        self, workload: Workload, workers: Sequence["subprocess.Popen[str]"], threads: int, graph: Path, scratch: Path
    ) -> None:
        self._workload, self._workers, self._scratch = workload, workers, scratch
        self.threads, self.processes = threads, len(workers)
        self.graph_sha256 = manifest.sha256(graph)

    def takes(self, rows: int) -> bool:
        """Tell whether a call may hold so many samples."""
        return rows <= max(1, self._workload.max_batch_size)

    def measure(self, rows: int, seconds: float) -> Figures:
        """Call it over and over in every process, and check the answers.

        Raises:
            MeasurementError: an answer is wrong, or a process ended.
        """
        folder = self._scratch / str(rows)
        if not folder.is_dir():
            folder.mkdir()
            golden.write(self._workload.of_rows(rows), folder)
        for worker in self._workers:
            _tell(worker, {"requests": str(folder), "seconds": seconds})
        found = [_told(worker, self._workload.model) for worker in self._workers]
        calls = sum(each["calls"] for each in found)
        return Figures(
            rows=rows,
            processes=self.processes,
            threads=self.threads,
            per_s=rows * sum(each["calls"] / each["seconds"] for each in found),
            p50_ms=1e3 * sum(each["p50_s"] for each in found) / len(found),
            p99_ms=1e3 * max(each["p99_s"] for each in found),
            cpu_us=1e6 * sum(each["cpu_s"] for each in found) / (rows * calls),
        )


@contextmanager
def opened(
    root: Path, model: str, processes: int = 1, threads: int = 1, asked: Sequence[GoldenRequest] = ()
) -> Iterator[InProcess]:
    """Load the newest release of `model`, an ensemble or a network of the repository, for as long as the block runs.

    Args:
        threads: Of ONNX Runtime in each process.
        asked: What it is called with; by default all golden requests of its release.

    Raises:
        MeasurementError: it has no golden requests, or a step that only a server can run.
        ManifestError, ModelConfigError: the release is damaged.
        SetupError: the server's environment cannot be made.
    """
    release = released.asked(root, model)
    requests = tuple(asked) or golden.one_way(golden.find(root, model))
    steps = _steps(release, model)
    outputs = list(dict.fromkeys(name for request in requests for name in request.answers))
    described = {"steps": steps, "outputs": outputs, "threads": threads}
    batch = model_config.read(release.models[model] / model_config.FILE_NAME).max_batch_size
    workload = Workload(ModelMetadata(model, (), (), batch), requests, f"{len(requests)} golden requests")
    with tempfile.TemporaryDirectory(prefix="limit-") as scratch, ExitStack() as opened_:
        workers = [opened_.enter_context(_worker(described, model)) for _ in range(processes)]
        [graph] = [step["graph"] for step in steps if step["graph"]][:1] or [""]
        yield InProcess(workload, workers, threads, Path(graph), Path(scratch))


def _steps(release: Bundle, model: str) -> list[dict[str, Any]]:
    """Describe the steps of an ensemble, or the one that a network is."""
    config = model_config.read(release.models[model] / model_config.FILE_NAME)
    if not config.ensemble_scheduling.step:
        inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (config.input, config.output))
        return [_step(release, model, dict(zip(inputs, inputs, strict=True)), dict(zip(outputs, outputs, strict=True)))]
    return [
        _step(release, step.model_name, dict(step.input_map), dict(step.output_map))
        for step in config.ensemble_scheduling.step
    ]


def _step(release: Bundle, name: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToJson

    folder = release.models[name]
    config = model_config.read(model_config.chosen(folder, _CPU))
    graph = release.directory / (config.default_model_filename or "model.onnx")
    if graph.is_dir():
        graph /= "model.onnx"
    source = next(iter(sorted(folder.glob("[0-9]*/model.py"))), None)
    is_graph = config.backend == "onnxruntime" and name == release.network
    if not (is_graph or (config.backend == "python" and source)):
        raise MeasurementError(
            f"{name} cannot be called outside of a server", note=f"its backend is {config.backend or config.platform!r}"
        )
    return {
        "name": name,
        "graph": str(graph) if is_graph else "",
        "source": "" if is_graph else str(source),
        "folder": str(folder),
        "config": MessageToJson(config, preserving_proto_field_name=True),
        "inputs": inputs,
        "outputs": outputs,
    }


@contextmanager
def _worker(described: Mapping[str, Any], model: str) -> Iterator["subprocess.Popen[str]"]:
    triton = environment.find(lambda line: None)
    packages = triton.environment.get("PYTHONPATH", "")
    path = os.pathsep.join(filter(None, (packages, str(layout.ROOT))))
    with subprocess.Popen(
        [environment.models_python().executable, "-P", str(_IN_PROCESS)],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is ours: it ends when its standard input does
    ) as process:
        _tell(process, described)
        _told(process, model)
        yield process


def _tell(worker: "subprocess.Popen[str]", line: Mapping[str, Any]) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps(line) + "\n")
        worker.stdin.flush()
    except BrokenPipeError:  # it has ended, and does not answer either
        pass


def _told(worker: "subprocess.Popen[str]", model: str) -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    found: dict[str, Any] = json.loads(line) if line else {"error": "its process ended: see above"}
    if "error" in found:
        raise MeasurementError(f"{model} does not run outside of a server", note=found["error"])
    return found
