"""The gateway's end: on SIGTERM it is not ready any more, then takes no more connections, then ends what it began.

It has a bound: notice, `drain_s`, and CLOSE_S for what is held open. Then the process ends, whatever still hangs.
"""

import asyncio
import gc
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from socket import socket
from types import FrameType
from typing import Self

import uvicorn

from gateway.running.connections import Guard

CLOSE_S = 5.0  # once the last answer has left, or was given up
_LAST_WORDS_S = 1.0  # for those who were told that there is no time left to read it
log = logging.getLogger("gateway.running")


class Server(uvicorn.Server):
    """uvicorn, whose first SIGTERM begins a drain.

    For `notice_s` it goes on to answer, while whoever balances sees that it is not ready and every answer says that
    its connection ends; then no more connections are taken, those that are idle are closed, and what is under way has
    `drain_s`. What is not done by then is told so: 503. A second signal ends it at once.

    Args:
        drain: Told when the drain begins: readiness says so from then on.
        end: Told when its time is over: what is cancelled from then on is not because its caller went.
        overdue: Ends the process where all of that takes longer.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        guard: Guard,
        drain: Callable[[], None],
        end: Callable[[], None] = lambda: None,
        overdue: "Overdue | None" = None,
        *,
        notice_s: float = 2.0,
        drain_s: float = 30.0,
    ) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = int(drain_s + _LAST_WORDS_S + 1)  # uvicorn's own end, which tells nobody
        self._guard, self._drain, self._end, self._overdue = guard, drain, end, overdue or Overdue()
        self._notice_s, self._drain_s = notice_s, drain_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: "list[object] | None" = None) -> None:  # type: ignore[override]
        """Remember the loop that signals are told to; leave what there is by now out of garbage collection."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        # Half a million objects of what was imported stay for ever: they need not be looked through again and again.
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; the second time, end."""
        if self._loop is None:
            super().handle_exit(sig, frame)
        elif self._guard.draining:
            self._exit(sig, frame)
            self._loop.call_soon_threadsafe(self._give_up)
        else:
            self._guard.draining = True
            self._drain()
            self._loop.call_soon_threadsafe(self._loop.call_later, self._notice_s, self._exit, sig, frame)

    async def shutdown(self, sockets: "list[socket] | None" = None) -> None:
        """End what was begun, within its time."""
        self._overdue.begin(self._drain_s + _LAST_WORDS_S + CLOSE_S)
        over = asyncio.get_running_loop().call_later(self._drain_s, self._give_up)
        try:
            await super().shutdown(sockets)
        finally:
            over.cancel()

    def _exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)

    def _give_up(self) -> None:
        """Tell those who still wait that they are not answered here, and leave those who do not listen."""
        if not self._guard.over:
            self._guard.over = True
            self._end()
            for task in self.server_state.tasks:
                task.cancel()
            assert self._loop is not None
            self._loop.call_later(_LAST_WORDS_S, self._leave)

    def _leave(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class Overdue:
    """Ends this process, with where it hangs in the log, should its end take longer than it may.

    What hangs then is a thread of a library: whatever is in the loop was cancelled before.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def begin(self, seconds: float) -> None:
        """Allow it so long from now."""
        self._timer = threading.Timer(seconds, _end, [seconds])
        self._timer.daemon = True
        self._timer.start()


def _end(seconds: float) -> None:
    hangs = [frame for number, frame in sys._current_frames().items() if number != threading.get_ident()]
    where = " | ".join("; ".join(traceback.format_stack(frame)[-3:]) for frame in hangs)
    log.error("the end takes longer than %g s and is cut short; it hangs in %s", seconds, where)
    os._exit(1)
