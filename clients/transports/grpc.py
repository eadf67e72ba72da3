"""One server over gRPC, for threads and for asyncio. Both raise a Failure where there is no response.

Messages and stubs are tritonclient's. Its client classes are not used: building a message through InferInput and
InferResult costs 5 to 9 % of the throughput (docs/decisions/0007-one-plan-four-transports.md).
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

import grpc
import grpc.aio
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from clients import proxies
from clients.core.answer import Answer
from clients.core.failures import Failure, Kind, failure_of
from clients.core.request import Query, Request, queue_timeout_us
from clients.settings import CONNECT_S, Address, Tls, TransportOptions, proxy_for
from clients.transports import grpc_messages as messages
from clients.transports.base import Renewable, Transport, caller_is_cancelled, connection_closed

_COMPRESSIONS = {None: None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}


@dataclass(frozen=True)
class _Connection:
    """A channel, and the methods of Triton's service on it."""

    channel: Any
    stub: Any


class _Grpc(Transport):
    """What threads and asyncio share: of the same names in `library`, grpc or grpc.aio, calls are made alike."""

    def __init__(self, address: Address, options: TransportOptions, library: Any) -> None:
        self._address, self._options, self._library = address, options, library
        self._compression = _COMPRESSIONS[options.compression]
        self._credentials = _credentials(options) if address.tls else None
        self._connection = Renewable(self._connect)

    def _connect(self) -> _Connection:
        proxy = proxy_for(self._address, self._options)
        target = _target(proxies.netloc(proxy) if proxy else self._address.netloc)
        options = [*_channel_options(self._options), *_through(proxy, self._address)]
        if self._credentials:
            channel = self._library.secure_channel(target, self._credentials, options)
        else:
            channel = self._library.insecure_channel(target, options)
        return _Connection(channel, GRPCInferenceServiceStub(channel))

    def _call_infer(self, request: Request, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        message = messages.infer_message(request, self._options.max_message_bytes)
        remaining_s = max(1e-3, deadline - time.monotonic())  # large tensors take a while to write down
        message.parameters["timeout"].int64_param = queue_timeout_us(remaining_s)
        self._connection.keep_until(deadline)
        headers = {**self._options.headers, **request.headers}
        return self._connection.current.stub.ModelInfer(
            message, timeout=remaining_s, metadata=tuple(headers.items()), compression=self._compression
        )

    def _call_query(self, query: Query, timeout_s: float) -> Any:
        method, message = messages.query_message(query)
        if query.endpoint != "live":  # nobody waits for a probe on a channel that was replaced
            self._connection.keep_until(time.monotonic() + timeout_s)
        headers = self._options.headers
        if query.is_admin and (key := self._options.admin_key):
            headers = {**headers, f"triton-grpc-protocol-{self._options.admin_header}": key}
        return getattr(self._connection.current.stub, method)(
            message, timeout=timeout_s, metadata=tuple(headers.items())
        )


class GrpcTransport(_Grpc):
    """A transport for threads."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        super().__init__(address, options, grpc)

    def infer(self, request: Request, timeout_s: float) -> Answer:
        """As Transport.infer."""
        try:
            response = self._call_infer(request, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error
        return messages.answer_of(request, response)

    def query(self, query: Query, timeout_s: float) -> Any:
        """As Transport.query."""
        try:
            response = self._call_query(query, timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from error
        return messages.json_of(query, response)

    def reconnect(self) -> None:
        """As Transport.reconnect."""
        for connection in self._connection.replace():
            connection.channel.close()

    def close(self) -> None:
        """As Transport.close."""
        for connection in self._connection.retire_all():
            connection.channel.close()


class AsyncGrpcTransport(_Grpc):
    """A transport for asyncio. A call that is cancelled is cancelled at the server, too."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        super().__init__(address, options, grpc.aio)

    async def infer(self, request: Request, timeout_s: float) -> Answer:
        """As Transport.infer."""
        return messages.answer_of(request, await _response(self._call_infer(request, timeout_s)))

    async def query(self, query: Query, timeout_s: float) -> Any:
        """As Transport.query."""
        return messages.json_of(query, await _response(self._call_query(query, timeout_s)))

    async def reconnect(self) -> None:
        """As Transport.reconnect."""
        for connection in self._connection.replace():
            await connection.channel.close()

    async def close(self) -> None:
        """As Transport.close."""
        for connection in self._connection.retire_all():
            await connection.channel.close()


async def _response(call: Awaitable[Any]) -> Any:
    try:
        response = await call
    except grpc.RpcError as error:
        raise _failure(error) from error
    except asyncio.CancelledError:
        if caller_is_cancelled():
            raise
        raise connection_closed() from None
    if response is None:  # what grpc.aio has for one that cannot be parsed; grpc raises an error
        raise Failure(Kind.INVALID_RESPONSE, "it cannot be parsed")
    return response


def _target(netloc: str) -> str:
    return f"dns:///{netloc}"  # with the scheme: gRPC would make one of a host called "unix"


def _credentials(options: TransportOptions) -> grpc.ChannelCredentials:
    tls = options.tls
    if tls != Tls():
        tls.context()  # gRPC itself checks nothing: it would abort the process, or never connect
    files = (tls.ca, tls.key or tls.certificate, tls.certificate)
    ca, key, certificate = (Path(file).read_bytes() if file else None for file in files)
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _channel_options(transport: TransportOptions) -> list[tuple[str, Any]]:
    return [
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


def _through(proxy: SplitResult | None, address: Address) -> list[tuple[str, Any]]:
    """Return the options with which a channel to a proxy asks it for a tunnel to the server.

    They are what gRPC makes of `grpc.http_proxy` (src/core/handshaker/http_connect). With that it would read no_proxy
    itself, in its own way, and also where the caller names a proxy.
    """
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]  # the environment's was read already
    if proxy is None:
        return options
    options += [("grpc.http_connect_server", address.netloc), ("grpc.default_authority", address.netloc)]
    if address.tls:
        options.append(("grpc.ssl_target_name_override", address.host))
    if headers := "\n".join(f"{name}:{value}" for name, value in proxies.authorization(proxy).items()):
        options.append(("grpc.http_connect_headers", headers))
    return options


def _failure(error: Any) -> Failure:
    return failure_of(error.code().name, error.details() or "")
