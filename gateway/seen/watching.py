"""All that sees a request: metrics, traces, and a line in the access log."""

from collections.abc import Callable, Iterable

from gateway.errors import Refusal
from gateway.outcome import Outcome
from gateway.seen import logs
from gateway.seen.gauges import Reading
from gateway.seen.metrics import Metrics
from gateway.seen.traces import Span, Traces


class Seen:
    """What the brain and the doors tell of each request.

    Args:
        traces: None: there are none.
        access_log: A line for each request.
    """

    def __init__(
        self, metrics: Metrics | None = None, traces: Traces | None = None, *, access_log: bool = True
    ) -> None:
        self.metrics = metrics or Metrics()
        self._traces = traces
        self._access_log = access_log

    def watch(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Take from there what is under way."""
        self.metrics.gauges.watch(read)

    def span(self, outcome: Outcome) -> Span | None:
        """Begin the span of a request, if it is traced."""
        return self._traces.span(outcome) if self._traces is not None else None

    def finished(self, outcome: Outcome) -> None:
        """See a request that was let through, once it is over."""
        self.metrics.gauges.refresh()
        asked = outcome.asked
        own_s = max(0.0, outcome.latency_s - outcome.queued_s - (outcome.triton_s or 0.0))
        self.metrics.finished(outcome, own_s)
        if self._access_log:
            logs.tell(
                "answered",
                asked.request_id,
                door=asked.door,
                model=asked.model,
                release=outcome.release,
                arm=outcome.arm,
                key=outcome.caller.key_id,
                rows=asked.rows,
                status=outcome.status,
                latency_ms=round(outcome.latency_s * 1e3, 3),
                queue_ms=round(outcome.queued_s * 1e3, 3),
                triton_ms=None if outcome.triton_s is None else round(outcome.triton_s * 1e3, 3),
                server=outcome.endpoint,
            )

    def refused(self, door: str, refusal: Refusal, request_id: str) -> None:
        """See a refusal. One of a request that was let through has its line already."""
        self.metrics.refused(door, refusal)
        if self._access_log and not refusal.was_let_through:
            logs.tell("refused", request_id, door=door, status=refusal.status, reason=refusal.slug)

    def close(self) -> None:
        """Send what is left."""
        if self._traces is not None:
            self._traces.close()
