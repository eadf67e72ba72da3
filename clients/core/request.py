"""What is sent, whatever the protocol: inference requests, and queries about a server and its models."""

import itertools
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from clients.core.answer import Answer
from clients.core.failures import Failure, Kind
from clients.core.tensors import Arrays
from clients.errors import InvalidInputError
from clients.settings import Address, Parameters, checked_headers

# KServe's protocol and Triton's extensions to it.
Endpoint = Literal[
    "live",
    "ready",
    "server_metadata",
    "model_metadata",
    "model_config",
    "statistics",
    "repository_index",
    "load_model",
    "unload_model",
    "shared_memory_status",
    "register_shared_memory",
    "unregister_shared_memory",
]

_OF_A_MODEL = {"model_metadata", "model_config", "load_model", "unload_model"}
_MOST_BYTES = 2**63 - 1
_SENT_ONCE = {"load_model", "unload_model", "register_shared_memory"}  # what must not be done twice
# Parameters that are Triton's, and are set by arguments of their own or by the client.
_RESERVED = {"priority", "timeout", "binary_data_output"}  # and what begins with "triton_"
SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")


@dataclass(frozen=True)
class Query:
    """A question about the server, or a change to what it serves or shares.

    Raises:
        InvalidInputError: a name cannot be sent, or the model's is missing.
    """

    endpoint: Endpoint
    model: str = ""
    version: str = ""  # "": the newest
    parameters: Mapping[str, str | bool] = field(default_factory=dict)  # of load_model and unload_model
    region: str = ""  # of system shared memory
    key: str = ""  # its name in /dev/shm
    size_bytes: int = 0

    def __post_init__(self) -> None:
        check_text(self.model, self.region, self.key)
        if not self.model and (self.version or self.endpoint in _OF_A_MODEL):
            raise InvalidInputError(f"{self.endpoint} needs the name of a model")
        if self.endpoint == "register_shared_memory" and not (_is_size(self.size_bytes) and self.size_bytes):
            raise InvalidInputError(f"a region must have 1 to 2^63 - 1 bytes, and has {self.size_bytes!r}")

    @property
    def about(self) -> str:
        """What its errors are about: a model, or the server."""
        return self.model or "the server"

    @property
    def queue(self) -> str:
        """No model's: Triton answers it at once."""
        return ""

    @property
    def idempotent(self) -> bool:
        """Whether the server may see it twice."""
        return self.endpoint not in _SENT_ONCE

    @property
    def is_admin(self) -> bool:
        """Whether it is one of those that `deploy up` restricts to the holder of the admin key."""
        return self.endpoint in ("repository_index", "load_model", "unload_model") or "shared_memory" in self.endpoint


@dataclass(frozen=True)
class SharedTensor:
    """Where an input lies in system shared memory.

    Raises:
        InvalidInputError: it lies nowhere. Triton 2.51 does not notice a sum of offset and size that wraps around.
    """

    region: str
    offset: int
    size_bytes: int

    def __post_init__(self) -> None:
        check_text(self.region)
        if not (_is_size(self.offset) and _is_size(self.size_bytes) and self.offset + self.size_bytes <= _MOST_BYTES):
            raise InvalidInputError(
                f"an input must lie from 0 to 2^63 - 1 bytes in its memory: {self.size_bytes!r} at {self.offset!r}"
            )


