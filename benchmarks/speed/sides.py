"""What is compared: this checkout and, if one is named, another; of each a server, and the same release without one."""

import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import limit
from benchmarks.errors import MeasurementError
from benchmarks.limit import InProcess
from benchmarks.releases.checkout import Checkout
from benchmarks.serving import load, processes
from benchmarks.speed import stand_in
from contracts import golden, layout

_FEWEST = 50  # requests to each server in a round
_PATIENCE_S = 10.0  # for an answer


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

    connection: socket.socket
    pid: int
    requests: Sequence[load.Request]
    bound: InProcess

    def latency_s(self, turn: int) -> float:
        """Send a request; return how long its answer took.

        Raises:
            MeasurementError: it is wrong, or there is none.
        """
        request = self.requests[turn % len(self.requests)]
        began = time.perf_counter()
        try:
            answer = load.exchange(self.connection, request)
        except OSError as error:
            raise MeasurementError(f"the server does not answer: {error}") from error
        took_s = time.perf_counter() - began
        if answer != request.answer and not load.is_right(request, answer):
            raise MeasurementError("the server answers wrong", note=answer[:200].decode(errors="replace"))
        return took_s


def measure(sides: Mapping[str, Side], seconds: float) -> dict[str, Round]:
    """Measure one round: each side in process, then all servers, a request of each in strict turn.

    So whatever else the machine does, it does to all of them.

    Args:
        seconds: Of each side in process, and of each server.

    Raises:
        MeasurementError: an answer is wrong or missing.
    """
    alone = {name: side.bound.measure(1, seconds) for name, side in sides.items()}
    latencies_s: dict[str, list[float]] = {name: [] for name in sides}
    before_s = {name: processes.cpu_s(side.pid) for name, side in sides.items()}
    names, turn, until = [*sides], 0, time.perf_counter() + len(sides) * seconds
    while time.perf_counter() < until or turn < _FEWEST:
        for name in names if turn % 2 else reversed(names):  # nobody is always the first after a pause
            latencies_s[name].append(sides[name].latency_s(turn))
        turn += 1
    return {
        name: Round(
            in_process_ms=alone[name].p50_ms,
            in_process_cpu_us=alone[name].cpu_us,
            served_ms=1e3 * median(latencies_s[name]),
            served_cpu_us=1e6 * (processes.cpu_s(side.pid) - before_s[name]) / turn,
        )
        for name, side in sides.items()
    }


@contextmanager
def opened(checkout: Checkout, served: Path, model: str, called: Path | None = None) -> Iterator[Side]:
    """Serve a repository with a checkout's `deploy`, and load its model in process, for as long as the block runs.

    Args:
        called: The repository of what is loaded in process; None: the served one.

    Raises:
        MeasurementError: the server does not start, the model has no golden requests, or it answers wrong.
    """
    with checkout.serving(served) as up, limit.opened(called or served, model) as bound:
        known = golden.one_way(golden.find(served, model))
        requests = [load.build(request) for request in known if request.rows == 1]
        with socket.create_connection(load.host_and_port(up.http), timeout=_PATIENCE_S) as connection:
            yield Side(connection, up.pid, load.with_answers(up.http, requests), bound)


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
