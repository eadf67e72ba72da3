"""What one attempt came to, when it was no answer: from a status and a message to what it means.

gRPC's UNAVAILABLE is what Triton says of a full queue, and what gRPC says of a dead server; only the message tells.
"""

from dataclasses import dataclass
from enum import Enum

from clients import errors
from clients.deadline import Deadline
from clients.errors import ClientError


class Kind(Enum):
    """What an attempt failed of."""

    INVALID = errors.InvalidInputError
    NOT_FOUND = errors.ModelNotFoundError
    ACCESS = errors.AccessError
    OVERLOADED = errors.OverloadedError
    EXPIRED = errors.DeadlineError
    UNREACHABLE = errors.ServerUnavailableError
    BROKEN = errors.InferenceError
    BAD_ANSWER = errors.BadAnswerError


@dataclass
class Failure(Exception):  # noqa: N818  # an outcome; callers get a ClientError
    """One attempt's.

    Attributes:
        heals: Another attempt may do better although the server answers: a worker that died is being replaced.
    """

    kind: Kind
    said: str
    heals: bool = False

    @property
    def is_an_answer(self) -> bool:
        """Somebody is there, whatever it says."""
        return self.kind not in (Kind.UNREACHABLE, Kind.EXPIRED)


_GRPC = {
    "INVALID_ARGUMENT": Kind.INVALID,
    "UNIMPLEMENTED": Kind.INVALID,
    "OUT_OF_RANGE": Kind.INVALID,
    "NOT_FOUND": Kind.NOT_FOUND,
    "UNAUTHENTICATED": Kind.ACCESS,
    "PERMISSION_DENIED": Kind.ACCESS,
    "RESOURCE_EXHAUSTED": Kind.OVERLOADED,
    "DEADLINE_EXCEEDED": Kind.EXPIRED,
    "UNAVAILABLE": Kind.UNREACHABLE,
    "CANCELLED": Kind.UNREACHABLE,  # by the server, which is stopping
}
_HTTP = {
    400: Kind.INVALID,
    413: Kind.INVALID,
    415: Kind.INVALID,
    404: Kind.NOT_FOUND,
    401: Kind.ACCESS,
    403: Kind.ACCESS,
    407: Kind.ACCESS,
    429: Kind.OVERLOADED,
    503: Kind.OVERLOADED,  # also of a proxy that limits, or has nobody to pass it on to
    502: Kind.UNREACHABLE,
    504: Kind.UNREACHABLE,
}
FORGOTTEN_REGION = "Unable to find shared memory region"
# Part of the message -> what it means, whatever the status. Of Triton 2.51 to 2.71.
_SAID = {
    "Exceeds maximum queue size": Kind.OVERLOADED,
    "Request timeout expired": Kind.OVERLOADED,
    "unknown model": Kind.NOT_FOUND,
    "is restricted": Kind.ACCESS,
    "proxy returned response code 407": Kind.ACCESS,  # gRPC's own words
    "larger than max": Kind.INVALID,  # gRPC's limit of a message, ours or the server's
    "too large": Kind.INVALID,
    FORGOTTEN_REGION: Kind.INVALID,
}
_DEAD_WORKER = "is not healthy"  # "Stub process '…' is not healthy."

_HINTS = {
    Kind.NOT_FOUND: "see what it serves: python -m clients models",
    Kind.ACCESS: "has the client its key, or its certificate? See docs/how-to/call.md",
    Kind.OVERLOADED: "send less at once, or later; a longer timeout lets more attempts succeed",
    Kind.EXPIRED: "is the server overloaded, or the time too short? python -m clients health",
    Kind.UNREACHABLE: "is the server up? python -m clients health",
    Kind.BROKEN: "the server's log says more",
    Kind.BAD_ANSWER: "is it a Triton, and is nothing in between changing bytes? TLS would tell",
}


def of_grpc(code: str, said: str) -> Failure:
    """Of gRPC's status code by name."""
    return _failure(_GRPC.get(code, Kind.BROKEN), said or code)


def of_http(status: int, said: str) -> Failure:
    """Of HTTP's status code."""
    return _failure(_HTTP.get(status, Kind.BROKEN), said or f"HTTP status {status}")


def error_of(failure: Failure, model: str, server: str, attempts: int, deadline: Deadline) -> ClientError:
    """The error that a caller gets to see."""
    elapsed_s = deadline.elapsed_s
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    what = {
        Kind.INVALID: f"{model} refuses the request: {failure.said}",
        Kind.NOT_FOUND: f"{server} does not serve the model {model!r}",
        Kind.ACCESS: f"{server} refuses access",
        Kind.OVERLOADED: f"{model}: {server} has too much to do",
        Kind.EXPIRED: f"{model}: no answer from {server} within {elapsed_s:.3g} s",
        Kind.UNREACHABLE: f"{model}: nobody answers at {server}",
        Kind.BROKEN: f"{model} failed at {server}",
        Kind.BAD_ANSWER: f"{model}: what {server} sent back is no answer",
    }[failure.kind]
    said = "" if failure.kind is Kind.INVALID else f"; the last: {failure.said}"
    error: ClientError = failure.kind.value(
        what, note=f"{times} in {elapsed_s:.3g} s{said}", hint=_HINTS.get(failure.kind)
    )
    error.attempts, error.elapsed_s = attempts, elapsed_s
    return error


def too_large(what: str, limit_bytes: int) -> Failure:
    return Failure(
        Kind.INVALID, f"{what} has more than {limit_bytes:,} bytes, which is the limit (Transport.max_message_bytes)"
    )


def too_late(model: str, pieces: int, deadline: Deadline) -> errors.DeadlineError:
    """Of a batch that was sent in pieces, which waited for each other."""
    error = errors.DeadlineError(
        f"{model}: not all of {pieces} pieces were answered within {deadline.elapsed_s:.3g} s",
        hint="a longer timeout; or more of them at once: concurrency=…",
    )
    error.elapsed_s = deadline.elapsed_s
    return error


def _failure(kind: Kind, said: str) -> Failure:
    said = said.partition("\n\nAt:")[0].strip()  # the traceback that Triton's Python backend appends
    kind = next((meant for text, meant in _SAID.items() if text in said), kind)
    return Failure(kind, said, heals=_DEAD_WORKER in said)
