"""What is sent, whatever the protocol."""

import itertools
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

from clients.errors import InvalidInputError
from clients.failures import Failure, Kind
from clients.settings import Address
from clients.tensors import Arrays

# What a server can be asked besides inference.
Question = Literal["live", "ready", "server", "metadata", "config", "statistics", "index", "load", "unload", "shared"]

# Those that ask for the admin key.
ADMIN: frozenset[Question] = frozenset({"index", "load", "unload", "shared"})


@dataclass(frozen=True)
class Place:
    """Where an input lies in memory that the server shares."""

    region: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Request:
    """An inference request, already checked."""

    model: str
    inputs: Arrays
    version: str = ""  # "": the newest
    outputs: tuple[str, ...] = ()  # which to send back; none: all
    priority: int = 0  # 0: the model's default
    id: str = ""  # Triton's log and traces name it
    headers: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)  # of inputs that need not be sent

    def with_headers(self, more: Mapping[str, str]) -> Self:
        return replace(self, headers={**{name.lower(): value for name, value in more.items()}, **self.headers})

    def in_pieces(self, pieces: Iterable[Arrays]) -> list[Self]:
        """One for each, with inputs of its own; their ids end with -0, -1, …"""
        return [replace(self, inputs=piece, id=f"{self.id}-{number}") for number, piece in enumerate(pieces)]

    def answered(self, answer: Arrays, id: str) -> Arrays:  # noqa: A002  # Triton's name for it
        """The answer, if it is one to this request.

        Raises:
            Failure: it is another request's, or incomplete.
        """
        if id != self.id:
            raise Failure(Kind.BAD_ANSWER, f"it is the answer to {id!r}, and not to {self.id!r}")
        if missing := [name for name in self.outputs if name not in answer]:
            raise Failure(Kind.BAD_ANSWER, f"it lacks {', '.join(missing)}")
        return answer


class Ids:
    """Of requests: a random word, which is the client's, and a number. To be asked for from any thread."""

    def __init__(self) -> None:
        self._client, self._numbers = secrets.token_hex(8), itertools.count(1)

    def next(self) -> str:
        return f"{self._client}-{next(self._numbers)}"


def checked_question(question: Question, servers: Sequence[Address]) -> None:
    """That it can be asked.

    Raises:
        InvalidInputError: it is none; or what is asked or done would be of one server, and nobody could say of which.
    """
    if question not in get_args(Question):
        raise InvalidInputError(f"{question!r} is nothing to ask", hint=", ".join(get_args(Question)))
    if question in ADMIN and len(servers) > 1:
        raise InvalidInputError(
            f"{question!r} is for one server, and there are {len(servers)}", hint="a client for each"
        )


def checked_version(version: str | int) -> str:
    """As the protocols have it: a number, or nothing for the newest.

    Raises:
        InvalidInputError: it is neither.
    """
    if version == "":
        return ""
    if not re.fullmatch(r"[0-9]+", text := str(version)):
        raise InvalidInputError(f"the version {text!r}", hint="a number, or nothing for the newest")
    return text


def queue_timeout_us(timeout_s: float) -> int:
    """What the server is told: whoever waits for longer in a queue is not worth computing."""
    return max(1, round(timeout_s * 1e6))
