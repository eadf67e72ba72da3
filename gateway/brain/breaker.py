"""A circuit breaker: a model that fails again and again is left alone for a while, and then tried by one request."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import Refusal


@dataclass(frozen=True)
class Rule:
    """When it opens.

    Attributes:
        share: Of the last `of` requests that failed, from which on it opens.
        of: Requests that are looked at.
        least: Requests that there must be to judge.
        within_s: Older ones do not count.
        pause_s: How long it stays open.
    """

    share: float = 0.5
    of: int = 50
    least: int = 10
    within_s: float = 30.0
    pause_s: float = 5.0


class Breaker:
    """Of a model's arm. What counts as a failure is for the caller to say: not a request that was wrong itself."""

    def __init__(self, rule: Rule, clock: Callable[[], float] = time.monotonic) -> None:
        self._rule, self._clock = rule, clock
        self._last: deque[tuple[float, bool]] = deque(maxlen=rule.of)
        self._open_until: float | None = None
        self._trying_since: float | None = None

    @property
    def state(self) -> str:
        """Closed, open or half-open."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half-open"

    def let_through(self) -> None:
        """Let a request through, or not.

        Raises:
            Refusal: 503: it is open, or half-open and another request is trying.
        """
        if self._open_until is None:
            return
        now = self._clock()
        if now < self._open_until:
            raise _refusal(self._open_until - now)
        if self._trying_since is not None and now - self._trying_since < self._rule.pause_s:
            raise _refusal(1.0)
        self._trying_since = now

    def count(self, failed: bool | None) -> None:
        """Count the outcome of a request that was let through; None if it says nothing: its caller went away."""
        now = self._clock()
        if self._open_until is not None:
            self._trying_since = None
            if failed is False and now >= self._open_until:
                self._open_until = None
                self._last.clear()
            elif failed:
                self._open_until = now + self._rule.pause_s
            return
        if failed is None:
            return
        self._last.append((now, failed))
        if failed and self._fails(now):
            self._open_until = now + self._rule.pause_s

    def _fails(self, now: float) -> bool:
        recent = [failed for at, failed in self._last if now - at <= self._rule.within_s]
        return len(recent) >= self._rule.least and sum(recent) >= self._rule.share * len(recent)


def _refusal(wait_s: float) -> Refusal:
    detail = "its last requests failed; it is tried again after a pause"
    return Refusal(503, "circuit-open", "The model fails at present", detail, retry_after_s=wait_s)
