"""Spans of both doors, in OpenTelemetry, whose trace goes on in Triton's own spans (W3C's `traceparent`).

Only a request that is traced costs anything: whether it is, is decided here, from the caller's `traceparent` or by
chance, as OpenTelemetry's ParentBased(TraceIdRatioBased) would.
"""

import logging
import random
import re
import threading
import time
from typing import Any

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.outcome import Outcome

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1
CLOSE_S = 2.0  # for a collector to take the last spans
log = logging.getLogger("gateway.seen")


class Traces:
    """Makes spans.

    Args:
        endpoint: Of OTLP over HTTP: "http://collector:4318/v1/traces".
        ratio: Of the requests whose caller does not say, those that are traced.
        exporter: Another one than OTLP's.
    """

    def __init__(self, endpoint: str, ratio: float, exporter: SpanExporter | None = None) -> None:
        self._ratio = ratio
        resource = Resource.create({"service.name": "gateway"})
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("gateway")

    def span(self, outcome: Outcome) -> "Span | None":
        """Begin the span of a request, if it is traced."""
        parent = parent_of(outcome.asked.traceparent)
        if not (parent.trace_flags & _SAMPLED if parent else random.random() < self._ratio):  # noqa: S311
            return None
        within = trace.set_span_in_context(NonRecordingSpan(parent)) if parent else context.Context()
        span = self._tracer.start_span(
            f"infer {outcome.asked.model}", within, SpanKind.SERVER, start_time=outcome.began_ns
        )
        return Span(span)

    def flush(self) -> None:
        """Send what waits, now."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send what is left, within CLOSE_S: a collector that hangs holds nothing up."""
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(CLOSE_S)
        if sending.is_alive():
            log.warning("the collector of traces took no spans within %g s: the last ones are lost", CLOSE_S)


class Span:
    """Of one request.

    Attributes:
        traceparent: What its children are told.
    """

    def __init__(self, span: Any) -> None:
        self._span = span
        found = span.get_span_context()
        self.traceparent = f"00-{found.trace_id:032x}-{found.span_id:016x}-01"

    def end(self, outcome: Outcome) -> None:
        """Say what became of the request."""
        asked = outcome.asked
        self._span.set_attributes(
            {
                "gateway.model": asked.model,
                "gateway.release": outcome.release,
                "gateway.arm": outcome.arm,
                "gateway.door": asked.door,
                "gateway.rows": asked.rows,
                "gateway.request_id": asked.request_id,
                "gateway.queue_ms": outcome.queued_s * 1e3,
                "server.address": outcome.endpoint,
                "http.response.status_code": outcome.status,
                **({"gateway.key": outcome.caller.key_id} if outcome.caller.key_id else {}),
                **({"gateway.triton_ms": outcome.triton_s * 1e3} if outcome.triton_s is not None else {}),
            }
        )
        if outcome.status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(time.time_ns())


def parent_of(header: str | None) -> SpanContext | None:
    """Read a caller's `traceparent`; None if there is none, or it is none."""
    found = _PARENT.fullmatch(header or "")
    if found is None or found[1] == "ff":
        return None
    trace_id, span_id, flags = int(found[2], 16), int(found[3], 16), int(found[4], 16)
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & _SAMPLED))
