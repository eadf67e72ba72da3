"""A tritonserver: start it, wait for its models, find it again, stop it.

What runs is written down in `artifacts/server/server.json`, so that another process can find it. One server
an artifacts directory; another one needs its own ARTIFACTS_DIR and ports.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

import psutil
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from contracts import layout, manifest, repository, signature
from deploy import environment
from deploy.errors import AlreadyRunningError, ServerError

DIRECTORY = layout.ARTIFACTS / "server"
_STATE = DIRECTORY / "server.json"
_STARTING = DIRECTORY / "up.lock"
_LOG = DIRECTORY / "triton.log"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # Triton's own place for it, not a temporary file of ours
_DRAIN_S = 30  # how long a stopping server may finish what it has accepted


@dataclass(frozen=True)
class Settings:
    """How a server is started."""

    repository: Path = layout.MODEL_REPOSITORY
    device: Literal["auto", "cpu", "gpu"] = "auto"
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    trust: signature.Trust | None = None  # what every release must be signed with


@dataclass(frozen=True)
class Running:
    """A server that was started; it may have died since."""

    pid: int
    created: float  # the process's start time: a process id alone may have been given away again
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    repository: str
    log: str
    shared_memory: str  # what the names of its regions in /dev/shm begin with

    @property
    def http(self) -> str:
        return f"{_in_url(self.host)}:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"{_in_url(self.host)}:{self.grpc_port}"

    @property
    def metrics(self) -> str:
        return f"http://{_in_url(self.host)}:{self.metrics_port}/metrics"

    def process(self) -> psutil.Process | None:
        """Its process, or None if that has ended."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


@dataclass(frozen=True)
class Model:
    """A version of a model as the server sees it."""

    name: str
    version: int
    state: str  # "READY", "LOADING", "UNAVAILABLE", …
    reason: str


def running() -> Running | None:
    """The server that was started from this artifacts directory and still runs."""
    state = _recorded()
    return state if state is not None and state.process() else None


def start(settings: Settings, say: Callable[[str], None]) -> Running:
    """Start a tritonserver in a session of its own, its output in a log file. Does not wait for its models.

    Raises:
        AlreadyRunningError: one is up already.
        SetupError: there is no tritonserver and none could be installed.
        ServerError: the model repository is missing or empty, or a port is in use.
        ManifestError: a version is not what was published.
        SignatureError: `settings.trust` is given and a release is unsigned or not what was signed.
    """
    with _exclusively():
        if (up := running()) is not None:
            raise AlreadyRunningError(
                f"a server is up already: process {up.pid}, http {up.http}, grpc {up.grpc}",
                hint="python -m deploy status, or stop it: python -m deploy down",
            )
        _require_published(settings.repository)
        if settings.trust:
            _require_signed(settings.repository, settings.trust)
        _require_distinct_ports(settings)
        triton = environment.find(say)
        for option in ("http_port", "grpc_port", "metrics_port"):
            _require_free(settings.host, getattr(settings, option), option)
        shared_memory = f"triton_{os.getpid()}_{time.time_ns()}_"
        command = _command(triton, settings, shared_memory)
        with _LOG.open("w") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **triton.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to pass on, once
            )
        try:
            state = Running(
                pid=process.pid,
                created=psutil.Process(process.pid).create_time(),
                host=settings.host,
                http_port=settings.http_port,
                grpc_port=settings.grpc_port,
                metrics_port=settings.metrics_port,
                repository=str(settings.repository),
                log=str(_LOG),
                shared_memory=shared_memory,
            )
            _STATE.write_text(json.dumps(asdict(state)))
        except BaseException:  # nobody would know of it
            process.kill()
            raise
        return state


