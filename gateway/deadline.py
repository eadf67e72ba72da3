"""How long a request may take: one deadline, from the header that says so to Triton's queue."""

import time
from dataclasses import dataclass
from typing import Self

from gateway.errors import Refusal

HEADER = "request-timeout-ms"  # of a request: what its caller waits at most, in ms


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock, which is asyncio's, too."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Set one so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def of(cls, header: str | None, default_s: float, most_s: float) -> Self:
        """Read what a caller asks for, in ms.

        Args:
            default_s: Where it does not say.
            most_s: A caller that would wait longer is not made to.

        Raises:
            Refusal: it is no number of milliseconds above 0.
        """
        if header is None:
            return cls.after(default_s)
        if not (header.isascii() and header.isdecimal() and len(header) <= 9 and int(header) > 0):
            detail = f"{HEADER} is {header[:40]!r}, expected a whole number of milliseconds above 0"
            raise Refusal(400, "bad-timeout", "The timeout cannot be read", detail)
        return cls.after(min(int(header) / 1000, most_s))

    @property
    def remaining_s(self) -> float:
        """What is left; below 0 once it has passed."""
        return self.at - time.monotonic()

    @property
    def queue_us(self) -> int:
        """What Triton's queue is told: a request that waited longer is answered by nobody, at least 1 µs."""
        return max(1, int(self.remaining_s * 1e6))


def passed() -> Refusal:
    """Return what a caller gets whose deadline has passed."""
    return Refusal(504, "deadline-exceeded", "The deadline passed", "no answer in the time that the request allows")
