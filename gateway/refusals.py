"""What a caller is told in place of an answer: a status and its problem details (RFC 9457)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from types import MappingProxyType
from typing import Any

from contracts.errors import ProjectError

MEDIA_TYPE = "application/problem+json"
TYPES = "/problems/"  # what `type` begins with; a slug follows


@dataclass(frozen=True)
class Fault:
    """What is wrong with one part of a request.

    Attributes:
        pointer: Where, as a JSON pointer (RFC 6901): /rows/0/distance.
    """

    pointer: str
    got: str
    expected: str


class Refusal(ProjectError):
    """A request is not answered.

    Attributes:
        status: Of HTTP.
        slug: The kind of problem, a word that stays: "quota-exceeded".
        title: The kind in a few words, the same for all of it.
        detail: This one.
        retry_after: After how many seconds it may be asked again; None: nothing gets better by that.
        headers: More of the answer's headers.
        faults: What is wrong with which part of the request.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        faults: Sequence[Fault] = (),
    ) -> None:
        super().__init__(f"{title}: {detail}")
        self.status, self.slug, self.title, self.detail = status, slug, title, detail
        self.retry_after, self.headers, self.faults = retry_after, headers, tuple(faults)

    def problem(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the body of the answer, for JSON."""
        found: dict[str, Any] = {
            "type": f"{TYPES}{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if request_id:
            found["request_id"] = request_id
        if self.faults:
            found["errors"] = [vars(fault) for fault in self.faults]
        return found

    def all_headers(self) -> dict[str, str]:
        """Return the headers of the answer, but those of its body."""
        wait = {} if self.retry_after is None else {"retry-after": str(max(1, ceil(self.retry_after)))}
        challenge = {"www-authenticate": 'Bearer realm="gateway"'} if self.status == HTTPStatus.UNAUTHORIZED else {}
        return {**challenge, **wait, **self.headers}


@dataclass(frozen=True)
class Kind:
    """A kind of problem, by which refusals are made: KIND("what happened")."""

    status: int
    slug: str
    title: str
    about: str = field(default="", compare=False)  # what a caller does about it

    def __call__(self, detail: str, **more: Any) -> Refusal:
        """Make a refusal of this kind."""
        return Refusal(self.status, self.slug, self.title, detail, **more)


NO_KEY = Kind(401, "no-key", "No valid key", "send Authorization: Bearer KEY")
NOT_ALLOWED = Kind(403, "not-allowed", "Not allowed", "ask for a key with this scope")
NO_MODEL = Kind(404, "no-model", "There is no such model", "GET /v1/models lists those that your key may ask")
INVALID = Kind(422, "invalid-input", "The input does not fit the model", "see errors: field, got and expected")
MALFORMED = Kind(400, "malformed", "The request cannot be read", "see detail")
TOO_LARGE = Kind(413, "too-large", "The request is too large", "send less at once")
UNSUPPORTED = Kind(415, "unsupported-type", "The content type is not taken", "see detail")
CONFLICT = Kind(409, "conflict", "It contradicts an earlier request", "use another Idempotency-Key")
OVER_QUOTA = Kind(429, "quota-exceeded", "The key's quota is used up", "wait for Retry-After seconds")
UNAVAILABLE = Kind(503, "unavailable", "It cannot be answered now", "wait for Retry-After seconds")
