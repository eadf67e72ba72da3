"""Upgrade a server and kill parts of it, under load: what do its clients notice? On a copy of the repository.

Every event is the command that a user types, with quiet time before and after it. What the requests say of it is
in `outcome.py`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import rich.progress
from rich.console import Console
from tritonclient.http import InferenceServerClient

from contracts import layout, manifest, repository
from contracts.errors import ProjectError
from deploy import ensembles, payload
from deploy.errors import ServerError
from deploy.outcome import Event, Outcome
from deploy.ports import free_ports
from deploy.traffic import Connect, Tensors, Traffic, bare

_PATIENCE_S = 60.0  # for every connection to be answered again
_SILENCE = f"not every connection is answered {_PATIENCE_S:.0f} s later"
_PICTURES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class Settings:
    """What to drill, and how much."""

    repository: Path = layout.MODEL_REPOSITORY
    model: str | None = None  # the one that is upgraded; by default the first release
    images: tuple[Path, ...] = ()  # what is sent for inputs of strings; by default examples, or plain grey
    requests: int = 20_000  # at least
    connections: int = 8
    quiet_s: float = 3.0  # at least, between the events


@dataclass(frozen=True)
class Ground:
    """A copy of a model repository with a server of its own."""

    root: Path
    model: str
    http: str
    grpc: str

    @property
    def repository(self) -> Path:
        return self.root / "model_repository"

    @property
    def directory(self) -> Path:
        return self.repository / self.model

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """`python -m deploy ARGUMENTS…`, as a user would, with artifacts and a repository of its own."""
        own = {"ARTIFACTS_DIR": str(self.root / "artifacts"), "MODEL_REPOSITORY": str(self.repository)}
        return subprocess.Popen(
            [sys.executable, "-m", "deploy", *map(str, arguments)],
            cwd=layout.ROOT,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours: it ends the drill, and that its server
        )

    def deploy(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Run it; its exit code, standard output and standard error."""
        with self.start(*arguments) as process:
            output, errors = process.communicate()
        return process.returncode, output, errors

    def must(self, *arguments: str | Path) -> str:
        """Run it; the last line but `Next: …`.

        Raises:
            ServerError: it failed.
        """
        code, output, errors = self.deploy(*arguments)
        if code != 0:
            raise ServerError(f"python -m deploy {' '.join(map(str, arguments))} failed", note=errors.strip())
        return [line for line in output.splitlines() if not line.startswith("Next: ")][-1].strip()


Action = Callable[[Ground], str]  # does it and returns what to say of it; raises ServerError if it went wrong


def new_version(ground: Ground) -> str:
    with _next_version(ground):
        pass
    return ground.must("reload", ground.model)


def same_version_overwrite(ground: Ground) -> str:
    newest = ground.directory / str(repository.versions(ground.directory)[-1])
    for path in [path for path in newest.rglob("*") if path.is_file()]:
        copy = path.with_name(f".{path.name}")
        shutil.copyfile(path, copy)
        copy.rename(path)
    return ground.must("reload", ground.model)


def bad_version(ground: Ground) -> str:
    with _next_version(ground) as directory:
        for path in [path for path in directory.rglob("*") if path.suffix in (".onnx", ".plan")]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, output, errors = ground.deploy("reload", ground.model)
    _, refused, reason = errors.partition("did not load\nNote: ")
    if code == 0 or not refused:
        raise ServerError("a truncated graph was not refused", note=output + errors)
    return f"refused: {reason.splitlines()[0]}"


def roll_back(ground: Ground) -> str:
    return ground.must("rollback", ground.model)


def worker_killed(ground: Ground) -> str:
    workers = list(_processes("triton_python_backend_stub", f"{ground.repository}/"))
    if not workers:
        raise ServerError("there is no Python worker to kill")
    of_the_model = [worker for worker in workers if f"{ground.directory}/" in worker.info["cmdline"][1]]
    victim = (of_the_model or workers)[0]
    victim.kill()
    return f"SIGKILL to {Path(victim.info['cmdline'][1]).parent.parent.name}'s process {victim.pid}"


def server_killed(ground: Ground) -> str:
    [victim] = _processes("tritonserver", f"--model-repository={ground.repository}")
    victim.kill()
    return f"SIGKILL to tritonserver, process {victim.pid}"


# What is done, and within how many seconds every client has to be served again; None: not one request may fail.
EVENTS: tuple[tuple[str, Action, float | None], ...] = (
    ("new version", new_version, None),
    ("same-version overwrite", same_version_overwrite, None),
    ("bad version", bad_version, None),
    ("roll back", roll_back, None),
    ("stub killed", worker_killed, 3.0),
    ("server killed", server_killed, 10.0),
)


