"""What an `AsyncClient` holds: as `connections.py`, for one event loop."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import ref

from clients.core.attempts import Pause, Send
from clients.core.calls import Calls, Hedge, Step, Steps, Together
from clients.core.deadline import Deadline
from clients.core.failures import Failure, client_closed
from clients.core.probing import LIVE, Probing, probing, weakly
from clients.core.request import Query
from clients.core.servers import PROBE_S, Server
from clients.errors import ClientError
from clients.settings import ClientSettings
from clients.transports import async_transport_of
from clients.transports.base import Transport

T = TypeVar("T")


class AsyncConnections:
    """Transports, calls, which are driven in one event loop, and probers."""

    def __init__(self, settings: ClientSettings) -> None:
        self.calls = Calls(settings, weakly(self._start_probing), asyncio.Event)
        self._settings, self._closed = settings, asyncio.Event()
        self._transports: dict[Server, Transport] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._probing: dict[Server, asyncio.Task[None]] = {}

    def opened(self) -> Mapping[Server, Transport]:
        """Return the transports, which need a running loop.

        Raises:
            ClientError: they are closed, or another loop's.
        """
        if self._closed.is_set():
            raise client_closed()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            for server in self.calls.servers.all:
                if server not in self._transports:  # after one that failed
                    self._transports[server] = async_transport_of(server.address, self._settings.transport)
            self._loop = loop
        elif self._loop is not loop:
            raise ClientError("the client belongs to another event loop", hint="make one in each")
        return self._transports

    async def run(self, steps: Steps[T]) -> T:
        """Drive a call to its end, in this task."""
        self.opened()
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await (self._send(step) if isinstance(step, Send) else self._do(step))
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as ended:
            result: T = ended.value
            return result
        finally:
            steps.close()  # if it was cancelled, too: its slot is released

    async def any_ready(self, query: Query, deadline: Deadline) -> bool:
        """As Connections.any_ready, of all servers at once."""
        transports = self.opened()

        async def answer_of(transport: Transport) -> bool | Failure:
            try:
                return bool(await transport.query(query, min(PROBE_S, deadline.remaining_s)))
            except Failure as failure:
                return failure

        answers = await asyncio.gather(*map(answer_of, transports.values()))
        return self.calls.any_ready(query, zip(transports, answers, strict=True), deadline)

    async def any_alive(self) -> bool:
        """As Connections.any_alive, of all servers at once."""
        transports = self.opened()
        found = await asyncio.gather(*map(_is_alive, transports.values()))
        for server, alive in zip(transports, found, strict=True):
            server.responded |= alive
        return any(found)

    async def close(self) -> None:
        """Close the connections. Calls in flight end with an error."""
        self._closed.set()
        self.calls.servers.notify_all()
        await cancelled(self._probing.values())
        for transport in self._transports.values():
            await transport.close()

    async def _send(self, step: Send) -> Any:
        if self._closed.is_set():
            raise client_closed()
        try:
            return await self._transports[step.server].send(step.message, step.timeout_s)
        except Exception as error:  # a Failure, or of a library whose connection was closed under it
            if self._closed.is_set():
                raise client_closed() from error
            if isinstance(error, Failure):
                return error
            raise

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Together):
            return await self._run_together(step.calls)
        if isinstance(step, Hedge):
            return await self._run_hedged(step)
        assert isinstance(step, Pause)
        if self._closed.is_set():
            raise client_closed()
        with suppress(TimeoutError):
            async with asyncio.timeout(step.seconds):
                await (step.until or self._closed).wait()
        return None

    async def _run_together(self, calls: Sequence[Steps[Any]]) -> list[Any]:
        places = asyncio.Semaphore(self._settings.concurrency)

        async def in_turn(call: Steps[Any]) -> Any:
            async with places:
                return await self.run(call)

        started = [asyncio.ensure_future(in_turn(call)) for call in calls]
        try:
            return await asyncio.gather(*started)
        finally:
            await cancelled(started)  # one that fails ends the others

    async def _run_hedged(self, hedge: Hedge) -> Any:
        """Return the first response of two, of which the second is asked for if the first is late."""
        calls = [asyncio.ensure_future(self.run(hedge.attempt()))]
        try:
            done, _ = await asyncio.wait(calls, timeout=hedge.after_s)
            if not done and hedge.may_hedge():
                calls.append(asyncio.ensure_future(self.run(hedge.attempt())))
                done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            if any(one.exception() is None for one in done):
                return next(one.result() for one in done if one.exception() is None)
            others = [one for one in calls if one not in done]
            return await (others or calls)[0]
        finally:
            await cancelled(calls)

    def _start_probing(self, server: Server) -> None:
        if not self._closed.is_set():
            steps = probing(self.calls.servers, server)
            task = asyncio.get_running_loop().create_task(_probe(ref(self), steps, self._transports[server]))
            self._probing[server] = task


async def cancelled(calls: Iterable["asyncio.Future[Any]"]) -> None:
    """Cancel them, and wait until they have ended, one way or another."""
    calls = list(calls)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def _is_alive(transport: Transport) -> bool:
    """As that of `connections.py`."""
    try:
        return bool(await transport.query(LIVE, PROBE_S))
    except Failure as failure:
        return failure.server_responded


async def _probe(owner: Callable[[], AsyncConnections | None], steps: Probing, transport: Transport) -> None:
    """Probe until the server responds, or its client is gone; one that is closed cancels it."""
    with suppress(StopIteration):
        step = next(steps)
        while owner():
            alive = None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                try:
                    if not (alive := await _is_alive(transport)):
                        await transport.reconnect()
                except Exception:  # whatever it is, somebody has to go on probing
                    alive = False
            step = steps.send(alive)
