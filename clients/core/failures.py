"""Why one attempt failed: from a status and a message to what it means.

gRPC's UNAVAILABLE is what Triton says of a full queue, and what gRPC says of a dead server; only the message tells.
"""

from dataclasses import dataclass
from enum import Enum

from clients import errors
from clients.core.deadline import Deadline
from clients.errors import ClientError


class Kind(Enum):
    """What went wrong, and the error that a caller gets for it."""

    INVALID_INPUT = errors.InvalidInputError
    NOT_FOUND = errors.ModelNotFoundError
    ACCESS_DENIED = errors.AccessDeniedError
    OVERLOADED = errors.OverloadedError
    DEADLINE_EXCEEDED = errors.DeadlineExceededError
    UNAVAILABLE = errors.ServerUnavailableError
    SERVER_ERROR = errors.InferenceError
    INVALID_RESPONSE = errors.InvalidResponseError


@dataclass
class Failure(Exception):  # noqa: N818  # the outcome of one attempt; callers get a ClientError
    """Of one attempt.

    Attributes:
        message: What the server, or the library below, said.
        transient: The server responded, and another attempt may still succeed: a worker that died is being replaced,
            or the memory that it is to unmap is still a request's, which may have its response already.
        wrong_address: The server redirects. It is not followed, as the headers, keys among them, are for this one.
    """

    kind: Kind
    message: str
    transient: bool = False
    wrong_address: bool = False

    @property
    def server_responded(self) -> bool:
        """Whether somebody is there."""
        return self.kind not in (Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED)

    @property
    def denies_readiness(self) -> bool:
        """Whether somebody who waits for a server to be ready waits in vain: access denied, say; not overload."""
        return self.server_responded and self.kind is not Kind.OVERLOADED and not self.transient


Status = str | int  # gRPC's status code by name, or HTTP's

_KINDS: dict[Status, Kind] = {
    "INVALID_ARGUMENT": Kind.INVALID_INPUT,
    "UNIMPLEMENTED": Kind.INVALID_INPUT,
    "OUT_OF_RANGE": Kind.INVALID_INPUT,
    "NOT_FOUND": Kind.NOT_FOUND,
    "UNAUTHENTICATED": Kind.ACCESS_DENIED,
    "PERMISSION_DENIED": Kind.ACCESS_DENIED,
    "RESOURCE_EXHAUSTED": Kind.OVERLOADED,
    "DEADLINE_EXCEEDED": Kind.DEADLINE_EXCEEDED,
    "UNAVAILABLE": Kind.UNAVAILABLE,
    "CANCELLED": Kind.UNAVAILABLE,  # by the server, which is stopping
    400: Kind.INVALID_INPUT,
    413: Kind.INVALID_INPUT,
    415: Kind.INVALID_INPUT,
    404: Kind.NOT_FOUND,
    401: Kind.ACCESS_DENIED,
    403: Kind.ACCESS_DENIED,
    407: Kind.ACCESS_DENIED,
    429: Kind.OVERLOADED,
    503: Kind.OVERLOADED,  # also of a proxy that limits requests, or has no server to pass them on to
    502: Kind.UNAVAILABLE,
    504: Kind.DEADLINE_EXCEEDED,  # of a proxy that waited for the server: retries would bring it more load
}

# Where the status alone does not tell: statuses, part of the message, and what the two mean. An ensemble puts words of
# its own before a step's message. Triton's messages are the same in the sources of 2.51 and of 2.71 (mid-2026).
_UNKNOWN_REGION = "Unable to find shared memory region"
_MESSAGES: tuple[tuple[frozenset[Status], str, Kind], ...] = (
    # core/src/scheduler_utils.cc, core/src/dynamic_batch_scheduler.cc
    (frozenset({"UNAVAILABLE", 503}), "Exceeds maximum queue size", Kind.OVERLOADED),
    (frozenset({"UNAVAILABLE", 503}), "Request timeout expired", Kind.OVERLOADED),
    # core/src/sequence_batch_scheduler/sequence_batch_scheduler.cc
    (frozenset({"UNAVAILABLE", 503}), "timeout of the corresponding sequence has been expired", Kind.OVERLOADED),
    # core/src/server.cc, core/src/dynamic_batch_scheduler.cc
    (frozenset({503}), "Server exiting", Kind.UNAVAILABLE),
    (frozenset({503}), "Server not ready", Kind.UNAVAILABLE),
    (frozenset({503}), "Server is stopping", Kind.UNAVAILABLE),
    # core/src/model_repository_manager/model_repository_manager.cc
    (frozenset({"UNAVAILABLE", "INVALID_ARGUMENT", 503, 400}), "Request for unknown model", Kind.NOT_FOUND),
    # server/src/grpc/grpc_server.cc
    (frozenset({"UNAVAILABLE"}), "This protocol is restricted, expecting header", Kind.ACCESS_DENIED),
    # server/src/shared_memory_manager.cc
    (frozenset({"NOT_FOUND", 404}), _UNKNOWN_REGION, Kind.INVALID_INPUT),
    # gRPC: src/core/ext/filters/message_size, src/core/handshaker/http_connect
    (frozenset({"RESOURCE_EXHAUSTED"}), "message larger than max", Kind.INVALID_INPUT),
    # gRPC, of a response that it received and cannot parse: src/python/grpcio/grpc/_channel.py
    (frozenset({"INTERNAL"}), "Exception deserializing response", Kind.INVALID_RESPONSE),
    (frozenset({"RESOURCE_EXHAUSTED"}), "the request is too large", Kind.INVALID_INPUT),  # deploy/nginx/nginx.conf
    (frozenset({"UNAVAILABLE"}), "proxy returned response code 407", Kind.ACCESS_DENIED),
    # gRPC, where a proxy that knows no gRPC responds with a plain status: src/core/lib/transport/status_conversion.cc
    (frozenset({"UNAVAILABLE"}), "http2 header with status: 429", Kind.OVERLOADED),
    (frozenset({"UNAVAILABLE"}), "http2 header with status: 503", Kind.OVERLOADED),
    (frozenset({"UNAVAILABLE"}), "http2 header with status: 504", Kind.DEADLINE_EXCEEDED),
)
_TRANSIENT = (
    ("Stub process", "is not healthy"),  # python_backend/src/python_be.cc, stub_launcher.cc
    ("Cannot unregister shared memory region", "in use"),  # server/src/shared_memory_manager.cc
)
_REDIRECTS = "http2 header with status: 3"  # gRPC, as above

