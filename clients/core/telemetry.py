"""Spans of OpenTelemetry around requests, where it is installed, and the `traceparent` that Triton continues."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

try:
    from opentelemetry import propagate, trace
except ImportError:  # it is optional: without it there are no spans
    trace = None  # type: ignore[assignment]


def span(model: str, request_id: str) -> AbstractContextManager[dict[str, str]]:
    """Open a span of one request, all its attempts included; the headers with which the server continues the trace."""
    return _span(model, request_id) if _is_recorded() else nullcontext({})


@contextmanager
def _span(model: str, request_id: str) -> Iterator[dict[str, str]]:
    headers: dict[str, str] = {}
    attributes = {"triton.model_name": model, "triton.request_id": request_id}
    tracer = trace.get_tracer(__name__.partition(".")[0])
    with tracer.start_as_current_span(f"infer {model}", kind=trace.SpanKind.CLIENT, attributes=attributes) as started:
        propagate.inject(headers)
        try:
            yield headers
        except Exception as error:  # the span itself notes its message and status
            started.set_attribute("error.type", type(error).__name__)
            raise


def _is_recorded() -> bool:
    """Tell whether somebody sees it. If not, it would cost as much as all else that the library does for a call."""
    if trace is None:
        return False
    configured = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return configured or trace.get_current_span() is not trace.INVALID_SPAN  # or a caller's, to be passed on
