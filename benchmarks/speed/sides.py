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


@dataclass(frozen=True)
class Round:
    """What one round gave of one side, asked over one connection; CPU is of one request.

    Over one connection nothing is batched: how many requests come together depends on what else a machine does, and
    moves the CPU of a request by more than what is looked for.
    """

    in_process_ms: float
    in_process_cpu_us: float
    served_ms: float  # median
    served_cpu_us: float  # of the server's processes

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
        """Measure both ways for that long each.

        Raises:
            MeasurementError: an answer is wrong or missing.
        """
        alone = self.bound.measure(1, seconds)
        before_s = processes.cpu_s(self.pid)
        log = load.closed_loop(self.http, self.requests, 1, seconds)
        used_s = processes.cpu_s(self.pid) - before_s
        if bad := int((log.outcome != load.Outcome.OK).sum()):
            raise MeasurementError(f"{bad} of {len(log.outcome)} answers of {self.http} were wrong or none")
        return Round(
            in_process_ms=alone.p50_ms,
            in_process_cpu_us=alone.cpu_us,
            served_ms=1e3 * float(np.median(log.latency_s)),
            served_cpu_us=1e6 * used_s / len(log.outcome),
        )


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
