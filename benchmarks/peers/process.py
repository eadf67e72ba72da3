"""A server's processes: started, ended, halted while another is measured, and what they took of the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.errors import MeasurementError
from benchmarks.peers.peer import APPS, Peer, Settings
from benchmarks.peers.task import Task
from benchmarks.peers.wrk import Generator
from cli.installing import tool_environments
from deploy.triton.ports import free_ports

_START_S = 180  # Ray takes its time where the machine is busy
_END_S = 10
# A program whose input only the process that started it holds: it ends when that does.
_GUARD = """
import contextlib, psutil, sys
with contextlib.suppress(psutil.NoSuchProcess):
    root = psutil.Process(int(sys.argv[1]))
    sys.stdin.buffer.read()
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
"""


@dataclass(frozen=True)
class Tree:
    """A process with all below it."""

    pid: int

    def processes(self) -> list[psutil.Process]:
        """Return those that there are now."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        return []

    def cpu_s(self) -> float:
        """Return what they have taken of the CPU, with what they have waited for."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory_mb(self) -> float:
        """Return their memory, what they share counted once."""
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total / 1e6

    def halt(self) -> None:
        """Stop them where they are: what is idle still takes some of the CPU, one more than another."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them run again."""
        self._signal(signal.SIGCONT)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let them run for as long as the block does."""
        self.go_on()
        try:
            yield
        finally:
            self.halt()

    def end(self) -> None:
        """End them, whatever they do."""
        processes = self.processes()
        self.go_on()
        try:
            _tell(processes[:1], signal.SIGTERM)
            _, processes = psutil.wait_procs(processes, timeout=_END_S)
        finally:  # also where Ctrl-C is pressed once more
            _tell(processes, signal.SIGKILL)
            psutil.wait_procs(processes, timeout=_END_S)

    def _signal(self, number: int) -> None:
        _tell(self.processes(), number)


def _tell(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextmanager
def serving(peer: Peer, settings: Settings, task: Task, log: Path, generator: Generator) -> Iterator[tuple[str, Tree]]:
    """Run a peer for as long as the block does; yield its address and its processes.

    Raises:
        MeasurementError: it does not answer right, with the end of what it said.
        InstallError: its environment cannot be made.
    """
    programs = tool_environments.programs(peer.environment)
    [port] = free_ports(1)
    with log.open("wb") as output:
        process = subprocess.Popen(
            peer.command(programs, port, settings),
            cwd=APPS,
            env={**_environment(programs, settings, task, log.parent), **peer.variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours
        )
    tree = Tree(process.pid)
    try:
        with guarded(tree):
            try:
                generator.wait_until_ready(f"127.0.0.1:{port}", _START_S, process)
                _hear(peer.last_words, log)
            except MeasurementError as error:
                raise MeasurementError(
                    f"{peer.label} does not serve with {dict(settings)}: {error}", note=said(log)
                ) from error
            yield f"127.0.0.1:{port}", tree
    finally:
        tree.end()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


@contextmanager
def guarded(tree: Tree) -> Iterator[None]:
    """Have a server killed, with all below it, if this process is killed in the block.

    It ends nothing itself then, and what it had halted would stay for good. The kernel's own word for that,
    PR_SET_PDEATHSIG, reaches the first process alone, and not its workers.
    """
    command = [sys.executable, "-I", "-c", _GUARD, str(tree.pid)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.kill()
        guard.communicate()


def _hear(last_words: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while last_words not in log.read_text(errors="replace"):
        if time.monotonic() > deadline:
            raise MeasurementError(f"it did not say {last_words!r} within {_START_S} s")
        time.sleep(0.2)


def said(log: Path) -> str:
    """Return the end of what a server said."""
    return "\n  ".join(log.read_text(errors="replace").strip().splitlines()[-15:])


def versions(peer: Peer) -> dict[str, str]:
    """Return the versions of what a peer is made of, and of what runs the graph in it.

    Raises:
        InstallError: its environment cannot be made.
        MeasurementError: it lacks something.
    """
    programs = tool_environments.programs(peer.environment)
    python = programs / "python"
    names = (*peer.packages, "onnxruntime", "numpy", "pillow")
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        hint = f"remove {programs.parent}: it is made anew"
        raise MeasurementError(f"the environment of {peer.label} is damaged", note=done.stderr[-500:], hint=hint)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _environment(programs: Path, settings: Settings, task: Task, scratch: Path) -> dict[str, str]:
    """Return what a peer is told; of ours it gets what any program needs, and a home of its own."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    return {
        **kept,
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "PYTHONPATH": str(APPS),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": str(settings.get("threads", 1)),
        "PEER_TASK": str(task.folder),
        "PEER_SETTINGS": json.dumps(dict(settings)),
    }
