"""The processes in which Triton's Python backend runs models, one an instance.

Triton 2.51 does not notice that one has died: the model stays READY, and every request to it waits two seconds and
fails with "Stub process … is not healthy", for ever. A plain load of the model does nothing, since its files have
not changed; after a touch of its version directory the same load replaces the worker, and the dead one's requests fail.
"""

import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from contracts import layout
from deploy.errors import ModelError, RepositoryError
from deploy.triton.control import Control

_STUB = "triton_python_backend_stub"
_DEATH_S = 5.0  # that the kernel may take to end a process that was killed
_NEVER_SEEN = ""  # what stands for the instance of a worker that there must have been


@dataclass(frozen=True)
class Worker:
    """A process that runs an instance of a version of a model."""

    model: str
    version: int
    instance: str  # as Triton calls it: MODEL_0_0


def find(shared_memory: str) -> list[psutil.Process]:
    """List the workers of the server whose shared memory's names begin so."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        if any(argument.startswith(shared_memory) for argument in arguments) and _STUB in arguments[0]:
            found.append(process)
    return found


def kill(shared_memory: str, models: Collection[str]) -> set[str]:
    """Kill the workers of these models, and see them die; return the names of those that had any."""
    killed = dict[psutil.Process, str]()
    for process in find(shared_memory):
        worker = identify(process)
        if worker is not None and worker.model in models:
            with suppress(psutil.NoSuchProcess):
                process.kill()
                killed[process] = worker.model
    until = time.monotonic() + _DEATH_S
    while any(_alive(process) for process in killed) and time.monotonic() < until:
        time.sleep(0.01)
    return set(killed.values())


class WorkerWatch:
    """A watch over the workers of one server: which there are, which have died, and how one is replaced."""

    def __init__(self, shared_memory: str) -> None:
        self._shared_memory = shared_memory
        self._known: dict[Worker, psutil.Process] = {}
        self._begun: set[tuple[str, int]] = set()
        self.refresh()

    def refresh(self) -> None:
        """Learn which workers there are, beside those that are known; costs a walk over all processes."""
        self._known |= {
            worker: process
            for process in find(self._shared_memory)
            if _alive(process) and (worker := identify(process)) is not None
        }

    def learn(self, begun: Collection[tuple[str, int]]) -> None:
        """Look at the workers of versions that have begun to serve, also at those that have died before they were seen.

        Args:
            begun: (model, version), ready: all of its workers were there a moment ago.
        """
        self._begun.update(begun)

    def dead(self, control: Control) -> set[Worker]:
        """Return those that have ended although the server still has their version."""
        if not self._begun and all(map(_alive, self._known.values())):
            return set()
        self.refresh()  # one that was replaced by a load is another process now
        missing = {worker for worker, process in self._known.items() if not _alive(process)}
        missing |= {Worker(model, version, _NEVER_SEEN) for model, version in self._begun}
        self._known = {worker: process for worker, process in self._known.items() if worker not in missing}
        self._begun = set()
        if not missing:
            return missing
        ready = {(model.name, model.version) for model in control.models() if model.state == "READY"}
        return {w for w in missing if (w.model, w.version) in ready and self._lacks(w, control)}

    def replace(self, worker: Worker, repository: Path, control: Control) -> None:
        """Make the server start another one in its place.

        Args:
            repository: What the server was given.

        Raises:
            RepositoryError: it cannot be written.
            ModelError: the model did not load.
        """
        directory = repository / worker.model / str(worker.version)
        try:
            os.utime(directory)
        except OSError as error:
            raise RepositoryError(f"cannot touch {layout.shown(directory)}: {error.strerror}") from error
        control.load(worker.model)
        self.refresh()

    def _lacks(self, worker: Worker, control: Control) -> bool:
        """Tell whether the version of a worker that is not there has fewer than it should."""
        with suppress(ModelError):
            if instances := _instances(control.config(worker.model)):
                version = (worker.model, worker.version)
                return sum((known.model, known.version) == version for known in self._known) < instances
        return worker.instance != _NEVER_SEEN


def _instances(config: Mapping[str, Any]) -> int:
    """Return how many workers a version of a Python model has, one for each instance; 0 for another backend's."""
    groups = config.get("instance_group", ()) if config.get("backend") == "python" else ()
    return sum(int(group["count"]) * max(1, len(group.get("gpus", ()))) for group in groups)


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def identify(process: psutil.Process) -> Worker | None:
    """Tell which worker a process is; None if it has ended, or is none."""
    # STUB …/MODEL/VERSION/FILE SHARED_MEMORY … INSTANCE BACKEND_DIRECTORY
    with suppress(psutil.NoSuchProcess, IndexError, ValueError):
        arguments = process.cmdline()
        version = Path(arguments[1]).parent
        return Worker(version.parent.name, int(version.name), arguments[-2])
    return None
