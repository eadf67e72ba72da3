"""Which of the Tritons are there: who is left out, and who is asked again.

One that cannot be reached is known by the request that met it. One that is there and says nothing (a frozen process, an
endpoint that a firewall has cut off) is known by its silence: whoever has not answered anything for half a second is
asked whether it is live, and left out if it does not say so. Looks go over connections of their own, so that a Triton
which computes, however long, is no silent one.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.triton.upstream import Look, Upstream

PROBE_S = 0.5  # between two looks at one that is down
RESTART_S = 60.0  # that a server takes to start again, its models included
SILENT_S = 0.5  # without an answer to whatever it was asked; then it is looked at
LOOK_S = 2.0  # for it to say that it is live
_TOLD_S = 0.1  # before its deadline a caller is told that no server came back: later it would not hear it
_WHY = {Look.SILENT: "it is silent: nothing came in {:g} s", Look.GONE: "it does not say that it is live"}
log = logging.getLogger("gateway.brain")


@dataclass
class Endpoint:
    """A Triton, and whether it is there.

    Attributes:
        turn: When it was asked last: of two as busy, the other one.
        ever_up: It has answered: an address where nobody ever was is not waited for.
        is_silent: It is down, and whoever asks it hears nothing, not even that nobody is there.
        looking: A look at it that is under way: until it says something, others are asked.
    """

    upstream: Upstream
    down_since: float | None = None
    turn: int = 0
    ever_up: bool = False
    is_silent: bool = False
    looking: "asyncio.Task[None] | None" = None
    probing: "asyncio.Task[None] | None" = field(default=None, repr=False)

    @property
    def is_up(self) -> bool:
        """Whether it is asked."""
        return self.down_since is None


class Presence:
    """Of the Tritons behind the gateway.

    Args:
        restart_s: How long all of them may be gone so that requests wait; later they are told at once.
    """

    def __init__(self, upstreams: Sequence[Upstream], restart_s: float = RESTART_S) -> None:
        self.all = [Endpoint(upstream) for upstream in upstreams]
        self._restart_s = restart_s
        self._one_is_up = asyncio.Event()
        self._one_is_up.set()
        self._watching: asyncio.TimerHandle | None = None
        self._looks: set[asyncio.Task[None]] = set()

    def up(self) -> list[Endpoint]:
        """Those that are there."""
        return [endpoint for endpoint in self.all if endpoint.is_up]

    async def back(self, deadline: float) -> bool:
        """Wait for one to be there; whether it is, in time for whoever asks to be told before its deadline.

        None is waited for that was never there, or that is gone for longer than a restart takes.
        """
        if not any(endpoint.ever_up for endpoint in self.all):
            return False
        now = time.monotonic()
        gone_since = max(endpoint.down_since or now for endpoint in self.all)
        until = min(deadline - min(_TOLD_S, (deadline - now) / 10), gone_since + self._restart_s)
        try:
            async with asyncio.timeout_at(until):
                await self._one_is_up.wait()
        except TimeoutError:
            return False
        return True

    async def look(self, within_s: float) -> None:
        """See of each whether it is there, for so long at most; longer where of one nothing is known at all."""
        known = all(endpoint.ever_up or not endpoint.is_up for endpoint in self.all)
        await asyncio.wait([self._look_at(endpoint) for endpoint in self.all], timeout=within_s if known else None)

    def mark_down(self, endpoint: Endpoint, why: str, *, silent: bool = False) -> None:
        """Leave it out until it is live.

        Args:
            silent: Nobody said so: what it was asked is asked elsewhere.
        """
        endpoint.is_silent = silent
        if endpoint.is_up:
            log.warning("%s is left out: %s", endpoint.upstream, why)
            endpoint.down_since = time.monotonic()
            endpoint.upstream.close()
            if not self.up():
                self._one_is_up.clear()
        if endpoint.probing is None:
            endpoint.probing = asyncio.create_task(self._probe(endpoint))
        self._move()

    def mark_up(self, endpoint: Endpoint, asked_at: float) -> None:
        """Ask it again; who waits for one goes on.

        Args:
            asked_at: When it was asked what it has answered, on the monotonic clock: before it went that says nothing.
        """
        endpoint.ever_up = True
        if endpoint.down_since is not None:
            if asked_at <= endpoint.down_since:
                return
            log.warning("%s is asked again", endpoint.upstream)
            endpoint.down_since = None
        endpoint.is_silent = False
        if not self._one_is_up.is_set():
            self._one_is_up.set()
            self._move()

    def watch(self) -> None:
        """See from time to time, as long as there are requests under way, whether those that have them say anything."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().call_later(SILENT_S / 2, self._watch)

    async def close(self) -> None:
        """Close what is held open."""
        if self._watching is not None:
            self._watching.cancel()
        tasks = [each.probing for each in self.all if each.probing is not None] + [*self._looks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for endpoint in self.all:
            endpoint.upstream.close()

    def _watch(self) -> None:
        self._watching = None
        now, goes_on = time.monotonic(), False
        for endpoint in self.all:
            upstream = endpoint.upstream
            if upstream.in_flight and upstream.silent_since is None:
                upstream.silent_since = now
            if upstream.silent_since is None:
                continue
            goes_on = goes_on or bool(upstream.in_flight) or endpoint.is_up
            if endpoint.is_up and now - upstream.silent_since >= SILENT_S:
                self._look_at(endpoint)
        self._move()
        if goes_on:
            self.watch()

    def _move(self) -> None:
        """Have those who wait for a silent one ask another, where there is one."""
        if any(endpoint.is_silent for endpoint in self.all) and self.up():
            for endpoint in self.all:
                if endpoint.is_silent:
                    endpoint.upstream.leave("it is silent")

    def _look_at(self, endpoint: Endpoint) -> "asyncio.Task[None]":
        if endpoint.looking is None:
            endpoint.looking = asyncio.create_task(self._see(endpoint))
            self._looks.add(endpoint.looking)
            endpoint.looking.add_done_callback(self._looks.discard)
        return endpoint.looking

    async def _see(self, endpoint: Endpoint) -> None:
        upstream, asked_at = endpoint.upstream, time.monotonic()
        try:
            seen = await upstream.look(LOOK_S)
        finally:
            endpoint.looking = None
        if seen is Look.LIVE:
            upstream.silent_since = None
            self.mark_up(endpoint, asked_at)
        elif seen is not Look.UNSEEN:
            self.mark_down(endpoint, _WHY[seen].format(LOOK_S), silent=seen is Look.SILENT)

    async def _probe(self, endpoint: Endpoint) -> None:
        try:
            while not endpoint.is_up:
                await asyncio.sleep(PROBE_S)
                await self._look_at(endpoint)
        finally:
            endpoint.probing = None
