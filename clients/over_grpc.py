"""One server over gRPC, for threads and for asyncio. What fails is a Failure."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import tritonclient.grpc
import tritonclient.grpc.aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from clients.errors import InvalidInputError
from clients.failures import Failure, Kind, of_grpc
from clients.request import Question, Request, placed, queue_timeout_us
from clients.settings import Address, Transport
from clients.tensors import Arrays, datatype_of

_CONNECT_MS = 2000
_METHODS: dict[Question, str] = {
    "live": "is_server_live",
    "ready": "is_server_ready",
    "server": "get_server_metadata",
    "metadata": "get_model_metadata",
    "config": "get_model_config",
    "statistics": "get_inference_statistics",
    "index": "get_model_repository_index",
    "load": "load_model",
    "unload": "unload_model",
    "shared": "get_system_shared_memory_status",
}


class _Channel:
    """What both kinds share."""

    def __init__(self, address: Address, transport: Transport, client: Callable[..., Any]) -> None:
        self._address, self._transport, self._client = address, transport, client
        self._credentials = _credentials(transport) if address.tls else None
        self._triton = self._connect()
        self._retired: Any = None  # a connection on which a probe had no answer; requests may still have one

    def _connect(self) -> Any:
        return self._client(self._address.netloc, creds=self._credentials, channel_args=_options(self._transport))

    def _renew(self) -> Any:
        """Connect anew; the connection to close, if there is one: on which nobody has had an answer for two probes."""
        to_close, self._retired, self._triton = self._retired, self._triton, self._connect()
        return to_close

    def _infer_arguments(self, request: Request, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        inputs = [_input(name, array, request) for name, array in request.inputs.items()]
        remaining_s = max(1e-3, deadline - time.monotonic())  # large tensors take a while to write down
        return {
            "model_name": request.model,
            "model_version": request.version,
            "inputs": inputs,
            "outputs": [tritonclient.grpc.InferRequestedOutput(name) for name in request.outputs] or None,
            "request_id": request.id,
            "priority": request.priority,
            "timeout": queue_timeout_us(remaining_s),
            "client_timeout": remaining_s,
            "headers": {**self._transport.headers, **request.headers},
            "compression_algorithm": self._transport.compression,
        }

    def _ask_arguments(self, question: Question, model: str, version: str, timeout_s: float) -> dict[str, Any]:
        headers = {**self._transport.headers, **_admin(self._transport)}
        arguments: dict[str, Any] = {"client_timeout": timeout_s, "headers": headers}
        if model:
            arguments["model_name"] = model
        if question in ("metadata", "config", "statistics") or (question == "ready" and model):
            arguments["model_version"] = version
        if question not in ("live", "ready", "load", "unload"):
            arguments["as_json"] = True
        return arguments

    def _method(self, question: Question, model: str) -> Any:
        name = "is_model_ready" if question == "ready" and model else _METHODS[question]
        return getattr(self._triton, name)


class Grpc(_Channel):
    """For any thread."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport, tritonclient.grpc.InferenceServerClient)

    def infer(self, request: Request, timeout_s: float) -> Arrays:
        arguments = self._infer_arguments(request, timeout_s)
        try:
            result = self._triton.infer(**arguments)
        except InferenceServerException as error:
            raise _failure(error) from error
        return _answer(request, result)

    def ask(self, question: Question, timeout_s: float, model: str = "", version: str = "") -> Any:
        try:
            answer = self._method(question, model)(**self._ask_arguments(question, model, version, timeout_s))
        except InferenceServerException as error:
            raise _failure(error) from error
        return _plain(question, answer)

    def share(self, region: str, key: str, size_bytes: int, timeout_s: float) -> None:
        """Have the server map /dev/shm/`key`, or with no size, unmap it."""
        options: dict[str, Any] = {"client_timeout": timeout_s, "headers": _admin(self._transport)}
        try:
            if size_bytes:
                self._triton.register_system_shared_memory(region, key, size_bytes, **options)
            else:
                self._triton.unregister_system_shared_memory(region, **options)
        except InferenceServerException as error:
            raise _failure(error) from error

    def alive(self, timeout_s: float) -> bool:
        """Whether it answers. A connection that stalls is replaced: it might for minutes."""
        try:
            return bool(self.ask("live", timeout_s))
        except Failure as failure:
            if failure.kind is Kind.EXPIRED and (old := self._renew()):
                old.close()
            return failure.is_an_answer

    def close(self) -> None:
        for client in (self._triton, self._retired):
            if client:
                client.close()


