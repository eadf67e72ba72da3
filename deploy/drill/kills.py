"""Kills in a drill: of a worker, of the server, and of the server again and again."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from deploy.drill.server_copy import DrillCopy, Status
from deploy.errors import DrillError
from deploy.served import inside

_MOST_KILLS = 4  # in a row, and the supervisor calls it a loop, whatever happened before
_LOOP = "crash loop"  # the phase


def kill_worker(copy: DrillCopy) -> str:
    """Kill a Python worker, one that runs the upgraded model if there is any: inside an ensemble, or by itself.

    Raises:
        DrillError: the server has none.
    """
    workers = list(_processes("triton_python_backend_stub", f"{copy.artifacts}/"))
    if not workers:
        raise DrillError("there is no Python worker to kill")
    models = {worker: Path(worker.info["cmdline"][1]).parent.parent for worker in workers}
    around = [worker for worker, folder in models.items() if copy.model in inside.steps_of(folder)]
    alone = [worker for worker, folder in models.items() if folder.name == copy.model]
    victim = (around or alone or workers)[0]
    victim.kill()
    return f"SIGKILL to {models[victim].name}'s process {victim.pid}"


def kill_server(copy: DrillCopy) -> str:
    """Kill the copy's tritonserver."""
    [victim] = _processes("tritonserver", f"--model-repository={copy.artifacts}/")
    victim.kill()
    return f"SIGKILL to tritonserver, process {victim.pid}"


def crash_loop(copy: DrillCopy) -> str:
    """Kill the server as soon as it is ready, until its supervisor calls that a loop: it has to say so, and come back.

    Raises:
        DrillError: it does not.
    """
    for kills in range(1, _MOST_KILLS + 1):
        killed = time.monotonic()
        if _LOOP in _phases_until_it_is_back(copy):
            took_s = time.monotonic() - killed
            return f"kills until `deploy status` said {_LOOP!r}: {kills}; ready {took_s:.1f} s after the last"
    raise DrillError(f"{_MOST_KILLS} kills in a row, and `deploy status` never said {_LOOP!r}")


def _phases_until_it_is_back(copy: DrillCopy) -> set[str]:
    """Kill the server; return what `deploy status` says of its phase until it is ready again."""
    restarts, seen = copy.status()["server_restarts"], set[str]()

    def is_back(status: Status) -> bool:
        seen.add(status["phase"])
        return bool(status["ready"]) and status["server_restarts"] > restarts

    kill_server(copy)
    copy.wait_until("the server is ready again", is_back)
    return seen


def _processes(name: str, argument: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or [""]
        if Path(command[0]).name == name and any(word.startswith(argument) for word in command):
            yield process
