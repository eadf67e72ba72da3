"""One server over gRPC, for threads and for asyncio. Both raise a Failure where there is no response.

Messages and stubs are tritonclient's. Its client classes are not used: building a message through InferInput and
InferResult costs 5 to 9 % of the throughput (docs/decisions/0007-one-plan-four-transports.md).
"""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import deserialize_bytes_tensor

from clients.failures import Failure, Kind, caller_is_cancelled, connection_closed, failure_of, message_too_large
from clients.request import Endpoint, Query, Request, queue_timeout_us
from clients.settings import CONNECT_S, Address, Tls, Transport
from clients.tensors import Arrays, datatype_of, encoded_strings, numpy_type

# The method, and the field of its response that matters; none: all of it.
_METHODS: dict[Endpoint, tuple[str, str]] = {
    "live": ("ServerLive", "live"),
    "ready": ("ServerReady", "ready"),  # of a model: ModelReady
    "server_metadata": ("ServerMetadata", ""),
    "model_metadata": ("ModelMetadata", ""),
    "model_config": ("ModelConfig", "config"),
    "statistics": ("ModelStatistics", "model_stats"),
    "repository_index": ("RepositoryIndex", "models"),
    "load_model": ("RepositoryModelLoad", ""),
    "unload_model": ("RepositoryModelUnload", ""),
    "shared_memory_status": ("SystemSharedMemoryStatus", "regions"),
    "register_shared_memory": ("SystemSharedMemoryRegister", ""),
    "unregister_shared_memory": ("SystemSharedMemoryUnregister", ""),
}
_COMPRESSIONS = {None: None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}


class _Channel:
    """What the two kinds share."""

    def __init__(self, address: Address, transport: Transport, library: Any) -> None:
        self._address, self._transport, self._library = address, transport, library
        self._compression = _COMPRESSIONS[transport.compression]
        self._credentials = _credentials(transport) if address.tls else None
        self._lock, self._closed = threading.Lock(), False
        self._retired: list[tuple[float, Any]] = []  # that stalled, and until when a request may be on them
        self._connect()

    def _connect(self) -> None:
        target, options = _target(self._address), _options(self._transport)
        if self._credentials:
            self._channel = self._library.secure_channel(target, self._credentials, options)
        else:
            self._channel = self._library.insecure_channel(target, options)
        self._stub, self._busy_until = GRPCInferenceServiceStub(self._channel), 0.0

    def _replace(self) -> list[Any]:
        """Connect again; the channels to close: those on which nobody waits any more."""
        with self._lock:
            if self._closed:
                return []
            now = time.monotonic()
            retired = [*self._retired, (self._busy_until, self._channel)]
            self._connect()
            self._retired = [(until, channel) for until, channel in retired if until > now]
            return [channel for until, channel in retired if until <= now]

    def _retire_all(self) -> list[Any]:
        """Connect no more; the channels to close."""
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

    def _query_call(self, query: Query, timeout_s: float) -> Any:
        name = "ModelReady" if query.endpoint == "ready" and query.model else _METHODS[query.endpoint][0]
        message = getattr(messages, f"{name}Request")(**_fields(query))
        for key, value in query.parameters.items():
            _set(message.parameters[key], value)
        if query.endpoint != "live":  # nobody waits for a probe on a channel that was replaced
            self._busy_until = max(self._busy_until, time.monotonic() + timeout_s)
        headers = self._transport.headers
        if query.is_admin and (key := self._transport.admin_key):
            headers = {**headers, f"triton-grpc-protocol-{self._transport.admin_header}": key}
        return getattr(self._stub, name)(message, timeout=timeout_s, metadata=tuple(headers.items()))