def wait_until_ready(server: Running, timeout_s: float) -> list[Model]:
    """Wait until every model has loaded; the models, ready.

    Raises:
        ServerError: the server died or took too long, or a model did not load, with Triton's reason.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process() is None:
            raise ServerError("tritonserver ended while starting", note=_last_errors(server), hint=_see_log(server))
        found = models(server)
        if found and not any(model.state == "LOADING" for model in found):
            break
        time.sleep(0.1)
    else:
        raise ServerError(f"the models were not ready within {timeout_s:.0f} s", hint=_see_log(server))
    if broken := not_ready(found):
        reasons = [f"{m.name} version {m.version}: {m.reason}" for m in found if m.name in broken and m.reason]
        # Of an ensemble that never loaded Triton only says that it is not ready.
        silent = broken - {m.name for m in found if m.reason}
        reasons += [f"{name}: a model that it needs is not ready" for name in sorted(silent)]
        raise ServerError("\n  ".join(["not every model loaded:", *reasons]), hint=_see_log(server))
    return found


def models(server: Running) -> list[Model]:
    """Every version the server knows, or nothing while it does not answer."""
    try:
        with InferenceServerClient(server.http, connection_timeout=2, network_timeout=10) as client:
            index = client.get_model_repository_index()
    except (OSError, HTTPException, InferenceServerException):
        return []
    return [
        Model(m["name"], int(m.get("version") or 0), m.get("state", "UNAVAILABLE"), _reason(m.get("reason", "")))
        for m in index
    ]


def not_ready(found: list[Model]) -> set[str]:
    """The models whose newest version does not serve."""
    newest = {model.name: model for model in sorted(found, key=lambda model: model.version)}
    return {model.name for model in newest.values() if model.state != "READY"}


def stop(server: Running) -> None:
    """Stop the server: accepted requests finish, then it ends; after that long it is killed.

    Ctrl-C has no effect meanwhile: an impatient second one would leave the server behind.
    """
    with _undisturbed():
        process = server.process()
        if process is not None:
            family = [process, *process.children(recursive=True)]
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
            _, alive = psutil.wait_procs(family, timeout=_DRAIN_S + 5)
            for survivor in alive:
                with suppress(psutil.NoSuchProcess):
                    survivor.kill()
            psutil.wait_procs(alive, timeout=5)
        for region in _SHARED_MEMORY.glob(f"{server.shared_memory}*"):  # a killed server leaves its own behind
            with suppress(OSError):
                region.unlink()
        with _exclusively():  # another `up` may have written its own state since
            if _recorded() == server:
                _STATE.unlink(missing_ok=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def serving(settings: Settings, say: Callable[[str], None], timeout_s: float = 120) -> Iterator[Running]:
    """A server with every model ready for as long as the block runs.

    Raises:
        AlreadyRunningError, SetupError, ServerError: as `start` and `wait_until_ready`.
    """
    server = start(settings, say)
    try:
        wait_until_ready(server, timeout_s)
        yield server
    finally:
        stop(server)


def _command(triton: environment.Triton, settings: Settings, shared_memory: str) -> list[str]:
    gpu = _has_gpu() if settings.device == "auto" else settings.device == "gpu"
    if gpu and not triton.native:
        if settings.device == "gpu":
            raise ServerError(
                "the pip-installed Triton has no TensorRT backend",
                hint="serve on the GPU with the container: docker compose -f deploy/compose.yaml up",
            )
        gpu = False
    return [
        str(triton.executable),
        *triton.arguments,
        f"--model-repository={settings.repository}",
        *([] if gpu else ["--model-config-name=cpu"]),
        # Explicit: in the other modes one bad model ends the server, or every file change is a reload.
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-on-error=false",  # stay up to say which model and why; `up` stops it then
        "--disable-auto-complete-config",  # config.pbtxt is the contract, not a hint
        f"--http-address={settings.host}",
        f"--http-port={settings.http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={settings.metrics_port}",
        f"--exit-timeout-secs={_DRAIN_S}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory}",
    ]


@contextmanager
def _exclusively() -> Iterator[None]:
    """One process at a time decides which server is the one."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with _STARTING.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _recorded() -> Running | None:
    try:
        return Running(**json.loads(_STATE.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None and Path("/dev/nvidiactl").exists()


def _require_published(root: Path) -> None:
    """Every model has a version to serve, and every version with a manifest is still what was published.

    Triton's own message for a missing version names neither the model nor the remedy.
    """
    configs = sorted(root.glob("*/config.pbtxt"))
    if not configs:
        raise ServerError(f"there is no model repository at {root}")
    empty = [config.parent.name for config in configs if not repository.versions(config.parent)]
    if empty:
        raise ServerError(
            f"no version of {', '.join(empty)} is published in {layout.shown(root)}",
            hint="publish one: python -m export FAMILY",
        )
    for published in root.glob(f"*/[0-9]*/{manifest.FILE_NAME}"):
        manifest.verify(published.parent)


def _require_signed(root: Path, trust: signature.Trust) -> None:
    """Every release verifies. A graph or an engine makes one, lest removing the manifest be a way around this."""
    patterns = (manifest.FILE_NAME, "*.onnx", "*.plan")
    for release in sorted({path.parent for pattern in patterns for path in root.glob(f"*/[0-9]*/{pattern}")}):
        signature.verify(release, trust)


def _require_distinct_ports(settings: Settings) -> None:
    ports = (settings.http_port, settings.grpc_port, settings.metrics_port)
    if len(set(ports)) < len(ports):
        raise ServerError(f"HTTP, gRPC and metrics need a port each, not {', '.join(map(str, ports))}")


def _require_free(host: str, port: int, option: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            raise ServerError(f"{host} is no address of this machine: {error.strerror}") from error
        except OSError as error:
            raise ServerError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint=f"choose another port with --{option.replace('_', '-')}",
            ) from error


def _reason(reason: str) -> str:
    """Triton's reason without the Python traceback that its Python backend appends."""
    return reason.partition("\n\nAt:")[0].strip()


def _last_errors(server: Running, count: int = 5) -> str:
    lines = Path(server.log).read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("E", "error"))] or lines
    return "\n  ".join(errors[-count:])


def _see_log(server: Running) -> str:
    return f"the server's log: {layout.shown(Path(server.log))}"


def as_json(server: Running, found: list[Model]) -> dict[str, Any]:
    """What `status --json` prints."""
    return {
        "running": True,
        "ready": bool(found) and not not_ready(found),
        "pid": server.pid,
        "http": server.http,
        "grpc": server.grpc,
        "metrics": server.metrics,
        "log": server.log,
        "models": [asdict(model) for model in found],
    }