_HINTS = {
    Kind.NOT_FOUND: "see what it serves: python -m clients models",
    Kind.ACCESS_DENIED: "check the client's admin_key, headers and TLS certificate: docs/how-to/call.md",
    Kind.OVERLOADED: "send fewer requests at once, or later; a longer timeout lets more attempts succeed",
    Kind.DEADLINE_EXCEEDED: "a longer timeout; or is the server overloaded? python -m clients health",
    Kind.UNAVAILABLE: "is the server up? python -m clients health",
    Kind.SERVER_ERROR: "the server's log says more",
    Kind.INVALID_RESPONSE: "is this a Triton server? With TLS, bytes that a proxy changed would be noticed",
}
_MAYBE_THE_PROXY = (Kind.UNAVAILABLE, Kind.ACCESS_DENIED, Kind.DEADLINE_EXCEEDED)
_WRONG_ADDRESS = "redirects are not followed: give the client the address that they lead to"


def failure_of(status: Status, message: str) -> Failure:
    """Read gRPC's status code by name, or HTTP's status, and the message that came with it."""
    message = message.partition("\n\nAt:")[0].strip()  # the traceback that Triton's Python backend appends
    kind = _KINDS.get(status, Kind.SERVER_ERROR)
    kind = next((meant for statuses, text, meant in _MESSAGES if status in statuses and text in message), kind)
    if not message:
        message = f"HTTP status {status}" if isinstance(status, int) else status
    redirects = status in range(300, 400) if isinstance(status, int) else _REDIRECTS in message
    transient = any(all(part in message for part in parts) for parts in _TRANSIENT)
    return Failure(kind, message, transient, redirects)


def is_unknown_region(error: ClientError) -> bool:
    """Tell whether the server does not know the shared memory that a request names."""
    return _UNKNOWN_REGION in error.server_message


def error_of(
    failure: Failure, model: str, server: str, attempts: int, deadline: Deadline, via: str = ""
) -> ClientError:
    """Make the error that a caller gets to see.

    Args:
        via: The forward proxy that the server was asked through, which may be to blame.
    """
    elapsed_s = deadline.elapsed_s
    note = f"{'1 attempt' if attempts == 1 else f'{attempts} attempts'} in {_duration(elapsed_s)}"
    if failure.kind is not Kind.INVALID_INPUT:  # whose message is the error itself
        note += f"; last error: {failure.message}"
    what = _description(failure, model, f"{server} through the proxy {via}" if via else server, elapsed_s)
    hint = _WRONG_ADDRESS if failure.wrong_address else _HINTS.get(failure.kind)
    if via and failure.kind in _MAYBE_THE_PROXY:
        hint = f"{hint}; a server that needs no proxy belongs into no_proxy"
    error: ClientError = failure.kind.value(what, note=note, hint=hint)
    error.attempts, error.elapsed_s, error.server = attempts, elapsed_s, server
    error.server_message = failure.message
    return error


def message_too_large(what: str, limit_bytes: int) -> Failure:
    """Make the failure of a request or a response above the limit."""
    return Failure(
        Kind.INVALID_INPUT,
        f"{what} has more than {limit_bytes:,} bytes, which is the limit (TransportOptions.max_message_bytes)",
    )


def client_closed() -> ClientError:
    """Make the error of a call whose client is closed."""
    return ClientError("the client is closed", hint="make a new one; it lasts as long as its `with`")


def not_ready(model: str, servers: str, deadline: Deadline) -> errors.DeadlineExceededError:
    """Make the error of somebody who waited for a server, or a model on it, to be ready."""
    what = f"{model} at {servers}" if model else servers
    error = errors.DeadlineExceededError(
        f"{what} is not ready after {_duration(deadline.elapsed_s)}",
        hint="python -m clients health, or the server's log",
    )
    error.elapsed_s = deadline.elapsed_s
    return error


def _description(failure: Failure, model: str, server: str, elapsed_s: float) -> str:
    match failure.kind:
        case Kind.INVALID_INPUT:
            return f"{model} rejects the request: {failure.message}"
        case Kind.NOT_FOUND:
            return f"{server} does not serve the model {model!r}"
        case Kind.ACCESS_DENIED:
            return f"{model}: {server} denies access"
        case Kind.OVERLOADED:
            return f"{model}: {server} is overloaded"
        case Kind.DEADLINE_EXCEEDED:
            return f"{model}: no response from {server} within {_duration(elapsed_s)}"
        case Kind.UNAVAILABLE:
            return f"{model}: cannot reach {server}"
        case Kind.SERVER_ERROR:
            return f"{model} failed at {server}"
        case Kind.INVALID_RESPONSE:
            return f"{model}: invalid response from {server}"


def _duration(seconds: float) -> str:
    if seconds < 0.9995:  # or it would be 1e+03 ms
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:,.0f} s"
