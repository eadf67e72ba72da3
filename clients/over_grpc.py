"""One server over gRPC, for threads and for asyncio. What fails is a Failure.

Messages and stubs are tritonclient's. Its client classes, which make one from the other in many steps, are left out:
they would cost most of what the library is allowed to.
"""

import asyncio
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from clients.errors import InvalidInputError
from clients.failures import Failure, Kind, of_grpc, too_large
from clients.request import ADMIN, Question, Request, queue_timeout_us
from clients.settings import Address, Transport
from clients.tensors import Arrays, datatype_of, strings_content

_CONNECT_MS = 2000
# The call, and the field of its answer that matters; none: all of it.
_CALLS: dict[Question, tuple[str, str]] = {
    "live": ("ServerLive", "live"),
    "ready": ("ServerReady", "ready"),
    "server": ("ServerMetadata", ""),
    "metadata": ("ModelMetadata", ""),
    "config": ("ModelConfig", "config"),
    "statistics": ("ModelStatistics", ""),
    "index": ("RepositoryIndex", "models"),
    "load": ("RepositoryModelLoad", ""),
    "unload": ("RepositoryModelUnload", ""),
    "shared": ("SystemSharedMemoryStatus", "regions"),
}
_COMPRESSIONS = {None: None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
_numpy_type = lru_cache(64)(triton_to_np_dtype)  # which compares with one name after the other


class _Channel:
    """What both kinds share."""

    def __init__(self, address: Address, transport: Transport, library: Any) -> None:
        self._address, self._transport, self._library = address, transport, library
        self._compression = _COMPRESSIONS[transport.compression]
        self._credentials = _credentials(transport) if address.tls else None
        self._lock, self._closed = threading.Lock(), False
        self._retired: list[tuple[float, Any]] = []  # channels that stalled, and until when a request may be on them
        self._connect()

    def _connect(self) -> None:
        netloc, options = self._address.netloc, _options(self._transport)
        if self._credentials:
            self._channel = self._library.secure_channel(netloc, self._credentials, options)
        else:
            self._channel = self._library.insecure_channel(netloc, options)
        self._stub, self._busy_until = GRPCInferenceServiceStub(self._channel), 0.0

    def _renewed(self) -> list[Any]:
        """Connect anew; the channels to close: those on which nobody waits any more."""
        with self._lock:
            if self._closed:
                return []
            now = time.monotonic()
            retired = [*self._retired, (self._busy_until, self._channel)]
            self._connect()
            self._retired = [(until, channel) for until, channel in retired if until > now]
            return [channel for until, channel in retired if until <= now]

    def _all(self) -> list[Any]:
        with self._lock:
            self._closed = True
            return [self._channel, *(channel for _, channel in self._retired)]

    def _infer_call(self, request: Request, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        message = _message(request, self._transport.max_message_bytes)
        remaining_s = max(1e-3, deadline - time.monotonic())  # large tensors take a while to write down
        message.parameters["timeout"].int64_param = queue_timeout_us(remaining_s)
        self._busy_until = max(self._busy_until, deadline)
        headers = {**self._transport.headers, **request.headers}
        return self._stub.ModelInfer(
            message, timeout=remaining_s, metadata=tuple(headers.items()), compression=self._compression
        )

    def _ask_call(self, question: Question, timeout_s: float, model: str, version: str) -> Any:
        name = "ModelReady" if question == "ready" and model else _CALLS[question][0]
        message = getattr(messages, f"{name}Request")()
        if model and question in ("load", "unload"):
            message.model_name = model
        elif model:
            message.name, message.version = model, version
        return self._call(name, message, timeout_s, admin=question in ADMIN)

    def _share_call(self, region: str, key: str, size_bytes: int, timeout_s: float) -> Any:
        if not size_bytes:
            message = messages.SystemSharedMemoryUnregisterRequest(name=region)
            return self._call("SystemSharedMemoryUnregister", message, timeout_s, admin=True)
        message = messages.SystemSharedMemoryRegisterRequest(name=region, key=key, byte_size=size_bytes)
        return self._call("SystemSharedMemoryRegister", message, timeout_s, admin=True)

    def _call(self, name: str, message: Any, timeout_s: float, *, admin: bool) -> Any:
        self._busy_until = max(self._busy_until, time.monotonic() + timeout_s)
        headers = self._transport.headers
        if admin and (key := self._transport.admin_key):
            headers = {**headers, "triton-grpc-protocol-admin-key": key}
        return getattr(self._stub, name)(message, timeout=timeout_s, metadata=tuple(headers.items()))


class Grpc(_Channel):
    """For any thread."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport, grpc)

    def infer(self, request: Request, timeout_s: float) -> Arrays:
        try:
            answer = self._infer_call(request, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error
        return _answer(request, answer)

    def ask(self, question: Question, timeout_s: float, model: str = "", version: str = "") -> Any:
        try:
            answer = self._ask_call(question, timeout_s, model, version)
        except grpc.RpcError as error:
            raise _failure(error) from error
        return _plain(question, answer)

    def share(self, region: str, key: str, size_bytes: int, timeout_s: float) -> None:
        """Have the server map /dev/shm/`key`, or with no size, unmap it."""
        try:
            self._share_call(region, key, size_bytes, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error

    def alive(self, timeout_s: float) -> bool:
        """Whether it answers."""
        try:
            return bool(self.ask("live", timeout_s))
        except Failure as failure:
            return failure.is_an_answer

    def reconnect(self) -> None:
        """Send what comes next on a new connection: one that stalls might for minutes."""
        for channel in self._renewed():
            channel.close()

    def close(self) -> None:
        for channel in self._all():
            channel.close()


class AsyncGrpc(_Channel):
    """For the event loop in which it is made."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport, grpc.aio)

    async def infer(self, request: Request, timeout_s: float) -> Arrays:
        try:
            answer = await self._infer_call(request, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error
        except asyncio.CancelledError as error:
            raise _ended(error) from error
        return _answer(request, answer)

    async def ask(self, question: Question, timeout_s: float, model: str = "", version: str = "") -> Any:
        try:
            answer = await self._ask_call(question, timeout_s, model, version)
        except grpc.RpcError as error:
            raise _failure(error) from error
        except asyncio.CancelledError as error:
            raise _ended(error) from error
        return _plain(question, answer)

    async def alive(self, timeout_s: float) -> bool:
        """As Grpc's."""
        try:
            return bool(await self.ask("live", timeout_s))
        except Failure as failure:
            return failure.is_an_answer

    async def reconnect(self) -> None:
        """As Grpc's."""
        for channel in self._renewed():
            await channel.close()

    async def close(self) -> None:
        for channel in self._all():
            await channel.close()


def _credentials(transport: Transport) -> grpc.ChannelCredentials:
    tls = transport.tls
    try:
        ca, key, certificate = (Path(p).read_bytes() if p else None for p in (tls.ca, tls.key, tls.certificate))
    except OSError as error:
        raise InvalidInputError(f"cannot use the certificates: {error}") from error
    return grpc.ssl_channel_credentials(ca, key, certificate)


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
        ("grpc.lb_policy_name", "round_robin"),  # of a name with several addresses, all; the default is the first
        ("grpc.enable_retries", 0),  # it cannot tell a full queue from a dead server; we can
    ]
    return [*options, ("grpc.http_proxy", transport.proxy)] if transport.proxy else options


def _message(request: Request, limit_bytes: int) -> Any:
    message = messages.ModelInferRequest(model_name=request.model, model_version=request.version, id=request.id)
    size_bytes = 0
    for name, array in request.inputs.items():
        datatype = datatype_of(array.dtype)
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if place := request.places.get(name):
            tensor.parameters["shared_memory_region"].string_param = place.region
            tensor.parameters["shared_memory_byte_size"].int64_param = place.size_bytes
            tensor.parameters["shared_memory_offset"].int64_param = place.offset
            continue
        content = strings_content(array) if datatype == "BYTES" else array.tobytes()
        if (size_bytes := size_bytes + len(content)) > limit_bytes:
            raise too_large("the request", limit_bytes)
        message.raw_input_contents.append(content)
    for name in request.outputs:
        message.outputs.add(name=name)
    if request.priority:
        message.parameters["priority"].uint64_param = request.priority
    return message


def _answer(request: Request, answer: Any) -> Arrays:
    try:
        arrays = {
            output.name: _array(output, content)
            for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }
    except Exception as error:  # the bytes may be anything
        raise Failure(Kind.BAD_ANSWER, f"its tensors cannot be read: {error!r}") from error
    return request.answered(arrays, answer.id)


def _array(output: Any, content: bytes) -> NDArray[Any]:
    if output.datatype == "BYTES":
        array: NDArray[Any] = deserialize_bytes_tensor(content)
    else:
        array = np.frombuffer(content, _numpy_type(output.datatype))
    return array.reshape(output.shape)


def _plain(question: Question, answer: Any) -> Any:
    """As HTTP has it, where the two differ."""
    if question in ("live", "ready"):
        return bool(answer.ready if question == "ready" else answer.live)
    # With zeros and empty lists, as in HTTP's.
    whole = MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    whole = _with_numbers(answer.DESCRIPTOR, whole)
    field = _CALLS[question][1]
    found = whole.get(field, []) if field else whole
    return list(found.values()) if question == "shared" and found else found


def _with_numbers(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    """A message of that kind with its 64-bit integers as numbers, for which protobuf's JSON has strings."""

    def value_of(field: Any, value: Any) -> Any:
        if isinstance(value, list):
            return [value_of(field, item) for item in value]
        if field.message_type is None:
            return int(value) if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else value
        if not field.message_type.GetOptions().map_entry:
            return _with_numbers(field.message_type, value)
        of_entry = field.message_type.fields_by_name["value"]
        return {name: value_of(of_entry, item) for name, item in value.items()}

    return {name: value_of(kind.fields_by_name[name], value) for name, value in found.items()}


def _ended(error: asyncio.CancelledError) -> BaseException:
    """gRPC cancels what is under way on a channel that is closed, and cannot be told from the caller by that."""
    task = asyncio.current_task()
    return error if task and task.cancelling() else Failure(Kind.UNREACHABLE, "the connection was closed")


def _failure(error: Any) -> Failure:
    return of_grpc(error.code().name, error.details() or "")
