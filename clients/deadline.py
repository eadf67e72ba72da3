"""One deadline for a call, with everything that it takes."""

import time
from dataclasses import dataclass
from typing import Self

from clients.errors import InvalidInputError

_LONGEST_S = 86_400.0


@dataclass(frozen=True)
class Deadline:
    """Both on the monotonic clock."""

    began: float
    at: float

    @classmethod
    def after(cls, timeout_s: float) -> Self:
        """From now on.

        Raises:
            InvalidInputError: it is no number of seconds up to a day.
        """
        try:
            timeout_s = float(timeout_s)  # numpy's small floats would make all of it small
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"a timeout of {timeout_s!r}", hint="a number of seconds") from error
        if not 0 <= timeout_s <= _LONGEST_S:  # nor is nan
            raise InvalidInputError(f"a timeout of {timeout_s} s", hint=f"0 to {_LONGEST_S:,.0f} s")
        now = time.monotonic()
        return cls(now, now + timeout_s)

    @property
    def remaining_s(self) -> float:
        """Not below 0."""
        return max(0.0, self.at - time.monotonic())

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began
