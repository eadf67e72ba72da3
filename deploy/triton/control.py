"""The admin side of a running server: which versions it has, load one, ask which version answers."""

import errno
import functools
import json
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from tritonclient.http import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from contracts import golden, model_config
from contracts.golden import GoldenRequest
from deploy.errors import AccessError, ModelError
from deploy.neighbours import direct, listener
from deploy.triton import payload, reasons
from deploy.triton.settings import ADMIN_HEADER, admin_key
from deploy.triton.state import Running

_REFUSED = ("400", "501")  # bad request; not implemented: a decoupled model answers over gRPC alone
# Bodies are of any size; and no proxy, which may be set for all containers.
_DIRECT = [*direct.GRPC_OPTIONS, ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_FAILED = (OSError, HTTPException, InferenceServerException)  # what a server that is gone or refuses makes


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model as the server's repository index has it."""

    name: str
    version: int
    state: str  # "READY", "LOADING", "UNLOADING", "UNAVAILABLE"
    reason: str

    @property
    def failed(self) -> bool:
        """Whether it did not load. What a roll back took out is UNAVAILABLE, too, for the reason "unloaded"."""
        return self.state == "UNAVAILABLE" and not self.unloaded

    @property
    def unloaded(self) -> bool:
        """Whether it was loaded and no longer is, since somebody wanted that."""
        return self.state == "UNAVAILABLE" and self.reason == "unloaded"

    @property
    def never_loaded(self) -> bool:
        """Whether nobody has asked the server for it: it is in the repository, and that is all."""
        return self.version == 0 and self.state == "UNAVAILABLE" and not self.reason


class Control:
    """A connection to a server with its admin key, which nobody but that server gets. A context manager.

    Before each call that needs the key it looks who listens there: an AccessError says that it is another process.

    It lives in a thread of its own, for which the main thread, the one that gets Ctrl-C, only waits: in the midst of a
    call that would break tritonclient's event loop, and what has to be put back afterwards could not be.

    Args:
        timeout_s: For every call but loading, which takes as long as the model does.
    """

    def __init__(self, server: Running, timeout_s: float = 10) -> None:
        self.server = server
        key = admin_key(Path(server.admin_key_file) if server.admin_key_file else None)
        self._key = key
        self._thread = _OwnThread()
        self._client = self._do(_client, server, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._client.close)
        self._thread.end()

    def ready(self) -> bool:
        """Tell whether the server answers and every model that it should have is ready."""
        with suppress(*_FAILED):
            return bool(self._do(self._client.is_server_ready))
        return False

    def live(self) -> bool:
        """Tell whether the server answers at all."""
        with suppress(*_FAILED):
            return bool(self._do(self._client.is_server_live))
        return False

    def models(self) -> list[ModelVersion]:
        """List every version the server knows, or nothing while it does not answer.

        Raises:
            AccessError: the server asks for another admin key, or another process listens in its place.
        """
        try:
            index = self._do(self._client.get_model_repository_index, headers=self._http_key())
        except InferenceServerException as error:
            if "restricted" in str(error):
                raise AccessError(
                    "the server was started with another admin key",
                    hint="set ADMIN_KEY to the one it was started with",
                ) from error
            return []
        except (OSError, HTTPException):
            return []
        found = [
            ModelVersion(
                m["name"],
                int(m.get("version") or 0),
                m.get("state", "UNAVAILABLE"),
                self._explained(m.get("reason", ""), m["name"]),
            )
            for m in index
        ]
        served = Path(self.server.served)  # an arm that was put away is in the index for ever
        found = [version for version in found if not version.unloaded or (served / version.name).is_dir()]
        return [v for v in found if not v.never_loaded or (served / v.name / model_config.FILE_NAME).is_file()]

    def statistics(self) -> list[dict[str, Any]]:
        """Return Triton's inference statistics, one entry per loaded version; nothing while it does not answer."""
        with suppress(*_FAILED):
            return list(self._do(self._client.get_inference_statistics)["model_stats"])
        return []

    def config(self, model: str) -> dict[str, Any]:
        """Return the configuration that `model` runs with.

        Raises:
            ModelError: no version of it is loaded.
        """
        try:
            return dict(self._do(self._client.get_model_config, model))
        except _FAILED as error:
            raise ModelError(f"{model} is not loaded", note=_said(error)) from error

    def load(
        self,
        model: str,
        config: Mapping[str, Any] | None = None,
        timeout_s: float = 300,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Load what is on disk now. What is loaded goes on serving until the new version is ready.

        Args:
            config: In place of the one on disk.
            files: With `config`, in place of what is on disk: {"file:1/model.py": its content}.

        Raises:
            ModelError: it did not load, with Triton's reason; what served before still does.
        """
        try:
            self._do(self._load, model, json.dumps(config) if config else None, files, timeout_s)
        except _FAILED as error:
            raise ModelError(f"{model} did not load", note=self._explained(_message(error), model)) from error

    def load_all(self, models: Sequence[str], timeout_s: float = 300) -> None:
        """Load models of which none needs another, all at the same time.

        Raises:
            ModelError: one did not load, the first of them if several did not.
        """
        futures = {model: _OwnThread.once(self._load, model, None, None, timeout_s) for model in models}
        _wait_for(futures.values())
        for model, future in futures.items():
            try:
                future.result()
            except _FAILED as error:
                raise ModelError(f"{model} did not load", note=self._explained(_message(error), model)) from error

    def unload(self, model: str) -> None:
        """Stop serving a model; what it has accepted is answered first, and nobody waits for that here.

        Raises:
            ModelError: the server refused.
        """
        try:
            self._do(self._client.unload_model, model, headers=self._http_key())
        except _FAILED as error:
            raise ModelError(f"{model} is not unloaded", note=_said(error)) from error

    def answering_version(self, model: str) -> int:
        """Return the version that answers a request which names none: found by sending one.

        That is a golden request of its release; without any, one of zeros, a grey image or a text.

        Raises:
            ModelError: nothing answers.
            ManifestError: a file with golden requests is damaged.
        """
        refused: Exception | None = None
        for make in self._probes(model):
            try:
                return int(self._infer(model, make()).get_response()["model_version"])
            except _FAILED as error:
                refused = error
        loaded = [m.version for m in self.models() if m.name == model and m.state == "READY"]
        if loaded and isinstance(refused, InferenceServerException) and refused.status() in _REFUSED:
            return max(loaded)  # it has answered: that what we sent is no valid request, or not over HTTP
        raise ModelError(f"{model} does not answer", note=_said(refused)) from refused

    def fault(self, model: str, request: GoldenRequest, version: str = "") -> str | None:
        """Send a golden request to a model; say what is wrong with the answer, None if nothing is.

        Args:
            model: May have another name than the request says: an arm's.

        Raises:
            ModelError: the request is refused, or the server does not answer.
        """
        try:
            result = self._infer(model, request.inputs, version)
        except _FAILED as error:
            raise ModelError(f"{model} refuses a golden request", note=_said(error)) from error
        answer = {name: result.as_numpy(name) for name in request.answers}
        return request.fault({name: found for name, found in answer.items() if found is not None})

    def wrong_answer(self, model: str, version: int) -> str | None:
        """Send a version that is served its own golden requests; say what is wrong with an answer, None if nothing is.

        A request that is refused tells nothing of answers: the server may be at its limit.

        Raises:
            ManifestError: the file with golden requests is damaged.
        """
        for request in golden.read(Path(self.server.served, model, str(version))):
            if request.model == model:
                with suppress(ModelError):
                    if told := self.fault(model, request, str(version)):
                        return told
        return None

    def _probes(self, model: str) -> Iterator[Callable[[], payload.Tensors]]:
        """Yield what makes a request, the most promising first."""
        if known := golden.find(Path(self.server.served), model):
            smallest = min(known, key=lambda request: request.size_bytes)
            yield lambda: smallest.inputs
        for content in (payload.grey_png(), b"0"):  # for inputs of strings: images, or text?
            yield functools.partial(self._made_up, model, content)

    def _made_up(self, model: str, content: bytes) -> payload.Tensors:
        return payload.inputs_for(self._do(self._client.get_model_metadata, model), content)

    def _infer(self, model: str, inputs: payload.Tensors, version: str = "") -> InferResult:
        tensors = [_input(name, value) for name, value in inputs.items()]
        return self._do(self._client.infer, model, tensors, model_version=version)

    def _load(self, model: str, config: str | None, files: Mapping[str, bytes] | None, timeout_s: float) -> None:
        if self.server.grpc_tls:
            http = _client(self.server, timeout_s)
            try:
                http.load_model(model, headers=self._http_key(), config=config, files=files)
            finally:
                http.close()
            return
        # Over HTTP a load holds one of Triton's threads, and every client's connection on it, until it is done.
        from tritonclient.grpc import InferenceServerClient as GrpcClient  # 0.3 s to import

        with GrpcClient(self.server.grpc, channel_args=_DIRECT) as grpc:
            headers = self._grpc_key()
            grpc.load_model(model, headers=headers, config=config, files=files, client_timeout=timeout_s)

    def _http_key(self) -> dict[str, str]:
        """Return the key for the server's HTTP port; an AccessError or OSError says that it would not get there."""
        if self.server.http_socket:
            listener.check_socket(self.server.triton.pid, Path(self.server.http_socket))
        else:
            self._check_listener(self.server.http_port)
        return {ADMIN_HEADER: self._key}

    def _grpc_key(self) -> dict[str, str]:
        """Return the key for its gRPC port, likewise."""
        self._check_listener(self.server.grpc_port)
        return {f"triton-grpc-protocol-{ADMIN_HEADER}": self._key}

    def _check_listener(self, port: int) -> None:
        if not self.server.triton.alive():
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"process {self.server.triton.pid} has ended")
        listener.check(self.server.triton.pid, self.server.host, port)

    def _explained(self, said: str, model: str) -> str:
        """Say a reason of Triton's with the files that a user knows in place of the private copies of them."""
        own = Path(self.server.repository, model)
        if not own.is_dir():  # an arm's: NAME.r3
            own = own.with_name(model.rpartition(".r")[0] or model)
        return reasons.explained(said.replace(f"{Path(self.server.served, model)}/", f"{own}/"), own)

    def _do(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        future = self._thread.submit(call, *arguments, **options)
        _wait_for([future])
        return future.result()


def _wait_for(futures: Collection["Future[Any]"]) -> None:
    """Wait until calls have ended.

    Triton 2.51 hangs for ever if what it is loading goes away, so Ctrl-C waits, an impatient one, too.
    """
    try:
        wait(futures)
    finally:
        while not all(future.done() for future in futures):
            with suppress(KeyboardInterrupt, SystemExit):
                wait(futures)


class _OwnThread:
    """A thread that makes one call after the other.

    Not a ThreadPoolExecutor: Ctrl-C while that starts its thread leaves one behind that it does not know of, and for
    which the interpreter waits for ever when it ends. Nobody waits for this one.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="control", daemon=True).start()

    @classmethod
    def once(cls, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Have `call` made in a thread of its own, which ends with it; return its future."""
        thread = cls()
        future = thread.submit(call, *arguments)
        thread.end()
        return future

    def submit(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> "Future[Any]":
        """Have `call` made; return its future."""
        future: Future[Any] = Future()
        self._calls.put((future, functools.partial(call, *arguments, **options)))
        return future

    def end(self) -> None:
        """Let the thread end after the calls that it has been given."""
        self._calls.put(None)

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            future, call = given
            try:
                future.set_result(call())
            except BaseException as error:  # the caller's to deal with
                future.set_exception(error)


def models_not_ready(versions: list[ModelVersion]) -> set[str]:
    """Return the names of the models of which no version serves, or one failed to load."""
    serving = {v.name for v in versions if v.state == "READY"}
    return {v.name for v in versions} - serving | {v.name for v in versions if v.failed}


def _client(server: Running, timeout_s: float) -> InferenceServerClient:
    """Open tritonclient's client, which knows hosts and ports alone, of a socket, too: it resolves to that."""
    if server.http_socket is None:
        return InferenceServerClient(server.http, connection_timeout=2, network_timeout=timeout_s)
    client = InferenceServerClient("localhost", connection_timeout=2, network_timeout=timeout_s)
    resolved = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", server.http_socket)]
    client._client_stub._connection_pool._resolve = lambda: resolved
    return client


def _input(name: str, value: Any) -> InferInput:
    tensor = InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
    tensor.set_data_from_numpy(value)
    return tensor


def _said(error: Exception | None) -> str:
    return reasons.without_traceback(_message(error))


def _message(error: Exception | None) -> str:
    return str(error.message()) if isinstance(error, InferenceServerException) else str(error)
