"""The gateway's end: on SIGTERM it is not ready any more, then takes no more connections, then ends what it began."""

import asyncio
import gc
from collections.abc import Callable
from types import FrameType

import uvicorn

from gateway.running.connections import Guard


class Server(uvicorn.Server):
    """uvicorn, whose first SIGTERM begins a drain.

    For `notice_s` it goes on to answer, while whoever balances sees that it is not ready and every answer says that
    its connection ends; then uvicorn's own end: no more connections, those that are idle are closed, and what is under
    way has `timeout_graceful_shutdown` seconds. A second signal skips the notice.

    Args:
        drain: Told when the drain begins: readiness says so from then on.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard, drain: Callable[[], None], notice_s: float = 2.0) -> None:
        super().__init__(config)
        self._guard, self._drain, self._notice_s = guard, drain, notice_s
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
        if self._guard.draining or self._loop is None or not self._notice_s:
            super().handle_exit(sig, frame)
            return
        self._guard.draining = True
        self._drain()
        self._loop.call_soon_threadsafe(self._loop.call_later, self._notice_s, super().handle_exit, sig, frame)