def run(
    settings: Settings, events: Sequence[tuple[str, Action, float | None]] = EVENTS, connect: Connect = bare
) -> Outcome:
    """Do `events` one after the other, under load. Says on stderr how far it is.

    Args:
        connect: How the requests are sent; by default without retries.

    Raises:
        ServerError: there is no release to upgrade, or the server does not start or answer.
    """
    began = datetime.now(UTC)
    done: list[Event] = []
    with _bar(settings.requests) as (bar, say), _ground(settings, say) as ground:
        model, payloads = _payloads(ground, settings)
        say(f"{settings.connections} connections send requests to {model}; {ground.model} is upgraded")
        with Traffic(ground.http, ground.grpc, model, payloads, settings.connections, connect) as traffic:
            for number, (name, act, limit_s) in enumerate(events, start=1):
                _quiet(traffic, settings, number / (len(events) + 1), bar)
                done.append(_happen(traffic, ground, name, act, limit_s))
                say(f"{'✗' if done[-1].problem else '✓'} {name}: {done[-1].problem or done[-1].detail}")
                if done[-1].problem.endswith(_SILENCE):
                    break
            else:
                _quiet(traffic, settings, 1, bar)
            sent = traffic.sent()
    return Outcome(began, model, settings.connections, tuple(sent), tuple(done))


def _happen(traffic: Traffic, ground: Ground, name: str, act: Action, limit_s: float | None) -> Event:
    """Have it happen, and wait until every connection is answered again."""
    start_s, detail, problem = traffic.now_s(), "", ""
    try:
        detail = act(ground)
    except ProjectError as error:
        problem = str(error)
    done_s = traffic.now_s()
    while not traffic.answered_since(done_s):
        if traffic.now_s() > done_s + _PATIENCE_S:
            problem = f"{problem}; {_SILENCE}" if problem else _SILENCE
            break
        time.sleep(0.01)
    return Event(name, start_s, traffic.now_s(), limit_s, detail, problem)


def _quiet(traffic: Traffic, settings: Settings, share: float, bar: Callable[[int], None]) -> None:
    """Some quiet, until that share of the requests was sent."""
    until_s = traffic.now_s() + settings.quiet_s
    while traffic.now_s() < until_s or traffic.count() < share * settings.requests:
        bar(traffic.count())
        time.sleep(0.1)


@contextmanager
def _bar(total: int) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """A progress bar on stderr, and who prints above it."""
    console = Console(stderr=True, highlight=False)
    columns = (rich.progress.SpinnerColumn(), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), "requests")
    quiet = not console.is_terminal  # a bar in a log file is a line of noise
    with rich.progress.Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("", total=total)
        yield (
            lambda completed: progress.update(task, completed=completed),
            lambda line: console.print(f"  {line}", soft_wrap=True, markup=False),
        )


@contextmanager
def _ground(settings: Settings, say: Callable[[str], None]) -> Iterator[Ground]:
    """A server of its own over a copy of the repository, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="drill-") as scratch:
        root = Path(scratch)
        root.chmod(0o755)  # root's server becomes nobody
        hidden = shutil.ignore_patterns(".*")  # parked, staged
        shutil.copytree(settings.repository, root / "model_repository", ignore=hidden)
        http, grpc, metrics = free_ports()
        ground = Ground(root, settings.model or _release(settings.repository), f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
        say(f"Starting a server over a copy of {layout.shown(settings.repository)}")
        try:
            ports = ("--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
            ground.must("up", "--detach", *map(str, ports))
            yield ground
        finally:
            down = ground.start("down")
            while down.poll() is None:
                with suppress(KeyboardInterrupt, SystemExit):  # an impatient second Ctrl-C would leave it behind
                    down.wait()


def _release(root: Path) -> str:
    for directory in sorted(path for path in root.glob("*") if path.is_dir()):
        if any((directory / str(version) / manifest.FILE_NAME).exists() for version in repository.versions(directory)):
            return directory.name
    raise ServerError(f"nothing is published in {layout.shown(root)}", hint="python -m export FAMILY")


def _payloads(ground: Ground, settings: Settings) -> tuple[str, list[Tensors]]:
    """To whom the requests go, the ensemble above the model if there is one, and what is in them."""
    model = next(iter(ensembles.above(ground.repository, ground.model)), ground.model)
    examples = (layout.EXAMPLES / model).glob("*") if (layout.EXAMPLES / model).is_dir() else ()
    pictures = settings.images or sorted(path for path in examples if path.suffix in _PICTURES)
    count = settings.connections
    contents = [path.read_bytes() for path in pictures[:count]] or [
        payload.grey_png(255 * i // count) for i in range(count)
    ]
    with InferenceServerClient(ground.http) as client:
        metadata = client.get_model_metadata(model)
    return model, [payload.tensors(metadata, content) for content in contents]


@contextmanager
def _next_version(ground: Ground) -> Iterator[Path]:
    """A copy of the newest version, to be changed in the block, published as the next one. Unsigned."""
    newest = ground.directory / str(repository.versions(ground.directory)[-1])
    with repository.new_version(ground.directory) as staged:
        shutil.copytree(newest, staged.directory, dirs_exist_ok=True)
        (staged.directory / manifest.SIGNATURE).unlink(missing_ok=True)
        yield staged.directory
        release = replace(manifest.read(newest), version=staged.version, files=manifest.files_of(staged.directory))
        manifest.write(release, staged.directory)


def _processes(name: str, argument: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or [""]
        if Path(command[0]).name == name and any(word.startswith(argument) for word in command):
            yield process
