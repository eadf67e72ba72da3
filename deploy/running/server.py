"""A tritonserver of this process: start it, wait for its models, stop it; or take down another process's."""

import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from cli import children
from deploy.devices import chosen, driver, fit, plans
from deploy.errors import AlreadyRunningError, RepositoryError, SettingsError, StartError
from deploy.layers import layer
from deploy.neighbours import held_ports, variables
from deploy.neighbours.held_ports import HeldPorts
from deploy.neighbours.identity import Identity
from deploy.running import hold, logs, pulse, workers
from deploy.running.memory import Limit
from deploy.running.progress import Progress
from deploy.served import content, inside, missing, private
from deploy.served.private import PrivateDirectory
from deploy.triton import arguments, checks, environment, launch, released, state
from deploy.triton.control import Control, ModelVersion, models_not_ready
from deploy.triton.environment import Triton
from deploy.triton.released import LeftOut
from deploy.triton.settings import Settings, served_home
from deploy.triton.state import Case, Process, Running

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # Triton's own place for it, not a temporary file of ours
_GRACE_S = 5  # beyond the drain time, before it is killed
SEE_LOG = "the server's log: python -m deploy logs"


@dataclass
class Server:
    """A tritonserver that this process started. Others know it by its `state`."""

    state: Running
    process: "subprocess.Popen[bytes]"
    recorder: threading.Thread  # writes the log
    started: float  # seconds since the epoch
    watch: workers.WorkerWatch
    progress: Progress
    private: PrivateDirectory  # what Triton is given lies in there
    ports: HeldPorts  # nobody takes them while it is restarted
    left_out: list[LeftOut]  # when it was started
    later: list[str]  # not loaded with the others: each step before the ensembles above
    memory: Limit | None

    def update(self, **changes: Any) -> None:
        """Write down what has changed, for others to read."""
        self.state = replace(self.state, **changes)
        state.record(self.state)

    def end(self) -> str | None:
        """Say how it ended; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def start(
    settings: Settings,
    say: Callable[[str], None],
    replaces: Server | None = None,
    failed: Mapping[str, str] = MappingProxyType({}),
    later: Collection[str] = (),
    *,
    held: bool = False,
) -> Server:
    """Start a tritonserver, its log recorded. Does not wait for its models.

    Args:
        replaces: The one that it takes the place of.
        failed: {model that shall be left out, with all that needs it: why}.
        later: Models that shall not be loaded with the others, nor those that need them.
        held: With releases in it, it shall not be ready before they were asked: `hold` has to be taken out then.

    Raises:
        AlreadyRunningError: one is up already.
        SetupError: there is no tritonserver and none could be installed.
        RequirementsError: a model's own packages could not be locked or installed.
        SettingsError, RepositoryError, ManifestError, SignatureError: as `checks.before_start` and `content.put`.
        StartError: as `launch.start`, or nothing is left to serve.
    """
    with state.locked():
        if replaces is None:
            _take_over(say)
        failed = {**failed, **checks.before_start(settings, held=replaces is not None)}
        triton = environment.find(say, gpu=settings.device == "gpu")
        trust = settings.trust
        if trust is None:  # else nothing is installed that was not verified
            layer.ensure(settings.repository, say)
            layer.check_found(settings.repository, triton)
        user = checks.user_to_become(settings, triton, served_home(), say)
        shared_memory = f"triton_{os.getpid()}_{secrets.token_hex(8)}_"
        name = _configuration(triton, settings, say if replaces is None else lambda _: None)
        left_out = _or_nothing(settings, released.left_out(settings.repository, name, failed))
        ports = replaces.ports if replaces else _hold_ports(settings, user)
        served = replaces.private if replaces else private.make(user)
        with _removed_on_error(served, ports, unless=replaces is not None):
            served.empty()
            wanted = content.choose(settings.repository, released.names(left_out))
            broken = content.put(wanted, served.repository, name, trust, say)
            if broken and settings.strict:
                raise next(iter(broken.values()))
            failed |= {model: str(error) for model, error in broken.items()}
            if name is None:  # config.pbtxt, which is for a GPU
                failed |= _look_at_gpus(triton, settings, served.repository, say)
            left_out = missing.left_out(settings.repository, served.repository, name, failed)
            left_out = _or_nothing(settings, left_out)
            layer.ensure(served.repository, say)  # what releases have locked, whatever git has by now
            layer.check_found(served.repository, triton)
            out = released.names(left_out)
            held_back = released.with_all_above(
                served.repository, _loaded_with(set(later), served.repository) - out, name
            )
            if held_back or (held and wanted.releases):
                hold.put(served.repository)
            given = replace(settings, repository=served.repository)
            command = arguments.tritonserver_command(triton, given, shared_memory, out.union(held_back))
            started, progress = time.time(), Progress()
            if settings.http_socket:
                _make_way(settings.http_socket, user)
            given_variables = variables.allowed(os.environ, settings.variables)
            process = launch.start(command, {**given_variables, **triton.environment}, user, subprocess.PIPE)
        try:
            memory = Limit.of(process.pid, settings.memory_bytes) if settings.memory_bytes else None
            recorder = threading.Thread(
                target=logs.record, args=(process.stdout, state.log_file(), progress.hear), daemon=True
            )
            recorder.start()
            running = Running(
                triton=Process.of(process.pid),
                supervisor=Process.of(os.getpid()),
                phase="restarting" if replaces else "starting",
                host=settings.host,
                http_port=settings.http_port,
                http_socket=str(settings.http_socket) if settings.http_socket else None,
                grpc_port=settings.grpc_port,
                metrics_port=settings.metrics_port,
                repository=str(settings.repository),
                served=str(served.repository),
                admin_key_file=str(settings.admin_key_file) if settings.admin_key_file else None,
                shared_memory=shared_memory,
                drain_s=settings.drain_s,
                config_name=name,
                native=triton.native,
                **state.trusting(trust),
                grpc_tls=settings.tls is not None,
                server_restarts=replaces.state.server_restarts + 1 if replaces else 0,
                worker_restarts=replaces.state.worker_restarts if replaces else 0,
                left_out={model: Case(reason, "") for model, reason in failed.items()},
                memory=str(memory) if memory else None,
            )
            state.record(running)
        except BaseException:  # nobody would know of it
            process.kill()
            if replaces is None:
                served.remove()
                ports.release()
            raise
        watch = workers.WorkerWatch(shared_memory)
        return Server(running, process, recorder, started, watch, progress, served, ports, left_out, held_back, memory)


def wait_until_ready(server: Server, timeout_s: float) -> list[ModelVersion]:
    """Wait until every model that is not left out has loaded and warmed up; return their versions.

    Raises:
        StartError: the server died or took too long, or a model did not load, with Triton's reason.
    """
    deadline = time.monotonic() + timeout_s
    with Control(server.state) as control:
        while time.monotonic() < deadline:
            if ended := server.end():
                raise died_while_starting(server, ended)
            answers = control.live()  # asked first: when it answers, it has loaded what it can
            found = released.without(control.models(), server.left_out)
            if answers and not found:
                raise loaded_nothing(server)
            if found and not any(model.state == "LOADING" for model in found):
                break
            time.sleep(0.1)
        else:
            note = logs.last_errors(state.log_file(), 5, server.started)
            raise StartError(f"the models were not ready within {timeout_s:.0f} s", note=note, hint=SEE_LOG)
        if broken := models_not_ready(found):
            raise StartError("\n  ".join(["not every model loaded:", *_reasons(found, broken)]), hint=SEE_LOG)
        if not control.ready():
            raise StartError("every model loaded, and yet the server says that it is not ready", hint=SEE_LOG)
    server.watch.refresh()  # before anybody is told: one that dies from now on has been seen
    server.update(phase="ready")
    return found


def died_while_starting(server: Server, ended: str) -> StartError:
    """Return the error of a server that ended before it served, with its last words."""
    server.recorder.join(timeout=2)
    note = logs.last_errors(state.log_file(), 5, server.started)
    return StartError(f"tritonserver {ended} while starting", note=note, hint=SEE_LOG)


def loaded_nothing(server: Server) -> StartError:
    """Return the error of a server that answers and knows no model: no waiting will change that."""
    note = logs.last_errors(state.log_file(), 5, server.started)
    return StartError("tritonserver has loaded no model", note=note, hint=SEE_LOG)


def stop(server: Server) -> None:
    """Stop the server: accepted requests finish, then it ends; after the drain time it is killed.

    Ctrl-C has no effect meanwhile: an impatient second one would leave the server behind.
    """
    with children.undisturbed():
        server.update(phase="stopping")
        clean_up(server)
        server.private.remove()
        server.ports.release()
        state.forget(server.state)


def clean_up(server: Server) -> None:
    """End the server's processes and remove what they leave behind."""
    if pulse.crash(server.process.pid):  # it would not drain
        server.process.kill()
    _end(server.state)
    server.process.wait()
    server.recorder.join(timeout=2)
    if server.memory:
        server.memory.remove()


