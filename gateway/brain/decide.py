"""What becomes of a request: whether it goes to Triton, where to, with how much time, and what is written down of it.

Both doors ask the same way:

    caller = await access.check(authorization)
    model = await brain.model(caller, name, version, "infer")       # then read what was sent against its signature
    async with brain.admitted(caller, asked) as admitted:
        async with await admitted.infer(headers, body) as answer:
            ...                                                     # admitted.headers belong into the answer
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from contracts.errors import ModelConfigError
from gateway.brain.admission import DEFAULT_CLASS, Admission, Room
from gateway.brain.breaker import Breaker, Rule
from gateway.brain.endpoints import Endpoints
from gateway.brain.needs import Access, Metrics, NoSamples, Samples, Span, Spool
from gateway.brain.readiness import Readiness
from gateway.caller import Caller
from gateway.deadline import Deadline, passed
from gateway.errors import BrokenError, FullError, GoneError, LateError, Refusal, UpstreamError
from gateway.outcome import Asked, Outcome
from gateway.refusals import AT_ITS_END, STOPPING
from gateway.seen.gauges import Reading
from gateway.triton.connection import Body
from gateway.triton.models import FRESH_S, Model, Models
from gateway.triton.upstream import Answer

ARM = "stable"  # the only one until releases are judged
MOST_SAMPLED = 8 << 20  # bytes of a request that is kept whole; larger ones are not
TRACEBACK = "\n\nAt:"  # what Triton's Python backend appends to a message, and no caller is told
SLOW_S = 10.0  # a Triton that had so much time and did not answer has failed; with less its caller was in a hurry
_OVERLOAD = (b"Exceeds maximum queue size", b"Request timeout expired")  # core/src/scheduler_utils.cc, with 503


@dataclass(frozen=True)
class Rules:
    """What an operator decides of all models' requests."""

    room: Room = field(default_factory=Room)
    breaker: Rule = field(default_factory=Rule)
    default_timeout_s: float = 30.0
    most_timeout_s: float = 300.0
    signatures_s: float = FRESH_S


class Brain:
    """Decides; everything that it needs is given to it."""

    def __init__(
        self,
        *,
        access: Access,
        endpoints: Endpoints,
        spool: Spool,
        metrics: Metrics,
        rules: Rules | None = None,
        samples: Samples | None = None,
    ) -> None:
        self.access = access
        self.endpoints = endpoints
        self.readiness = Readiness(endpoints)
        self.spool = spool
        self.metrics = metrics
        self.samples: Samples = samples or NoSamples()
        self.rules = rules or Rules()
        self.models = Models(endpoints.get, self.rules.signatures_s)
        self._gates: dict[tuple[str, str], tuple[Admission, Breaker]] = {}
        metrics.watch(self.under_way)

    def deadline(self, header: str | None) -> Deadline:
        """Return the deadline of a request with this header `Request-Timeout-Ms`.

        Raises:
            Refusal: 400, it cannot be read.
        """
        return Deadline.of(header, self.rules.default_timeout_s, self.rules.most_timeout_s)

    async def model(
        self, caller: Caller, name: str, version: str | None, action: str, deadline: Deadline | None = None
    ) -> Model:
        """Return a model that this caller may ask.

        Args:
            deadline: Until when a Triton that is gone is waited for.

        Raises:
            Refusal: 403, it may not; 404, there is none; 503, no Triton says what there is.
        """
        self.access.permit(caller, name, action)  # before: nobody learns what there is by asking
        while True:
            try:
                model = await self.models.get(name, version or "", deadline.at if deadline else None)
                break
            except (UpstreamError, ModelConfigError) as error:
                if isinstance(error, LateError) and deadline and deadline.remaining_s <= 0:
                    raise passed() from error
                if isinstance(error, GoneError) and deadline and await self.endpoints.back(deadline.at):
                    continue
                detail = "no server says what models there are"
                raise Refusal(503, "server-unavailable", "No server answers", detail, retry_after_s=1.0) from error
        if model is None:
            what = f"{name}, version {version}" if version else name
            raise Refusal(404, "unknown-model", "There is no such model", f"{what} is not served here")
        return model

    def admitted(self, caller: Caller, asked: Asked, model: Model | None = None) -> "Admitted":
        """Let a request through, while an `async with` lasts.

        Args:
            model: Where `model` was asked just now.

        Raises, when it is entered:
            Refusal: no scope (403), no such model (404), no quota left (429), the circuit is open or the model
                overloaded (503), the deadline passed (504).
        """
        return Admitted(self, caller, asked, model)

    def gate(self, model: str, arm: str) -> tuple[Admission, Breaker]:
        """Return what stands before an arm of a model that there is."""
        if (model, arm) not in self._gates:
            self._gates[model, arm] = Admission(self.rules.room), Breaker(self.rules.breaker)
        return self._gates[model, arm]

    def under_way(self) -> Iterator[Reading]:
        """Yield what is at this moment, for metrics."""
        for arm, (admission, breaker) in self._gates.items():
            yield "in_flight", arm, admission.under_way
            yield "waiting", arm, admission.waiting
            yield "circuit_open", arm, breaker.state != "closed"
        for number, endpoint in enumerate(self.endpoints.all, 1):
            yield "server_up", (str(number),), endpoint.is_up
            yield "unwanted", (str(number),), endpoint.upstream.unwanted
        yield "records_lost", (), self.spool.lost


