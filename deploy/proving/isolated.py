"""A tritonserver that nobody else can reach: it listens on a Unix socket in a private directory and on nothing else."""

import json
import os
import re
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from contracts.samples import Batch
from deploy.errors import ModelError, StartError
from deploy.neighbours import variables
from deploy.neighbours.identity import Identity
from deploy.proving import rest
from deploy.proving.rest import Answer, Refusal, Reply
from deploy.triton import launch, reasons
from deploy.triton.environment import Triton

_START_S = 60  # until a server without models answers; it takes about half a second
_SOCKET, _LOG = "http", "log"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # Triton's own place for it
_LOST = (OSError, HTTPException)  # what a server that ends or hangs makes of a request
# E1123 17:24:16.029600 14883 model_repository_manager.cc:1335] "message"
_ERROR_LINE = re.compile(r"^[EF]\d{4} \S+ +\d+ [^\s\]]+\] ?(?P<message>.*)$", re.MULTILINE)
_NO_REASON = "failed to poll from model repository"  # of a configuration that it cannot read; its log says more


class Isolated:
    """A running server with its own log. No model is loaded until it is told to.

    Args:
        repository: The models, by a path that Triton takes.
        origin: The repository that they come from, for messages.
        timeout_s: For a model to load, and for an answer.
    """

    def __init__(
        self, process: "subprocess.Popen[bytes]", folder: Path, repository: Path, origin: Path, timeout_s: float
    ) -> None:
        self._process, self._socket, self._log = process, folder / _SOCKET, folder / _LOG
        self._repository, self._origin, self._timeout_s = repository, origin, timeout_s

    def wait_until_live(self) -> None:
        """Wait until it answers.

        Raises:
            StartError: it ended, or takes too long.
        """
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if (ended := self._end()) is not None:
                raise StartError(f"tritonserver {ended} before it loaded anything", note=self._last_words())
            with suppress(*_LOST):
                if rest.call(self._socket, "GET", "/v2/health/live", self._timeout_s).status == 200:
                    return
            time.sleep(0.02)
        raise StartError(f"tritonserver does not answer within {_START_S} s", note=self._last_words())

    def version(self) -> str:
        """Return its version, "2.51.0"."""
        return str(json.loads(self._call("GET", "/v2", "it was asked for its version").body)["version"])

    def load(self, model: str) -> None:
        """Load a model.

        Raises:
            ModelError: it did not load, with what Triton says; or the server ended, or hangs.
        """
        before = self._log.stat().st_size
        reply = self._call("POST", f"/v2/repository/models/{model}/load", f"{model} was being loaded")
        if (said := reply.error) is not None:
            told = self._errors_since(before) if _NO_REASON in said else ""
            told = (told or said).replace(f"{self._repository / model}/", f"{self._origin / model}/")
            note = reasons.explained(told, self._origin / model)
            raise ModelError(f"{model} does not load", note=note)

    def unload(self, models: Sequence[str]) -> None:
        """Unload models, all at once as their workers take a second each to end, and wait until they are gone.

        Raises:
            ModelError: one does not go, or the server ended meanwhile.
        """
        for model in models:
            reply = self._call("POST", f"/v2/repository/models/{model}/unload", f"{model} was being unloaded")
            if (said := reply.error) is not None:
                raise ModelError(f"{model} does not unload", note=said)
        deadline = time.monotonic() + self._timeout_s
        while left := self._loaded():
            if time.monotonic() > deadline:
                raise ModelError(f"{', '.join(sorted(left))} did not unload within {self._timeout_s:.0f} s")
            time.sleep(0.02)

    def infer(self, model: str, inputs: Batch) -> Answer | Refusal:
        """Send a request.

        Raises:
            ModelError: the server ended, or does not answer.
        """
        try:
            return rest.infer(self._socket, model, inputs, self._timeout_s)
        except _LOST as error:
            raise self._lost(error, f"{model} was asked") from error

    def _loaded(self) -> set[str]:
        index = json.loads(self._call("POST", "/v2/repository/index", "its models were being unloaded").body)
        return {model["name"] for model in index if "state" in model and model.get("reason") != "unloaded"}

    def _call(self, method: str, url: str, what: str) -> Reply:
        try:
            return rest.call(self._socket, method, url, self._timeout_s)
        except _LOST as error:
            raise self._lost(error, what) from error

    def _lost(self, error: Exception, what: str) -> ModelError:
        with suppress(subprocess.TimeoutExpired):  # its socket closes before it has ended
            self._process.wait(timeout=0 if isinstance(error, TimeoutError) else 5)
        if (ended := self._end()) is not None:
            return ModelError(f"tritonserver {ended} while {what}", note=self._last_words())
        return ModelError(f"tritonserver did not answer within {self._timeout_s:.0f} s while {what}")

    def _end(self) -> str | None:
        code = self._process.poll()
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _errors_since(self, position: int) -> str:
        with self._log.open("rb") as log:
            log.seek(position)
            text = log.read().decode(errors="replace")
        return "; ".join(dict.fromkeys(_unquoted(found["message"]) for found in _ERROR_LINE.finditer(text)))

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "\n".join(lines[-5:])


@contextmanager
def server(
    triton: Triton, repository: Path, origin: Path, folder: Path, timeout_s: float, user: Identity | None = None
) -> Iterator[Isolated]:
    """Start a server over `repository`, and end it at once when the block does: nothing else runs there.

    Args:
        repository: By a path that Triton takes: one without a blank.
        origin: Where its models come from, for messages.
        folder: A private directory for its socket and its log.
        user: Whom it runs as, started by root.

    Raises:
        StartError: it does not start.
    """
    shared_memory = f"gate_{os.getpid()}_{secrets.token_hex(8)}_"
    command = [
        *(str(triton.executable), *triton.arguments, f"--model-repository={repository}"),
        *("--model-control-mode=explicit", "--exit-on-error=false", "--disable-auto-complete-config"),
        f"--backend-config=python,shm-region-prefix-name={shared_memory}",
        *(f"--http-address=unix:{folder / _SOCKET}", "--allow-grpc=false", "--allow-metrics=false"),
    ]
    with (folder / _LOG).open("wb") as output:
        process = launch.start(command, {**variables.allowed(os.environ), **triton.environment}, user, output.fileno())
    watch = threading.Thread(target=_end_with_its_workers, args=(process.pid,), daemon=True)
    watch.start()
    try:
        running = Isolated(process, folder, repository, origin, timeout_s)
        running.wait_until_live()
        yield running
    finally:
        _kill_group(process.pid)
        watch.join()
        process.wait()
        for region in _SHARED_MEMORY.glob(f"{shared_memory}*"):
            region.unlink(missing_ok=True)


def _end_with_its_workers(pid: int) -> None:
    """Wait for the server's end, and end its workers: they hold its connections open, where a request would wait on."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # not reaped yet, so its number is nobody else's
    _kill_group(pid)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # it leads a group of its own, with its workers


def _unquoted(message: str) -> str:
    try:
        return str(json.loads(message))  # Triton escapes what it logs as JSON does
    except ValueError:
        return message