@dataclass(frozen=True)
class Request:
    """An inference request, already validated."""

    model: str
    inputs: Arrays
    version: str = ""  # "": the newest
    outputs: tuple[str, ...] = ()  # which to return; none: all
    priority: int = 0  # 0: the model's default
    id: str = ""  # Triton's log and traces name it
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Parameters = field(default_factory=dict)
    shared: Mapping[str, SharedTensor] = field(default_factory=dict)  # inputs that are not sent, by name
    idempotent: bool = True  # whether the server may see it twice

    @classmethod
    def of(
        cls,
        model: str,
        inputs: Arrays,
        *,
        servers: int,
        outputs: Sequence[str],
        version: str,
        priority: int,
        id: str,  # noqa: A002  # Triton's name for it
        headers: Mapping[str, str] | None,
        parameters: Parameters | None,
        idempotent: bool,
        shared: Mapping[str, SharedTensor] | None = None,
    ) -> Self:
        """Check what a caller gave, and make a request of it, to a client's so many servers.

        Raises:
            InvalidInputError: the priority, a header or a parameter cannot be sent.
        """
        if isinstance(outputs, str):
            raise InvalidInputError(f"outputs must be a list of names, and is {outputs!r}")
        check_text(model, id, *(outputs := tuple(outputs)))
        if not (isinstance(priority, int) and 0 <= priority < 2**32):
            raise InvalidInputError(
                f"priority must be 0 (the model's default), or 1 (the highest) on, and is {priority!r}"
            )
        return cls(
            model,
            inputs,
            version=version,
            outputs=outputs,
            priority=priority,
            id=id,
            headers=checked_headers(headers) if headers else {},
            parameters=checked_parameters(parameters, servers) if parameters else {},
            idempotent=idempotent and "sequence_id" not in (parameters or {}),
            shared=shared or {},
        )

    @property
    def about(self) -> str:
        """What its errors are about."""
        return self.model

    @property
    def queue(self) -> str:
        """The model whose queue it waits in."""
        return self.model

    @property
    def is_of_a_sequence(self) -> bool:
        """Whether the model keeps what earlier requests of it said."""
        return "sequence_id" in self.parameters

    def with_headers(self, more: Mapping[str, str]) -> Self:
        """Add headers; those that it has win."""
        return replace(self, headers={**{name.lower(): value for name, value in more.items()}, **self.headers})

    def in_chunks(self, chunks: Sequence[Arrays], max_batch_size: int) -> list[Self]:
        """Make a request of each chunk, whose ids end with -0, -1, …

        Raises:
            InvalidInputError: it cannot be sent in several requests.
        """
        what = "a request of a sequence" if self.is_of_a_sequence else "shared memory" if self.shared else ""
        if what:
            raise InvalidInputError(f"{self.model}: {what} takes at most {max_batch_size} rows, the model's batch size")
        return [replace(self, inputs=chunk, id=f"{self.id}-{number}") for number, chunk in enumerate(chunks)]

    def verified(self, answer: Answer, request_id: str) -> Answer:
        """Return an answer, if it is of a response to this request.

        Raises:
            Failure: it is the response to another one, or incomplete.
        """
        if request_id != self.id:
            raise Failure(Kind.INVALID_RESPONSE, f"it is the response to request {request_id!r}, and not {self.id!r}")
        if missing := [name for name in self.outputs if name not in answer]:
            raise Failure(Kind.INVALID_RESPONSE, f"it lacks the output {', '.join(missing)}")
        return answer


class RequestIds:
    """A random word, which is the client's, and a number. Thread-safe."""

    def __init__(self) -> None:
        self._client, self._numbers = secrets.token_hex(8), itertools.count(1)

    def next(self) -> str:
        """Return an id that no other request has."""
        return f"{self._client}-{next(self._numbers)}"


def check_text(*texts: str) -> None:
    """Check that texts can be sent.

    Raises:
        InvalidInputError: one is no text, or one that UTF-8 does not have.
    """
    for text in texts:
        try:
            text.isascii() or text.encode()
        except (AttributeError, UnicodeEncodeError) as error:
            raise InvalidInputError(f"{text!r} cannot be sent as text") from error


def checked_query(query: Query, servers: Sequence[Address]) -> Query:
    """Check that a query can be asked, and return it.

    Raises:
        InvalidInputError: it would be done by one of several servers, and nobody could say by which.
    """
    if query.is_admin and len(servers) > 1:
        raise InvalidInputError(
            f"{query.endpoint} is for one server, and there are {len(servers)}", hint="a client for each"
        )
    return query


def checked_version(version: str | int) -> str:
    """Check a version, and write it as the protocols do: a number, or nothing for the newest.

    Raises:
        InvalidInputError: it is neither.
    """
    if version == "":
        return ""
    if not re.fullmatch(r"[0-9]+", text := str(version)):
        raise InvalidInputError(f"invalid model version {text!r}", hint="a number, or nothing for the newest")
    return text


def checked_parameters(parameters: Mapping[str, Any], servers: int) -> Parameters:
    """Check what is to be sent along, and return it.

    Raises:
        InvalidInputError: a name is Triton's own, a value is of a type that the protocols do not carry, or it is of a
            sequence and there are several servers: a sequence is kept by one.
    """
    check_text(*parameters, *(value for value in parameters.values() if isinstance(value, str)))
    for name, value in parameters.items():
        if name in _RESERVED or name.startswith("triton_"):
            raise InvalidInputError(f"the parameter {name!r} is set by the client", hint="priority=…, timeout_s=…")
        is_int64 = isinstance(value, int) and -(2**63) <= value < 2**63
        if not (is_int64 or isinstance(value, str | float)):
            raise InvalidInputError(f"the parameter {name!r} must be a str, bool, int64 or float, and is {value!r}")
    if parameters.keys() & {*SEQUENCE} and (not parameters.get("sequence_id") or servers > 1):
        raise InvalidInputError(
            f"a sequence needs a sequence_id and one server, and there are {servers}", hint="a client for each server"
        )
    return parameters


def queue_timeout_us(timeout_s: float) -> int:
    """Return Triton's `timeout`: how long the request may wait in a queue."""
    return max(1, round(timeout_s * 1e6))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= _MOST_BYTES
