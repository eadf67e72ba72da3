"""The admin side of a running server: which versions it has, load one, ask which version answers."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from deploy.errors import AccessError, ModelError
from deploy.triton import payload
from deploy.triton.settings import ADMIN_HEADER, admin_key
from deploy.triton.state import Running

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
        return self.state == "UNAVAILABLE" and self.reason != "unloaded"


class Control:
    """A connection to a server with its admin key. A context manager.

    It lives in a thread of its own, for which the main thread, the one that gets Ctrl-C, only waits: in the midst of a
    call that would break tritonclient's event loop, and what has to be put back afterwards could not be.

    Args:
        timeout_s: For every call but loading, which takes as long as the model does.
    """

    def __init__(self, server: Running, timeout_s: float = 10) -> None:
        self.server = server
        key = admin_key(Path(server.admin_key_file) if server.admin_key_file else None)
        self._headers, self._grpc_headers = {ADMIN_HEADER: key}, {f"triton-grpc-protocol-{ADMIN_HEADER}": key}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._client = self._do(InferenceServerClient, server.http, connection_timeout=2, network_timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._client.close)
        self._thread.shutdown()

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
            AccessError: the server asks for another admin key.
        """
        try:
            index = self._do(self._client.get_model_repository_index, headers=self._headers)
        except InferenceServerException as error:
            if "restricted" in str(error):
                raise AccessError(
                    "the server was started with another admin key",
                    hint="set ADMIN_KEY to the one it was started with",
                ) from error
            return []
        except (OSError, HTTPException):
            return []
        return [
            ModelVersion(
                m["name"],
                int(m.get("version") or 0),
                m.get("state", "UNAVAILABLE"),
                without_traceback(m.get("reason", "")),
            )
            for m in index
        ]

    def statistics(self) -> list[dict[str, Any]]:
        """Return Triton's inference statistics, one entry per loaded version; nothing while it does not answer."""
        with suppress(*_FAILED):
            return list(self._do(self._client.get_inference_statistics, headers=self._headers)["model_stats"])
        return []

    def config(self, model: str) -> dict[str, Any]:
        """Return the configuration that `model` runs with.

        Raises:
            ModelError: no version of it is loaded.
        """
        try:
            return dict(self._do(self._client.get_model_config, model, headers=self._headers))
        except _FAILED as error:
            raise ModelError(f"{model} is not loaded", note=_said(error)) from error

    def load(self, model: str, config: Mapping[str, Any] | None = None, timeout_s: float = 300) -> None:
        """Load what is on disk now. What is loaded goes on serving until the new version is ready.

        Args:
            config: In place of the one on disk.

        Raises:
            ModelError: it did not load, with Triton's reason; what served before still does.
        """
        try:
            self._do(self._load, model, json.dumps(config) if config else None, timeout_s)
        except _FAILED as error:
            raise ModelError(f"{model} did not load", note=_said(error)) from error

    def answering_version(self, model: str) -> int:
        """Return the version that answers a request which names none: found by sending one, of zeros or a grey image.

        Raises:
            ModelError: nothing answers.
        """
        refused: Exception | None = None
        for content in (payload.grey_png(), b"0"):  # for inputs of strings: images, or text?
            try:
                tensors = payload.inputs_for(self._do(self._client.get_model_metadata, model), content)
                result = self._do(self._client.infer, model, [_input(name, value) for name, value in tensors.items()])
                return int(result.get_response()["model_version"])
            except _FAILED as error:
                refused = error
        loaded = [m.version for m in self.models() if m.name == model and m.state == "READY"]
        if loaded and isinstance(refused, InferenceServerException) and refused.status() == "400":
            return max(loaded)  # it has answered: that what we sent is no valid request
        raise ModelError(f"{model} does not answer", note=_said(refused)) from refused

    def _load(self, model: str, config: str | None, timeout_s: float) -> None:
        if self.server.grpc_tls:
            http = InferenceServerClient(self.server.http, connection_timeout=2, network_timeout=timeout_s)
            try:
                http.load_model(model, headers=self._headers, config=config)
            finally:
                http.close()
            return
        # Over HTTP a load holds one of Triton's threads, and every client's connection on it, until it is done.
        from tritonclient.grpc import InferenceServerClient as GrpcClient  # 0.3 s to import

        with GrpcClient(self.server.grpc) as grpc:
            grpc.load_model(model, headers=self._grpc_headers, config=config, client_timeout=timeout_s)

    def _do(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        future = self._thread.submit(call, *arguments, **options)
        try:
            return future.result()
        finally:  # Triton 2.51 hangs for ever if what it is loading goes away, so Ctrl-C waits, an impatient one, too
            while not future.done():
                with suppress(KeyboardInterrupt, SystemExit):
                    wait([future])


def models_not_ready(versions: list[ModelVersion]) -> set[str]:
    """Return the names of the models of which no version serves, or one failed to load."""
    serving = {v.name for v in versions if v.state == "READY"}
    return {v.name for v in versions} - serving | {v.name for v in versions if v.failed}


def without_traceback(said: str) -> str:
    """Return Triton's reason without the Python traceback that its Python backend appends."""
    return said.partition("\n\nAt:")[0].strip()


def _input(name: str, value: Any) -> InferInput:
    tensor = InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
    tensor.set_data_from_numpy(value)
    return tensor


def _said(error: Exception | None) -> str:
    return without_traceback(error.message() if isinstance(error, InferenceServerException) else str(error))