def take_down(up: Running) -> None:
    """Stop a server that another process keeps, as `stop` does, and that process with it."""
    with children.undisturbed():
        supervisor = state.process(up.supervisor)
        if supervisor is not None:
            with suppress(psutil.NoSuchProcess):
                supervisor.terminate()
            psutil.wait_procs([supervisor], timeout=up.drain_s + 2 * _GRACE_S)
        _end(up)  # of a supervisor that was killed, or hangs
        if (supervisor := state.process(up.supervisor)) is not None:
            supervisor.kill()
            psutil.wait_procs([supervisor], timeout=_GRACE_S)
        private.remove_left(Path(up.served))
        state.forget(up)


@contextmanager
def serving(settings: Settings, say: Callable[[str], None], timeout_s: float = 120) -> Iterator[Running]:
    """Run a server with every model ready for as long as the block runs. Nobody restarts it.

    Raises:
        AlreadyRunningError, SetupError, StartError, …: as `start` and `wait_until_ready`.
    """
    server = start(settings, say)
    try:
        wait_until_ready(server, timeout_s)
        yield server.state
    finally:
        stop(server)


def _take_over(say: Callable[[str], None]) -> None:
    """See that no server is up, and end what is left of one whose keeper was killed: it was told to, and may drain.

    Raises:
        AlreadyRunningError: one is.
    """
    if (up := state.recorded()) is None:
        return
    if up.supervisor.alive():
        raise AlreadyRunningError(
            f"a server is up already: process {up.triton.pid}, http {up.http}, grpc {up.grpc}",
            hint="python -m deploy status, or stop it: python -m deploy down",
        )
    if up.triton.alive():
        say(f"Waiting for a server to end whose keeper was killed (process {up.triton.pid}) …")
    _end(up)


