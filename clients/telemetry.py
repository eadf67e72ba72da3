"""Spans of OpenTelemetry around calls, where it is installed, and the `traceparent` that Triton continues."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

try:
    from opentelemetry import propagate, trace
except ImportError:  # it is optional: without it there are no spans
    trace = None  # type: ignore[assignment]


def span(model: str) -> AbstractContextManager[dict[str, str]]:
    """A span of one request, all its attempts included; what it has to carry for the server to go on from there."""
    return _span(model) if _anybody_looks() else nullcontext({})


@contextmanager
def _span(model: str) -> Iterator[dict[str, str]]:
    headers: dict[str, str] = {}
    tracer = trace.get_tracer("clients")
    with tracer.start_as_current_span(f"infer {model}", kind=trace.SpanKind.CLIENT, attributes={"model": model}):
        propagate.inject(headers)
        yield headers


def _anybody_looks() -> bool:
    """A span that nobody looks at still costs as much as all else that the library does for a call."""
    if trace is None:
        return False
    configured = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return configured or trace.get_current_span() is not trace.INVALID_SPAN  # or a caller's, to be passed on
