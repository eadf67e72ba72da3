"""The kinds of refusals, each with the word that programs compare, and their problem details (RFC 9457)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import Refusal

MEDIA_TYPE = "application/problem+json"
TYPES = "/problems/"  # what `type` begins with; a slug follows


@dataclass(frozen=True)
class Fault:
    """What is wrong with one part of a request.

    Attributes:
        field: Where, as a JSON pointer (RFC 6901): /rows/0/distance.
    """

    field: str
    got: str
    expected: str


class FaultyInput(Refusal):  # as Refusal
    """A request whose parts do not fit the model: each that does not is named."""

    def __init__(self, detail: str, faults: Sequence[Fault]) -> None:
        super().__init__(422, "invalid-input", "The input does not fit the model", detail)
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Kind:
    """A kind of refusal, by which one is made: KIND("what happened")."""

    status: int
    slug: str
    title: str
    remedy: str  # what a caller does about it

    def __call__(self, detail: str, **more: Any) -> Refusal:
        """Make a refusal of this kind."""
        return Refusal(self.status, self.slug, self.title, detail, **more)


MALFORMED = Kind(400, "malformed", "The request cannot be read", "mend what `detail` names")
NO_KEY = Kind(401, "no-key", "No valid key", "send the header Authorization: Bearer KEY")
NOT_ALLOWED = Kind(403, "not-allowed", "Not allowed", "ask for a key with the scope that `detail` names")
NOT_FOUND = Kind(404, "not-found", "There is nothing here", "GET /openapi.json lists what there is")
NO_TASK = Kind(404, "no-such-task", "The model does not do this", "GET /v1/models/MODEL lists its tasks")
NO_METHOD = Kind(405, "method-not-allowed", "Not this method", "use one of those in the header Allow")
IN_PROGRESS = Kind(409, "in-progress", "The same request is under way", "ask again after Retry-After seconds")
SLOW = Kind(408, "slow-request", "The request took too long to arrive", "allow it more time: Request-Timeout-Ms")
TOO_LARGE = Kind(413, "too-large", "The request is too large", "send less at once")
OVER_LIMIT = Kind(413, "over-limit", "More at once than the quota ever allows", "send fewer rows at once")
UNSUPPORTED = Kind(415, "unsupported-type", "Not this content type", "send one of those that `detail` names")
INVALID = Kind(422, "invalid-input", "The input does not fit the model", "`errors` has field, got and expected")
REJECTED = Kind(422, "rejected", "The model refuses the input", "`detail` is what the model says")
REUSED = Kind(422, "key-reused", "The Idempotency-Key is another request's", "take a new one for each request")
OVER_QUOTA = Kind(429, "quota-exceeded", "The quota is used up", "ask again after Retry-After seconds")
BUG = Kind(500, "bug", "The gateway has a fault", "tell its operator the request_id")
BAD_ANSWER = Kind(502, "bad-answer", "The server gave no answer", "ask again; tell the operator if it stays so")
MODEL_FAILED = Kind(502, "model-failed", "The model failed", "`detail` is what the server says")
OVERLOADED = Kind(503, "overloaded", "The model is overloaded", "ask again after Retry-After seconds")
UNCOUNTED = Kind(503, "quota-unavailable", "Nobody can count", "ask again after Retry-After seconds")
NO_STORE = Kind(503, "store-unavailable", "The store cannot be reached", "ask again after Retry-After seconds")
STOPPING = Kind(503, "stopping", "The gateway ends", "ask again after Retry-After seconds: another one answers")
NO_MODELS = Kind(503, "server-unavailable", "No server answers", "ask again after Retry-After seconds")

AT_ITS_END = "its time to end what was begun is over"


def problem(refusal: Refusal, request_id: str | None = None) -> dict[str, Any]:
    """Return the problem details of a refusal, for JSON."""
    found: dict[str, Any] = {
        "type": f"{TYPES}{refusal.slug}",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    if request_id:
        found["request_id"] = request_id
    if isinstance(refusal, FaultyInput):
        found["errors"] = [vars(fault) for fault in refusal.faults]
    return found
