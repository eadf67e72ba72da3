"""One deadline for a call: connecting, all attempts, and the pauses between them."""

import time
from dataclasses import dataclass
from typing import Self

from clients.errors import InvalidInputError

_LONGEST_S = 86_400.0


@dataclass(frozen=True)
class Deadline:
    """When a call began, and when it has to end, on the monotonic clock in seconds."""

    began: float
    at: float

    @classmethod
    def after(cls, timeout_s: float) -> Self:
        """Set the deadline so many seconds from now.

        Raises:
            InvalidInputError: it is not a number of seconds up to a day.
        """
        try:
            seconds = float(timeout_s)  # numpy's small floats would make all arithmetic small
        except (TypeError, ValueError, OverflowError):
            seconds = -1.0
        if not 0 <= seconds <= _LONGEST_S:  # nor is nan
            raise InvalidInputError(f"timeout_s must be 0 to {_LONGEST_S:,.0f} seconds, and is {timeout_s!r}")
        now = time.monotonic()
        return cls(now, now + seconds)

    @property
    def remaining_s(self) -> float:
        """How long there still is; not below 0."""
        return max(0.0, self.at - time.monotonic())

    @property
    def elapsed_s(self) -> float:
        """How long ago the call began."""
        return time.monotonic() - self.began
