"""What an `AsyncClient` holds: as `connections.py`, for one event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any
from weakref import ref

from clients.attempts import Pause, Plan, RetryBudget, plan
from clients.connections import FIRST_PROBE_PAUSE_S, LONGEST_PROBE_PAUSE_S, closed, weakly
from clients.deadline import Deadline
from clients.errors import ClientError
from clients.failures import Failure, error_of
from clients.over_grpc import AsyncGrpc
from clients.over_http import AsyncHttp
from clients.request import Query, RequestIds
from clients.servers import PROBE_S, Server, Servers
from clients.settings import Address, Retry, Transport
from clients.tensors import SignatureCache

SendAttempt = Callable[[AsyncGrpc | AsyncHttp, float], Awaitable[Any]]


class AsyncConnections:
    """Transports, what is known of the servers, and their probers."""

    def __init__(self, addresses: Sequence[Address], transport: Transport, retry: Retry) -> None:
        self.signatures, self.ids = SignatureCache(), RequestIds()
        self.budget = RetryBudget(retry)
        self._retry, self._transport, self._closed = retry, transport, asyncio.Event()
        self._servers = Servers(addresses, retry, weakly(self._start_probing), asyncio.Event)
        self._transports: dict[Server, AsyncGrpc | AsyncHttp] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._probing: dict[Server, asyncio.Task[None]] = {}

    def opened(self) -> dict[Server, AsyncGrpc | AsyncHttp]:
        """The transports, which need a running loop.

        Raises:
            ClientError: they are closed, or another loop's.
        """
        if self._closed.is_set():
            raise closed()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            for server in self._servers.all:
                if server not in self._transports:  # after one that failed
                    kind = AsyncGrpc if server.address.protocol == "grpc" else AsyncHttp
                    self._transports[server] = kind(server.address, self._transport)
            self._loop = loop
        elif self._loop is not loop:
            raise ClientError("the client belongs to another event loop", hint="make one in each")
        return self._transports

    async def call(
        self,
        model: str,
        deadline: Deadline,
        send: SendAttempt,
        *,
        queue: str = "",
        idempotent: bool = True,
        tried: set[Server] | None = None,
    ) -> Any:
        """Send until there is a response: see `attempts.plan`."""
        steps = plan(
            model, self._servers, self._retry, self.budget, deadline, queue=queue, idempotent=idempotent, tried=tried
        )
        try:
            return await self._execute(steps, send)
        except ClientError:
            raise
        except Exception as error:  # of a library whose connection was closed under it
            if self._closed.is_set():
                raise closed() from error
            raise

    async def any_is_ready(self, query: Query, deadline: Deadline) -> bool:
        """As Connections.any_is_ready, of all servers at once."""
        transports = self.opened()

        async def answer_of(transport: AsyncGrpc | AsyncHttp) -> bool | Failure:
            try:
                return bool(await transport.query(query, min(PROBE_S, deadline.remaining_s)))
            except Failure as failure:
                return failure

        found = dict(zip(transports, await asyncio.gather(*map(answer_of, transports.values())), strict=True))
        for server, answer in found.items():
            server.responded |= not isinstance(answer, Failure)
        if any(answer is True for answer in found.values()):
            return True
        for server, answer in found.items():
            if isinstance(answer, Failure) and answer.denies_readiness:
                raise error_of(answer, query.model or "the server", str(server.address), 1, deadline)
        return False

    async def any_is_alive(self) -> bool:
        """Whether one of the servers responds."""
        transports = self.opened()
        found = await asyncio.gather(*map(_is_alive, transports.values()))
        for server, alive in zip(transports, found, strict=True):
            server.responded |= alive
        return any(found)

    def __str__(self) -> str:
        return str(self._servers)

    async def close(self) -> None:
        """Calls in flight end with an error."""
        self._closed.set()
        self._servers.notify_all()
        await cancelled(self._probing.values())
        for transport in self._transports.values():
            await transport.close()

    async def _execute(self, steps: Plan, send: SendAttempt) -> Any:
        """Do what the plan says; the response."""
        response, transports = None, self.opened()
        try:
            step = next(steps)
            while True:
                failure = None
                if self._closed.is_set():
                    raise closed()
                if isinstance(step, Pause):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(step.seconds):
                            await (step.until or self._closed).wait()
                else:
                    try:
                        response = await send(transports[step.server], step.timeout_s)
                    except Failure as error:
                        failure = error
                        if self._closed.is_set():  # it may have failed of that
                            raise closed() from error
                step = steps.send(failure)
        except StopIteration:
            return response
        finally:
            steps.close()  # if it was cancelled, too: the slot is released

    def _start_probing(self, server: Server) -> None:
        if not self._closed.is_set():
            probing = _probe(ref(self), self._servers, server, self._transports[server])
            self._probing[server] = asyncio.get_running_loop().create_task(probing)


async def cancelled(calls: Iterable["asyncio.Future[Any]"]) -> None:
    """Cancel them, and wait until they have ended, one way or another."""
    calls = list(calls)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def _is_alive(transport: AsyncGrpc | AsyncHttp) -> bool:
    """As connections.py's."""
    try:
        return bool(await transport.query(Query("live"), PROBE_S))
    except Failure as failure:
        return failure.server_responded


async def _probe(
    owner: Callable[[], AsyncConnections | None], servers: Servers, server: Server, transport: AsyncGrpc | AsyncHttp
) -> None:
    """Until the server responds, or its client is gone."""
    pause_s = FIRST_PROBE_PAUSE_S
    while servers.needs_probe(server) and owner():
        try:
            alive = await _is_alive(transport)
            if not alive:
                await transport.reconnect()
        except Exception:  # whatever it is, somebody has to go on probing
            alive = False
        (servers.mark_up if alive else servers.mark_down)(server)
        await asyncio.sleep(FIRST_PROBE_PAUSE_S if alive else pause_s)
        pause_s = FIRST_PROBE_PAUSE_S if alive else min(2 * pause_s, LONGEST_PROBE_PAUSE_S)
