"""A request while it is asked of one Triton after another: what can be sent again, and what came of it so far."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from gateway.triton.connection import Body

_MOST_DEATHS = 2  # of servers and workers that had a request: it may be what they died of


class Replay:
    """A body that can be sent again, as far as it is kept: up to `most` bytes of one that is streamed.

    Args:
        once: It belongs to a sequence: a second time is not the same.
    """

    def __init__(self, body: Body, most: int, *, once: bool) -> None:
        self._body, self._most, self._once = body, most, once
        self._kept: list[bytes] | None = []
        self._size = 0

    @property
    def is_possible(self) -> bool:
        """Whether all that was sent of it can be sent again."""
        return self._kept is not None and not self._once

    def again(self) -> Body:
        """Return the body from its start."""
        return self._body if isinstance(self._body, bytes) else self._pieces(self._body)

    async def _pieces(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        for piece in list(self._kept or ()):
            yield piece
        async for piece in body:
            self._size += len(piece)
            if self._kept is not None and self._size <= self._most:
                self._kept.append(piece)
            else:
                self._kept = None
            yield piece


@dataclass
class Asking:
    """A request, and whom it was sent to.

    Attributes:
        deadline: On the loop's clock.
        sequence: That it belongs to.
        tried: Ids of the endpoints that were asked since one was waited for.
        deaths: Of servers and workers that had it.
        waited: There was none to ask for a while.
    """

    path: str
    headers: Mapping[str, str]
    replay: Replay
    deadline: float
    sequence: str | None = None
    tried: set[int] = field(default_factory=set)
    deaths: int = 0
    waited: bool = False

    @property
    def may_be_sent_again(self) -> bool:
        """Whether all of it is there, and it is not known for what it does to servers."""
        return self.replay.is_possible and self.deaths <= _MOST_DEATHS

    def may_leave(self) -> bool:
        """Whether it may be taken from a server that has it and is silent: one more that it does harm to."""
        return self.replay.is_possible and self.deaths < _MOST_DEATHS
