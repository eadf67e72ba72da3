"""A release with other settings, served on a real server and asked: what does it answer within the objective?"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.errors import MeasurementError
from benchmarks.releases.checkout import Checkout, Up
from benchmarks.serving import load, processes
from benchmarks.serving.load import Log, Outcome, Request
from benchmarks.tuning.settings_of_model import Configured, Tunable
from contracts import bundle, copying, golden, layout, manifest, model_config
from contracts.bundle import Bundle

CONNECTIONS = (1, 4, 16, 64)  # of the closed loops, of which the best that holds the objective counts
CONFIG_NAME = "cpu"
_SEALS = {manifest.FILE_NAME, manifest.SIGNATURE, bundle.FOLDER}  # of files that a trial changes


@dataclass(frozen=True)
class Objective:
    """What has to hold."""

    p99_ms: float
    per_s: float | None = None  # requests a second, in an open loop, at which it has to hold

    def __str__(self) -> str:
        rate = f" at {self.per_s:g} requests/s" if self.per_s else ""
        return f"p99 of at most {self.p99_ms:g} ms{rate}"


@dataclass(frozen=True)
class Level:
    """One load, and what came of it."""

    connections: int  # of a closed loop; 0: the open loop at the objective's rate
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of a request, of the server's processes
    failed: int

    def holds(self, objective: Objective) -> bool:
        """Tell whether all were answered, and soon enough."""
        return not self.failed and self.p99_ms <= objective.p99_ms


def write(release: Bundle, configured: Mapping[str, Configured], settings: Mapping[str, Tunable], into: Path) -> None:
    """Write the release with other settings into the new repository `into`.

    A sealed one becomes a sealed one, version 1, unsigned: what lies in a repository by itself is served as it lies, so
    that no ensemble of it is run in one process.

    Raises:
        MeasurementError: a setting has no place in its text.
        FolderError, PublishError: a model cannot be copied.
    """
    for name, folder in release.models.items():
        target = into / name
        own = {path.name for path in folder.iterdir() if path.name.isdecimal()} if name == release.network else set()
        copying.copy(folder, target, own, outside=True)
        if name in configured:
            path = target / configured[name].path.relative_to(folder)
            path.unlink()  # a copy is read-only
            path.write_text(configured[name].changed(settings[name]))
    version = into / release.network / "1"
    copying.copy(release.directory, version, _SEALS, outside=True)
    if not release.sealed:
        return
    models = bundle.write(into, release.network, version)
    changed = replace(manifest.read(release.directory), version=1, models=models, files=manifest.files_of(version))
    manifest.write(changed, version)


@contextmanager
def served(repository: Path, place: Path) -> Iterator[Up]:
    """Serve it until the block ends, in a place of its own.

    Raises:
        MeasurementError: it does not load.
    """
    try:
        with Checkout(layout.ROOT, place).serving(repository) as up:
            yield up
    finally:
        shutil.rmtree(place, ignore_errors=True)


def clear(place: Path) -> None:
    """Remove what a search that was killed left in a place, its server among it."""
    if (place / "artifacts").is_dir():
        with suppress(MeasurementError):  # none is up
            Checkout(layout.ROOT, place).deploy("down")
    shutil.rmtree(place, ignore_errors=True)


def requests(http: str, repository: Path, model: str) -> list[Request]:
    """Build what is sent, with the idle server's answers: those of the golden requests that have one row.

    Raises:
        MeasurementError: there are none, or an answer is wrong.
    """
    found = golden.one_way(golden.find(repository, model))
    batches = model_config.read(repository / model / model_config.FILE_NAME).max_batch_size > 0
    built = [load.build(request) for request in found if request.rows == 1 or not batches]
    if not built:
        raise MeasurementError(f"{model} has no golden requests of one sample", hint="export it again")
    return load.with_answers(http, built)


def closed(up: Up, asked: Sequence[Request], connections: int, seconds: float) -> Level:
    """Ask in a closed loop."""
    before_s = processes.cpu_s(up.pid)
    log = load.closed_loop(up.http, asked, connections, seconds)
    return _level(connections, log, processes.cpu_s(up.pid) - before_s, seconds)


def at_rate(up: Up, asked: Sequence[Request], per_s: float, seconds: float) -> Level:
    """Ask in an open loop."""
    random = np.random.default_rng(0)
    count = max(20, round(per_s * seconds))
    schedule = np.sort(random.uniform(0, count / per_s, count))
    before_s = processes.cpu_s(up.pid)
    log = load.open_loop(up.http, asked, schedule, np.arange(count) % len(asked))
    return _level(0, log, processes.cpu_s(up.pid) - before_s, count / per_s)


def _level(connections: int, log: Log, cpu_s: float, seconds: float) -> Level:
    right = log.outcome == Outcome.OK
    if not right.any():
        return Level(connections, 0.0, float("inf"), float("inf"), float("inf"), len(right))
    p50_ms, p99_ms = np.percentile(1e3 * log.latency_s[right], (50, 99)).tolist()
    count = int(right.sum())
    return Level(connections, log.per_s(seconds), p50_ms, p99_ms, 1e6 * cpu_s / count, len(right) - count)
