"""How long to wait before what has failed is tried again: longer each time, up to a limit, and never for good."""

import math
import time
from dataclasses import dataclass, field

FIRST_PAUSE_S = 0.5
_QUIET_S = 300.0  # without a failure, and the next one is the first again
_A_LOOP = 4  # failures in a row


@dataclass
class Backoff:
    """The failures in a row of one thing, and the pauses between them."""

    longest_pause_s: float
    failures: int = 0  # in a row
    _until: float = field(default=0.0, repr=False)  # the end of the last pause, on the monotonic clock

    def pause_s(self) -> float:
        """Count a failure; return how long to wait."""
        if time.monotonic() - self._until > _QUIET_S:
            self.failures = 0
        pause_s = min(self.longest_pause_s, math.ldexp(FIRST_PAUSE_S, min(self.failures, 30)))
        self.failures += 1
        self._until = time.monotonic() + pause_s
        return pause_s

    @property
    def due(self) -> bool:
        """Whether the last pause is over."""
        return time.monotonic() >= self._until

    @property
    def is_loop(self) -> bool:
        """Whether it fails again and again."""
        return self.failures >= _A_LOOP
