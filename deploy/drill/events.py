"""What a drill does to a server: each event is the command that a user types, or a kill."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from contracts import repository
from deploy.drill.server_copy import DrillCopy, next_version
from deploy.errors import DrillError

Action = Callable[[DrillCopy], str]  # does it and returns what to say of it; raises DrillError if it went wrong


def publish_new_version(copy: DrillCopy) -> str:
    """Publish a copy of the newest version as the next one, and reload."""
    with next_version(copy.directory):
        pass
    return copy.must("reload", copy.model)


def overwrite_version(copy: DrillCopy) -> str:
    """Replace every file of the newest version by a copy of itself, and reload."""
    newest = copy.directory / str(repository.versions(copy.directory)[-1])
    for path in [path for path in newest.rglob("*") if path.is_file()]:
        again = path.with_name(f".{path.name}")
        shutil.copyfile(path, again)
        again.rename(path)
    return copy.must("reload", copy.model)


def publish_bad_version(copy: DrillCopy) -> str:
    """Publish a version with truncated graphs and plans; the reload has to refuse it.

    Raises:
        DrillError: it was not refused.
    """
    with next_version(copy.directory) as directory:
        for path in [path for path in directory.rglob("*") if path.suffix in (".onnx", ".plan")]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, output, errors = copy.deploy("reload", copy.model)
    _, refused, reason = errors.partition("did not load\nNote: ")
    if code == 0 or not refused:
        raise DrillError("a truncated graph was not refused", note=output + errors)
    return f"refused: {reason.splitlines()[0]}"


def roll_back(copy: DrillCopy) -> str:
    """Roll back to the version before."""
    return copy.must("rollback", copy.model)


def kill_worker(copy: DrillCopy) -> str:
    """Kill a Python worker, one of the upgraded model if it has any.

    Raises:
        DrillError: the server has none.
    """
    workers = list(_processes("triton_python_backend_stub", f"{copy.artifacts}/"))
    if not workers:
        raise DrillError("there is no Python worker to kill")
    of_the_model = [worker for worker in workers if f"/{copy.model}/" in worker.info["cmdline"][1]]
    victim = (of_the_model or workers)[0]
    victim.kill()
    return f"SIGKILL to {Path(victim.info['cmdline'][1]).parent.parent.name}'s process {victim.pid}"


def kill_server(copy: DrillCopy) -> str:
    """Kill the copy's tritonserver."""
    [victim] = _processes("tritonserver", f"--model-repository={copy.artifacts}/")
    victim.kill()
    return f"SIGKILL to tritonserver, process {victim.pid}"


# What is done, and within how many seconds every client has to be served again; None: not one request may fail.
EVENTS: tuple[tuple[str, Action, float | None], ...] = (
    ("new version", publish_new_version, None),
    ("same-version overwrite", overwrite_version, None),
    ("bad version", publish_bad_version, None),
    ("roll back", roll_back, None),
    ("stub killed", kill_worker, 3.0),
    ("server killed", kill_server, 10.0),
)


def _processes(name: str, argument: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or [""]
        if Path(command[0]).name == name and any(word.startswith(argument) for word in command):
            yield process
