"""What is compared: this checkout and, if one is named, another; of each a server, and the same release without one."""

import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import limit
from benchmarks.errors import MeasurementError
from benchmarks.limit import InProcess
from benchmarks.releases.checkout import Checkout
from benchmarks.serving import load, processes
from benchmarks.speed import stand_in
from contracts import golden, layout

CONNECTIONS = 16  # under which the CPU of a request is measured; the latency, alone


@dataclass(frozen=True)
class Round:
    """What one round gave of one side; CPU is of one request."""

    in_process_ms: float
    in_process_cpu_us: float
    served_ms: float  # median of one connection
    served_cpu_us: float  # of the server's processes, under CONNECTIONS

    @property
    def latency(self) -> float:
        """The served latency in units of that in process."""
        return self.served_ms / self.in_process_ms

    @property
    def cpu(self) -> float:
        """The served CPU time in units of that in process."""
        return self.served_cpu_us / self.in_process_cpu_us


@dataclass(frozen=True)
class Side:
    """A server that is up, and the same release in process."""

    http: str
    pid: int
    requests: Sequence[load.Request]
    bound: InProcess

    def measure(self, seconds: float) -> Round:
        """Measure each of the three things for that long.

        Raises:
            MeasurementError: an answer is wrong or missing.
        """
        alone = self.bound.measure(1, seconds)
        one, _ = self._ask(1, seconds)
        many, cpu_s = self._ask(CONNECTIONS, seconds)
        return Round(
            in_process_ms=alone.p50_ms,
            in_process_cpu_us=alone.cpu_us,
            served_ms=1e3 * float(np.median(one.latency_s)),
            served_cpu_us=1e6 * cpu_s / len(many.outcome),
        )

    def _ask(self, connections: int, seconds: float) -> tuple[load.Log, float]:
        before_s = processes.cpu_s(self.pid)
        log = load.closed_loop(self.http, self.requests, connections, seconds)
        used_s = processes.cpu_s(self.pid) - before_s
        if bad := int((log.outcome != load.Outcome.OK).sum()):
            raise MeasurementError(f"{bad} of {len(log.outcome)} answers of {self.http} were wrong or none")
        return log, used_s


@contextmanager
def opened(checkout: Checkout, served: Path, model: str, called: Path | None = None) -> Iterator[Side]:
    """Serve a repository with a checkout's `deploy`, and load its model in process, for as long as the block runs.

    Args:
        called: The repository of what is loaded in process; None: the served one.

    Raises:
        MeasurementError: the server does not start, the model has no golden requests, or it answers wrong.
    """
    with checkout.serving(served) as up, limit.opened(called or served, model) as bound:
        requests = [load.build(request) for request in golden.find(served, model) if request.rows == 1]
        yield Side(up.http, up.pid, load.with_answers(up.http, requests), bound)


@contextmanager
def stand_in_side(root: Path, place: Path) -> Iterator[Side]:
    """Serve the stand-in of a checkout's own models.

    Args:
        place: A new folder for it.
    """
    stand_in.write(root / "model_repository", place / "model_repository")
    with opened(Checkout(root, place), place / "model_repository", stand_in.MODEL) as side:
        yield side


@contextmanager
def checked_out(what: str) -> Iterator[Path]:
    """Return the root of another checkout: a folder, or a commit's files, which are unpacked as long as the block runs.

    Raises:
        MeasurementError: it is neither.
    """
    if Path(what, "deploy").is_dir():
        yield Path(what).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="commit-") as scratch:
        Path(scratch).chmod(0o755)
        command = ["git", "-C", str(layout.ROOT), "archive", "--format=tar", what]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as git:
            assert git.stdout is not None and git.stderr is not None
            try:
                with tarfile.open(fileobj=git.stdout, mode="r|") as files:
                    files.extractall(scratch, filter="tar")
            except tarfile.ReadError:
                told = git.stderr.read().decode(errors="replace").strip()
                raise MeasurementError(
                    f"{what!r} is neither a checkout nor a commit", note=told, hint="git log --oneline"
                ) from None
        yield Path(scratch)