class Grpc(_Channel):
    """For threads, which may share it."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport, grpc)

    def infer(self, request: Request, timeout_s: float) -> Arrays:
        try:
            response = self._infer_call(request, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error
        return _outputs(request, response)

    def query(self, query: Query, timeout_s: float) -> Any:
        try:
            response = self._query_call(query, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error
        return _as_json(query, response)

    def reconnect(self) -> None:
        """Use a new connection from now on: one that stalls might do so for minutes."""
        for channel in self._replace():
            channel.close()

    def close(self) -> None:
        for channel in self._retire_all():
            channel.close()


class AsyncGrpc(_Channel):
    """For the event loop in which it is made."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport, grpc.aio)

    async def infer(self, request: Request, timeout_s: float) -> Arrays:
        try:
            response = await self._infer_call(request, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error
        except asyncio.CancelledError:
            if caller_is_cancelled():
                raise
            raise connection_closed() from None
        return _outputs(request, response)

    async def query(self, query: Query, timeout_s: float) -> Any:
        try:
            response = await self._query_call(query, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error
        except asyncio.CancelledError:
            if caller_is_cancelled():
                raise
            raise connection_closed() from None
        return _as_json(query, response)

    async def reconnect(self) -> None:
        """As Grpc's."""
        for channel in self._replace():
            await channel.close()

    async def close(self) -> None:
        for channel in self._retire_all():
            await channel.close()


def _target(address: Address) -> str:
    return f"dns:///{address.netloc}"  # with the scheme: gRPC would make one of a host called "unix"


def _credentials(transport: Transport) -> grpc.ChannelCredentials:
    tls = transport.tls
    if tls != Tls():
        tls.context()  # gRPC itself checks nothing: it would abort the process, or never connect
    files = (tls.ca, tls.key or tls.certificate, tls.certificate)
    ca, key, certificate = (Path(file).read_bytes() if file else None for file in files)
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _options(transport: Transport) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", transport.max_message_bytes),
        ("grpc.max_receive_message_length", transport.max_message_bytes),
        # A connection that died without a word is noticed in a long call, too. Not more often than this: by default
        # servers, Triton among them, tolerate a ping in 5 minutes without data, and then end the connection ("Too many
        # pings", seen after 220 s of a silent call; https://github.com/grpc/grpc/blob/master/doc/keepalive.md).
        ("grpc.keepalive_time_ms", 310_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # gRPC's defaults, 20 s to connect and up to 2 minutes between tries, would prolong every outage.
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_S * 1e3)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.use_local_subchannel_pool", 1),  # or a new channel would get the old one's stalled connection
        ("grpc.lb_policy_name", "round_robin"),  # of a name with several addresses, all; the default is the first
        ("grpc.enable_retries", 0),  # they decide by status, which is the same for a full queue and a dead server
    ]
    return [*options, ("grpc.http_proxy", transport.proxy)] if transport.proxy else options


def _message(request: Request, limit_bytes: int) -> Any:
    message = messages.ModelInferRequest(model_name=request.model, model_version=request.version, id=request.id)
    size_bytes = 0
    for name, array in request.inputs.items():
        datatype = datatype_of(array.dtype)
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if place := request.shared.get(name):
            tensor.parameters["shared_memory_region"].string_param = place.region
            tensor.parameters["shared_memory_byte_size"].int64_param = place.size_bytes
            tensor.parameters["shared_memory_offset"].int64_param = place.offset
            continue
        content = encoded_strings(array) if datatype == "BYTES" else array.tobytes()
        if (size_bytes := size_bytes + len(content)) > limit_bytes:
            raise message_too_large("the request", limit_bytes)
        message.raw_input_contents.append(content)
    for name in request.outputs:
        message.outputs.add(name=name)
    if request.priority:
        message.parameters["priority"].uint64_param = request.priority
    for name, value in request.parameters.items():
        _set(message.parameters[name], value)
    return message


def _set(parameter: Any, value: str | int | float | bool) -> None:
    """A message's InferParameter or ModelRepositoryParameter."""
    if isinstance(value, str):
        parameter.string_param = value
    elif isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    else:
        parameter.double_param = value


def _fields(query: Query) -> dict[str, Any]:
    match query.endpoint:
        case "load_model" | "unload_model":
            return {"model_name": query.model}
        case "register_shared_memory":
            return {"name": query.region, "key": query.key, "byte_size": query.size_bytes}
        case "unregister_shared_memory":
            return {"name": query.region}
        case _:
            return {"name": query.model, "version": query.version} if query.model else {}


def _outputs(request: Request, response: Any) -> Arrays:
    try:
        arrays = {
            output.name: _array(output, content)
            for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
        }
    except Exception as error:  # the bytes may be anything
        raise Failure(Kind.INVALID_RESPONSE, f"its tensors cannot be read: {error!r}") from error
    return request.verified(arrays, response.id)


def _array(output: Any, content: bytes) -> NDArray[Any]:
    if output.datatype == "BYTES":
        array: NDArray[Any] = deserialize_bytes_tensor(content)
    else:
        array = np.frombuffer(content, numpy_type(output.datatype))
    return array.reshape(output.shape)


def _as_json(query: Query, response: Any) -> Any:
    """As the HTTP endpoint returns it."""
    if query.endpoint in ("live", "ready"):
        return bool(response.ready if query.endpoint == "ready" else response.live)
    # With zeros and empty lists, as in HTTP's.
    whole = MessageToDict(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    whole = _with_numbers(response.DESCRIPTOR, whole)
    field = _METHODS[query.endpoint][1]
    found = whole.get(field, []) if field else whole
    return list(found.values()) if query.endpoint == "shared_memory_status" and found else found


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


def _failure(error: Any) -> Failure:
    return failure_of(error.code().name, error.details() or "")