class AsyncGrpc(_Channel):
    """For the event loop in which it is made."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport, tritonclient.grpc.aio.InferenceServerClient)

    async def infer(self, request: Request, timeout_s: float) -> Arrays:
        arguments = self._infer_arguments(request, timeout_s)
        try:
            result = await self._triton.infer(**arguments)
        except InferenceServerException as error:
            raise _failure(error) from error
        except asyncio.CancelledError as error:
            raise _ended(error) from error
        return _answer(request, result)

    async def ask(self, question: Question, timeout_s: float, model: str = "", version: str = "") -> Any:
        try:
            answer = await self._method(question, model)(**self._ask_arguments(question, model, version, timeout_s))
        except InferenceServerException as error:
            raise _failure(error) from error
        except asyncio.CancelledError as error:
            raise _ended(error) from error
        return _plain(question, answer)

    async def alive(self, timeout_s: float) -> bool:
        """As Grpc's."""
        try:
            return bool(await self.ask("live", timeout_s))
        except Failure as failure:
            if failure.kind is Kind.EXPIRED and (old := self._renew()):
                await old.close()
            return failure.is_an_answer

    async def close(self) -> None:
        for client in (self._triton, self._retired):
            if client:
                await client.close()


def _credentials(transport: Transport) -> grpc.ChannelCredentials:
    tls = transport.tls
    try:
        ca, key, certificate = (path.read_bytes() if path else None for path in (tls.ca, tls.key, tls.certificate))
    except OSError as error:
        raise InvalidInputError(f"cannot use the certificates: {error}") from error
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _admin(transport: Transport) -> dict[str, str]:
    return {"triton-grpc-protocol-admin-key": transport.admin_key} if transport.admin_key else {}


def _options(transport: Transport) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", transport.max_message_bytes),
        ("grpc.max_receive_message_length", transport.max_message_bytes),
        # A connection that died without a word is noticed while a request waits. Triton ends one that pings more often
        # than it likes while nothing happens.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # gRPC's defaults, 20 s to connect and up to 2 minutes between tries, would be the client's own outage.
        ("grpc.min_reconnect_backoff_ms", _CONNECT_MS),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.use_local_subchannel_pool", 1),  # or a new channel would get the old one's stalled connection
        ("grpc.enable_retries", 0),  # it cannot tell a full queue from a dead server; we can
    ]
    return [*options, ("grpc.http_proxy", transport.proxy)] if transport.proxy else options


def _input(name: str, array: NDArray[Any], request: Request) -> Any:
    tensor = tritonclient.grpc.InferInput(name, array.shape, datatype_of(array.dtype))
    return placed(tensor, array, request.places.get(name))


def _answer(request: Request, result: Any) -> Arrays:
    try:
        response = result.get_response()
        return request.answered({o.name: result.as_numpy(o.name) for o in response.outputs}, response.id)
    except Failure:
        raise
    except Exception as error:  # of tritonclient, which trusts what it reads
        raise Failure(Kind.BAD_ANSWER, f"its tensors cannot be read: {error!r}") from error


def _plain(question: Question, answer: Any) -> Any:
    """As HTTP has it, where the two differ."""
    if isinstance(answer, Mapping):
        inner = {"config": "config", "index": "models", "shared": "regions"}.get(question)
        found = answer.get(inner, []) if inner else answer
        return list(found.values()) if question == "shared" and found else found
    return answer


def _ended(error: asyncio.CancelledError) -> BaseException:
    """gRPC cancels what is under way on a channel that is closed, and cannot be told from the caller by that."""
    task = asyncio.current_task()
    return error if task and task.cancelling() else Failure(Kind.UNREACHABLE, "the connection was closed")


def _failure(error: InferenceServerException) -> Failure:
    return of_grpc(str(error.status()).removeprefix("StatusCode."), error.message() or "")
