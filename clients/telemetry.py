"""Spans of OpenTelemetry around calls, where it is installed, and the `traceparent` that Triton continues."""

from collections.abc import Iterator
from contextlib import contextmanager

try:
    from opentelemetry import propagate, trace
except ImportError:  # it is optional: without it there are no spans
    trace = None  # type: ignore[assignment]


@contextmanager
def span(model: str) -> Iterator[dict[str, str]]:
    """A span of one call, all its attempts included; what a request has to carry for the server to go on from there."""
    headers: dict[str, str] = {}
    if trace is None:
        yield headers
        return
    tracer = trace.get_tracer("clients")
    with tracer.start_as_current_span(f"infer {model}", kind=trace.SpanKind.CLIENT, attributes={"model": model}):
        propagate.inject(headers)
        yield headers
