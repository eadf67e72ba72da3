"""What the brain is given: who may do what, where records go, what sees a request. Tests give it others."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from gateway.caller import Caller
from gateway.errors import Refusal
from gateway.outcome import Outcome
from gateway.seen.gauges import Reading


class Access(Protocol):
    """Who may do what, and how much of it."""

    async def check(self, authorization: str | None) -> Caller:
        """Say who asks, by the value of the header `Authorization`; a Refusal (401) if nobody does."""

    def permit(self, caller: Caller, model: str, action: str) -> None:
        """Raise a Refusal (403) unless this caller may do so with this model."""

    async def spend(self, caller: Caller, model: str, rows: int) -> Mapping[str, str]:
        """Count a request and its rows; the answer's `RateLimit-*`, or a Refusal (429)."""


class Spool(Protocol):
    """Where records go, at once and without fail: store.spool.

    Attributes:
        lost: Records that it could not take.
    """

    lost: int

    def put(self, record: dict[str, Any]) -> None:
        """Take one."""


class Samples(Protocol):
    """Which requests' whole inputs are kept: store.payloads.samples."""

    def chosen(self, model: str, request_id: str) -> bool:
        """Tell whether this one's are."""

    def keep(self, model: str, request_id: str, time_ns: int, content: bytes) -> str | None:
        """Keep them; their name for the record, or None."""


class Span(Protocol):
    """Of a request, in a trace that goes on in Triton."""

    traceparent: str

    def end(self, outcome: Outcome) -> None:
        """Be done with it."""


class Metrics(Protocol):
    """What sees: gateway.seen.Seen."""

    def watch(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Take from there what is under way."""

    def finished(self, outcome: Outcome) -> None:
        """See a request that was let through, once it is over."""

    def refused(self, door: str, refusal: Refusal, request_id: str) -> None:
        """See a refusal; doors tell of each that they send."""

    def span(self, outcome: Outcome) -> Span | None:
        """Begin a span of a request, where it is one of those that are traced."""


class NoSamples:
    """Of no request."""

    def chosen(self, model: str, request_id: str) -> bool:
        """Tell that it is not."""
        return False

    def keep(self, model: str, request_id: str, time_ns: int, content: bytes) -> str | None:
        """Keep nothing."""
        return None
