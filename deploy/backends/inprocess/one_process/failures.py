"""Why a request gets no answer, and what its client and the server's log are told of it."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import triton_python_backend_utils as pb_utils

LOG_LINES_PER_S = 10
# Triton counts a response with an error as a success of the model, unless it is an ensemble: deploy/running/status.py
# reads this one.
METRIC = "one_process_request_failures"


class Failure(Exception):  # noqa: N818  # what becomes of a request; nobody raises it
    """Why a request gets no answer, in words for its client.

    Attributes:
        its_fault: Whether the request is to blame.
        log: What the server's log has of it.
    """

    def __init__(self, message: str, log: str = "", *, its_fault: bool = False) -> None:
        super().__init__(message)
        self.its_fault, self.log = its_fault, log


def unexpected(error: Exception) -> Failure:
    """Tell of what nobody has foreseen: its client that it happened, the log where."""
    log = "".join(traceback.format_exception(error))
    return Failure(f"the backend failed: {type(error).__name__}; the server's log says where", log)


class Failures:
    """Tells clients what Triton's ensemble would, and the log of so many a second: no client fills the disk.

    Args:
        ensemble: What it is called on the server.
    """

    def __init__(self, ensemble: str, version: str) -> None:
        self._ensemble = ensemble
        self._family, self._counter = _counter({"model": ensemble, "version": version})
        self._second, self._lines, self._left_out = 0, 0, 0

    def count(self, failed: int) -> None:
        """Count requests of a batch that get no answer: a call to the server, so once a batch."""
        if failed and self._counter is not None:
            self._counter.increment(failed)

    def response(self, request: Any, failure: Exception) -> Any:
        """Make the response to a request, and write a line about it."""
        its_fault, log = getattr(failure, "its_fault", False), getattr(failure, "log", "")
        if log:
            self._write(pb_utils.Logger.log_info if its_fault else pb_utils.Logger.log_error, request, log)
        code = pb_utils.TritonError.INVALID_ARG if its_fault else pb_utils.TritonError.INTERNAL
        message = f"in ensemble '{self._ensemble}', {failure}"
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

    def _write(self, log: Callable[[str], None], request: Any, line: str) -> None:
        if (second := int(time.monotonic())) != self._second:
            self._second, self._lines = second, 0
        if self._lines == LOG_LINES_PER_S:
            self._left_out += 1
            return
        self._lines += 1
        before = f" (after {self._left_out:,} failures that are not logged)" if self._left_out else ""
        self._left_out = 0
        log(f"[request id: {printable(request.request_id()) or '<id_unknown>'}]{before} {line}")


def _counter(labels: dict[str, str]) -> tuple[Any, Any]:
    """Return a family of the server's metrics, which has to live as long, and its counter; None where it has none."""
    try:
        family = pb_utils.MetricFamily(
            name=METRIC,
            description="Number of requests that steps in one process refused or failed",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        return family, family.Metric(labels=labels)
    except Exception as error:  # Triton's exceptions share no base class; its metrics may be off, as in the serve gate
        pb_utils.Logger.log_warn(f"{METRIC} is not counted: {error}")
        return None, None


def printable(text: object, longest: int = 64) -> str:
    """Return the start of a client's text in ASCII and on one line: clients do not write log lines of their own."""
    return str(text)[:longest].encode("unicode_escape").decode()
