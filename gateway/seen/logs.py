"""What the gateway writes to its log: a line of JSON for each thing that happens, the id of its request in it.

No line holds a secret or a payload: keys are named by their public id, requests by their id, inputs by nothing.
"""

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

# Without the values of local variables: among them are keys and payloads.
_TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
_renderer: Processor | None = None  # these three: as `configure` was told
_level = logging.INFO
_stream: TextIO = sys.stderr
_encode = json.JSONEncoder(default=repr).encode
# Set where a request arrives; in every line from there on.
request_id: ContextVar[str] = ContextVar("request_id", default="")


def configure(
    level: str = "INFO", stream: TextIO | None = None, *, levels: Mapping[str, int] | None = None, style: str = "json"
) -> None:
    """Write lines to `stream` (standard error), those of other libraries, too.

    Args:
        levels: {logger: level}, over `level`, which is everybody's.
        style: "json", or "text" for a person's eyes.
    """
    own = (levels or {}).get("gateway", logging.getLevelNamesMapping()[level.upper()])
    shared: list[Processor] = [structlog.stdlib.add_log_level, _add_request_id, structlog.processors.TimeStamper("iso")]
    renderer: Processor = structlog.processors.JSONRenderer(sort_keys=False)
    if style == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=False)
    global _renderer, _level, _stream
    _renderer, _level, _stream = renderer, own, stream or sys.stderr
    structlog.configure(
        processors=[*shared, _TRACEBACKS, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(own),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _TRACEBACKS,
                renderer,
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, wanted in (levels or {}).items():
        logging.getLogger(name).setLevel(wanted)
    logging.getLogger("uvicorn.access").disabled = True  # ours says more


def logger() -> Any:
    """Return what writes lines."""
    return structlog.get_logger()


def tell(event: str, request_id: str, **more: Any) -> None:
    """Write the line of a request, of which there is one each: as `logger().info` does, at a fourth of its cost."""
    if not isinstance(_renderer, structlog.processors.JSONRenderer) or _level > logging.INFO:
        logger().info(event, request_id=request_id, **more)
        return
    line = {"request_id": request_id, **more, "event": event, "level": "info", "timestamp": _now()}
    _stream.write(f"{_encode(line)}\n")
    _stream.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _add_request_id(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    found = request_id.get()
    if found:
        event.setdefault("request_id", found)
    return event