def _end(running: Running) -> None:
    process = state.process(running.triton)
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
        psutil.wait_procs([process], timeout=running.drain_s + _GRACE_S)
    # Workers of a server that was killed, too: they carry the name of its shared memory.
    survivors = [*workers.find(running.shared_memory), *([process] if process and process.is_running() else [])]
    for survivor in survivors:
        with suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(survivors, timeout=5)
    for region in _SHARED_MEMORY.glob(f"{running.shared_memory}*"):  # a killed server leaves its own behind
        with suppress(OSError):
            region.unlink()


def _hold_ports(settings: Settings, user: Identity | None) -> HeldPorts:
    ports = {"grpc_port": settings.grpc_port}
    if settings.http_socket is None:
        ports = {"http_port": settings.http_port, **ports}
    return held_ports.hold(settings.host, ports, user.uid if user else os.geteuid())


def _make_way(path: Path, user: Identity | None) -> None:
    """Remove the socket of a server that was killed; give a folder with nothing else in it to whom root becomes."""
    path.unlink(missing_ok=True)
    if user is not None and not any(path.parent.iterdir()):
        os.chown(path.parent, user.uid, -1)


@contextmanager
def _removed_on_error(directory: PrivateDirectory, ports: HeldPorts, *, unless: bool) -> Iterator[None]:
    """Remove a private directory and release ports that no server will use, unless the one before still has them."""
    try:
        yield
    except BaseException:
        if not unless:
            directory.remove()
            ports.release()
        raise


def _reasons(found: list[ModelVersion], broken: set[str]) -> list[str]:
    reasons = [f"{m.name} version {m.version}: {m.reason}" for m in found if m.name in broken and m.reason]
    # Of an ensemble that never loaded Triton only says that it is not ready.
    silent = broken - {m.name for m in found if m.reason}
    return reasons + [f"{name}: a model that it needs is not ready" for name in sorted(silent)]


def _configuration(triton: Triton, settings: Settings, say: Callable[[str], None]) -> str | None:
    """Choose between the GPU's configurations and the CPU's, and say which and why; return its name.

    Raises:
        SettingsError: a GPU was asked for and none is here.
    """
    found = chosen.choose(settings.device, native=triton.native)
    if settings.device == "gpu" and found.absent:
        raise SettingsError(f"--device gpu: {found.absent}", hint="serve on the CPU: --device cpu")
    say(str(found))
    if settings.allow_client_shm and not arguments.asks_for_client_memory(triton):
        say("This Triton maps its clients' shared memory unasked: it is not given --allow-client-shm")
    return arguments.config_name(triton, settings)


def _look_at_gpus(triton: Triton, settings: Settings, repository: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Warn of what will not go well on the GPUs here; return {model whose plan does not load: why}.

    Raises:
        RepositoryError: one does not, and the settings are strict.
    """
    known = driver.ask()
    gpus = driver.visible(known.gpus) if known is not None else []
    tensorrt, reason = environment.tensorrt_version(triton)
    for told in (*fit.findings(known, repository, os.environ), *plans.measured_elsewhere(repository, gpus)):
        say(f"warning: {told}")
    if tensorrt is None:
        say(f"warning: whether the plans load is not known before: {reason}")
        return {}
    wrong = plans.not_loaded(repository, gpus, tensorrt)
    if wrong and settings.strict:
        raise RepositoryError("; ".join(f"{model}: {why}" for model, why in wrong.items()))
    return wrong


def _loaded_with(models: Set[str], served: Path) -> set[str]:
    """Return the models of a private repository with which these are loaded: themselves, and those that run them."""
    around = {name for name, steps in inside.run_in(served).items() if not models.isdisjoint(steps)}
    return around | {model for model in models if (served / model).is_dir()}


def _or_nothing(settings: Settings, groups: list[LeftOut]) -> list[LeftOut]:
    """Return what is left out, unless that is everything."""
    if released.names(groups) >= {path.parent.name for path in settings.repository.glob("*/config.pbtxt")}:
        raise StartError("\n  ".join(["nothing is left to serve:", *map(str, groups)]), hint=SEE_LOG)
    return groups