class Admitted:
    """A request that was let through.

    Attributes:
        model: As Triton serves it.
        outcome: The door fills in what it knows of it: the status that it sends, the summaries.
        priority: The class that it has.
        headers: Of the answer: `RateLimit-*`.
    """

    model: Model
    outcome: Outcome
    _admission: Admission
    _breaker: Breaker

    def __init__(self, brain: Brain, caller: Caller, asked: Asked, model: Model | None) -> None:
        self._brain, self._caller, self._asked, self._known = brain, caller, asked, model
        self._failed: bool | None = None
        self._since = self._away_s = 0.0
        self._is_recorded = False
        self._span: Span | None = None
        self.headers: dict[str, str] = {}
        self.priority = max(asked.priority or DEFAULT_CLASS, caller.priority_most)

    @property
    def deadline(self) -> Deadline:
        """When it must be answered."""
        return self._asked.deadline

    @property
    def trace_headers(self) -> dict[str, str]:
        """What joins Triton's spans to ours: W3C's `traceparent`, where the request is traced."""
        return {} if self._span is None else {"traceparent": self._span.traceparent}

    @property
    def triton_timeout_us(self) -> int:
        """How long it may wait in Triton's queue: what is left."""
        return self._asked.deadline.queue_us

    async def infer(self, headers: Mapping[str, str], body: Body, sequence: str | None = None) -> Answer:
        """Send a request of the Open Inference Protocol, and return the answer once it begins.

        Args:
            headers: `Inference-Header-Content-Length`, and `Content-Length` where `body` is streamed.
            sequence: The id of the sequence that it belongs to.

        Raises:
            Refusal: 503, no Triton is there; 504, none answered in time; 502, what it said is no answer.
        """
        asked, outcome = self._asked, self.outcome
        version = f"/versions/{asked.version}" if asked.version else ""
        path = f"/v2/models/{asked.model}{version}/infer"
        sent = time.monotonic()
        try:
            endpoint, answer = await self._brain.endpoints.infer(path, headers, body, asked.deadline.at, sequence)
        except LateError as error:
            self._failed = True if time.monotonic() - sent >= SLOW_S else None
            raise passed() from error
        except FullError as error:
            detail = "it has no room for another connection to a server"
            raise Refusal(503, "overloaded", "The gateway is overloaded", detail, retry_after_s=1.0) from error
        except BrokenError as error:
            self._failed = True
            detail = "the server behind the gateway closed the connection, or said what cannot be read"
            raise Refusal(502, "bad-answer", "The server gave no answer", detail) from error
        except Refusal:
            outcome.queued_s += time.monotonic() - sent  # none came back
            raise
        self._away_s = answer.asked_at - sent  # waited for one to come back, say
        outcome.queued_s += self._away_s
        outcome.triton_s = time.monotonic() - answer.asked_at
        outcome.endpoint = str(endpoint.upstream)
        outcome.status = answer.status
        self._failed = answer.status >= 500 and not _is_overload(answer)
        return answer

    def record(self) -> None:
        """Write down what became of it, once: before the answer begins, where a door knows it then.

        So a process that is killed has left a record of all that it answered.
        """
        if not self._is_recorded:
            self._is_recorded = True
            self.outcome.latency_s = time.monotonic() - self._asked.arrived
            self._brain.spool.put(self.outcome.record())

    async def __aenter__(self) -> Self:
        brain, asked, caller = self._brain, self._asked, self._caller
        try:
            about = caller, asked.model, asked.version, asked.action, asked.deadline
            self.model = self._known or await brain.model(*about)
            self.outcome = Outcome(asked, caller, ARM, self.model.release)
            self.headers.update(await brain.access.spend(caller, asked.model, asked.rows))
            self._admission, self._breaker = brain.gate(asked.model, ARM)
            if asked.deadline.remaining_s <= 0:
                raise passed()
            self._span = brain.metrics.span(self.outcome)
            self._breaker.let_through()
            before = time.monotonic()
            try:
                await self._admission.enter(self.priority, asked.deadline)
            except BaseException:
                self._breaker.count(None)
                raise
        except BaseException as raised:
            error = self._given_up(raised)
            if isinstance(error, Refusal):
                error.headers = {**self.headers, **error.headers}
            if self._span is not None:
                self.outcome.status = error.status if isinstance(error, Refusal) else 499
                self._span.end(self.outcome)
            if error is raised:
                raise
            raise error from None
        self._since = time.monotonic()
        self.outcome.queued_s = self._since - before
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outcome, now, raised = self.outcome, time.monotonic(), error
        error = None if raised is None else self._given_up(raised)
        if isinstance(error, Refusal):
            outcome.status, error.was_let_through = error.status, True
            error.headers = {**self.headers, **error.headers}
            if error.status == 502:
                self._failed = True
            elif error.status == 504:  # its answer had begun, well or not, and nobody knows its end
                self._failed = self._failed or None
        elif isinstance(error, LateError):
            outcome.status, self._failed = 504, self._failed or None
        elif isinstance(error, UpstreamError):  # the answer broke off
            outcome.status, self._failed = 502, True
        elif error is not None:
            outcome.status = 499  # its caller went away
        self.record()
        outcome.latency_s = now - self._asked.arrived
        self._admission.leave(now - self._since - self._away_s if error is None else None)
        self._breaker.count(self._failed)
        if self._span is not None:
            self._span.end(outcome)
        self._brain.metrics.finished(outcome)
        if error is not None and error is not raised:
            raise error from None

    def _given_up(self, error: BaseException) -> BaseException:
        """Return what its caller is told: a request that is cancelled because the gateway ends has a caller still."""
        if isinstance(error, asyncio.CancelledError) and self._brain.readiness.over:
            return STOPPING(AT_ITS_END, retry_after_s=1.0)
        return error


def _is_overload(answer: Answer) -> bool:
    said = answer.peek() or b""
    return answer.status == 503 and any(words in said for words in _OVERLOAD)
