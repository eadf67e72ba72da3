"""The client for asyncio; what is not said here is as in `client.py`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from clients import tasks, telemetry
from clients.attempts import Budget, Pause, Plan, plan
from clients.deadline import Deadline
from clients.errors import (
    AccessError,
    ClientError,
    DeadlineError,
    InvalidInputError,
    ModelNotFoundError,
    ServerUnavailableError,
)
from clients.failures import Failure, too_late
from clients.over_grpc import AsyncGrpc
from clients.over_http import AsyncHttp
from clients.process import FIRST_PROBE_PAUSE_S, LONGEST_PROBE_PAUSE_S, closed
from clients.request import Ids, Question, Request, checked_question, checked_version
from clients.servers import PROBE_S, Server, Servers
from clients.settings import DEFAULT_SERVER, Address, Retry, Transport, checked_concurrency, checked_headers
from clients.tasks import Prediction
from clients.tensors import Arrays, Known, Signature, joined

Ask = Callable[[AsyncGrpc | AsyncHttp, float], Awaitable[Any]]


class AsyncClient:
    """Inference, over gRPC or HTTP, in the event loop in which it is entered. An async context manager.

    async with AsyncClient("grpc://127.0.0.1:8001") as client:
        answer = await client.infer("fashion", {"image": [[png]]})

    A call that is cancelled is cancelled at the server, too, over gRPC: what waits in a queue is taken out. Over HTTP
    its connection is closed. There is no shared memory.

    Args:
        concurrency: Requests that are sent at once where a call needs several; of each such call.
        hedge_after_s: Send a request a second time if there is no answer by then, and take the first answer: for a long
            tail, at about the p95 of what is usual. Within the budget of retries.
    """

    def __init__(
        self,
        *servers: str,
        timeout_s: float = 10,
        retry: Retry | None = None,
        transport: Transport | None = None,
        concurrency: int = 8,
        hedge_after_s: float | None = None,
    ) -> None:
        self._addresses = [Address.of(url) for url in servers or (DEFAULT_SERVER,)]
        checked_concurrency(concurrency)
        self.timeout_s, self._retry, self._concurrency = timeout_s, retry or Retry(), concurrency
        self._transport, self._hedge_after_s = transport or Transport(), hedge_after_s
        self._servers = Servers(self._addresses, self._retry, self._start_probing, asyncio.Event)
        self._budget = Budget(self._retry)
        self._signatures, self._ids = Known(), Ids()
        self._transports: dict[Server, AsyncGrpc | AsyncHttp] = {}
        self._probing: dict[Server, asyncio.Task[None]] = {}
        self._closed = asyncio.Event()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] = (),
        version: str | int = "",
        priority: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> Arrays:
        """As Client.infer."""
        deadline, version = self._deadline(timeout_s), checked_version(version)
        signature = await self._signature(model, version, deadline)
        try:
            arrays = signature.checked(inputs)
        except InvalidInputError:
            if not self._signatures.doubt(model, version):
                raise
            signature = await self._signature(model, version, deadline)
            arrays = signature.checked(inputs)
        request = Request(
            model=model,
            inputs=arrays,
            version=version,
            outputs=tuple(outputs),
            priority=priority,
            id=request_id or self._ids.next(),
            headers=checked_headers(headers) if headers else {},
        )
        try:
            return await self._in_pieces(request, signature, deadline, repeatable)
        except InvalidInputError as error:
            if (learned := signature.learned(str(error))) is None:
                raise
            self._signatures.keep(model, version, learned)
            return await self._in_pieces(request, learned, deadline, repeatable)

    async def classify(self, image: bytes, *, model: str = "fashion", **options: Any) -> Prediction:
        """As Client.classify."""
        [prediction] = await self._classify([image], model, options)
        return prediction

    async def classify_many(
        self, images: Iterable[bytes], *, model: str = "fashion", batch: int = 16, **options: Any
    ) -> AsyncIterator[Prediction | ClientError]:
        """As Client.classify_many."""
        source = tasks.batches(images, batch)
        under_way: deque[asyncio.Future[list[Prediction | ClientError]]] = deque()

        def send_another() -> None:
            try:
                images = next(source, None)
            except Exception as error:  # told in its turn
                under_way.append(asyncio.get_running_loop().create_future())
                under_way[-1].set_exception(error)
                return
            if images is not None:
                under_way.append(asyncio.create_task(self._outcomes(images, model, options)))

        try:
            for _ in range(self._concurrency):
                send_another()
            while under_way:
                outcomes = await under_way[0]
                under_way.popleft()
                send_another()
                for outcome in outcomes:
                    yield outcome
        finally:
            await _cancelled(under_way)

    async def signature(self, model: str, version: str | int = "", *, timeout_s: float | None = None) -> Signature:
        """As Client.signature."""
        return await self._signature(model, checked_version(version), self._deadline(timeout_s))

    async def live(self) -> bool:
        """As Client.live."""
        return any([await transport.alive(PROBE_S) for transport in self._open().values()])

    async def ready(self, model: str = "", version: str | int = "") -> bool:
        """As Client.ready."""
        try:
            return bool(await self.ask("ready", model, version))
        except (DeadlineError, ServerUnavailableError):
            return False

    async def ask(
        self, question: Question, model: str = "", version: str | int = "", *, timeout_s: float | None = None
    ) -> Any:
        """As Client.ask."""
        checked_question(question, self._addresses)
        return await self._ask(question, model, checked_version(version), self._deadline(timeout_s))

    async def close(self) -> None:
        """As Client.close."""
        self._closed.set()
        self._servers.call_all()
        await _cancelled(self._probing.values())
        for transport in self._transports.values():
            await transport.close()

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> dict[Server, AsyncGrpc | AsyncHttp]:
        if self._closed.is_set():
            raise closed()
        if not self._transports:  # not earlier: both need a running loop
            self._transports = {
                server: (AsyncGrpc if server.address.protocol == "grpc" else AsyncHttp)(server.address, self._transport)
                for server in self._servers.all
            }
        return self._transports

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s)

    async def _signature(self, model: str, version: str, deadline: Deadline) -> Signature:
        if (known := self._signatures.get(model, version)) is not None:
            return known
        metadata = await self._ask("metadata", model, version, deadline)
        try:
            config = await self._ask("config", model, version, deadline)
        except (AccessError, InvalidInputError, ModelNotFoundError):
            config = {}
        return self._signatures.keep(model, version, Signature.of(metadata, config))

    async def _ask(self, question: Question, model: str, version: str, deadline: Deadline) -> Any:
        send: Ask = lambda transport, left_s: transport.ask(question, left_s, model, version)  # noqa: E731
        return await self._run(model or "the server", deadline, send)

    async def _in_pieces(self, request: Request, signature: Signature, deadline: Deadline, repeatable: bool) -> Arrays:
        pieces = list(signature.split(request.inputs))
        if len(pieces) == 1:
            return await self._infer(request, deadline, repeatable)
        turn = asyncio.Semaphore(self._concurrency)

        async def in_turn(piece: Request) -> Arrays:
            async with turn:
                return await self._infer(piece, deadline, repeatable)

        try:
            async with asyncio.timeout(deadline.remaining_s):
                return joined(await _all_or_none([in_turn(piece) for piece in request.in_pieces(pieces)]))
        except TimeoutError as error:
            raise too_late(request.model, len(pieces), deadline) from error

    async def _infer(self, request: Request, deadline: Deadline, repeatable: bool) -> Arrays:
        with telemetry.span(request.model) as headers:
            if headers:
                request = request.with_headers(headers)

            def call() -> Awaitable[Arrays]:
                return self._run(
                    request.model,
                    deadline,
                    lambda transport, left_s: transport.infer(request, left_s),
                    queue=request.model,
                    repeatable=repeatable,
                )

            try:
                return await (self._hedged(call, self._hedge_after_s) if self._hedge_after_s and repeatable else call())
            except (InvalidInputError, ModelNotFoundError):
                self._signatures.doubt(request.model, request.version)
                raise

    async def _hedged(self, call: Callable[[], Awaitable[Arrays]], after_s: float) -> Arrays:
        calls = [asyncio.ensure_future(call())]
        try:
            done, _ = await asyncio.wait(calls, timeout=after_s)
            if not done and self._budget.spend():
                calls.append(asyncio.ensure_future(call()))
                await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            ended = [call for call in calls if call.done()]
            good = next((call for call in ended if call.exception() is None), None)
            return await (good or next((call for call in calls if not call.done()), calls[0]))
        finally:
            await _cancelled(calls)

    async def _run(self, model: str, deadline: Deadline, send: Ask, *, queue: str = "", repeatable: bool = True) -> Any:
        steps = plan(model, self._servers, self._retry, self._budget, deadline, queue=queue, repeatable=repeatable)
        try:
            return await self._follow(steps, send)
        except ClientError:
            raise
        except Exception as error:
            if self._closed.is_set():
                raise closed() from error
            raise

    async def _follow(self, steps: Plan, send: Ask) -> Any:
        answer, transports = None, self._open()
        try:
            step = next(steps)
            while True:
                failure = None
                self._open()  # still
                if isinstance(step, Pause):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(step.seconds):
                            await (step.called or self._closed).wait()
                else:
                    try:
                        answer = await send(transports[step.server], step.timeout_s)
                    except Failure as error:
                        failure = error
                step = steps.send(failure)
        except StopIteration:
            return answer
        finally:
            steps.close()

    async def _classify(self, images: Sequence[bytes], model: str, options: Mapping[str, Any]) -> list[Prediction]:
        arrays = tasks.images_to_arrays(images)
        answer = await self.infer(model, arrays, outputs=tasks.CLASSIFY_OUTPUTS, **options)
        return tasks.predictions(answer, len(images))

    async def _outcomes(
        self, images: Sequence[bytes], model: str, options: Mapping[str, Any]
    ) -> list[Prediction | ClientError]:
        deadline = self._deadline(options.get("timeout_s"))
        try:
            return [*await self._classify(images, model, options)]
        except InvalidInputError as error:
            if len(images) == 1 or not options.get("repeatable", True):
                return [error] * len(images)
            found: list[Prediction | ClientError] = []
            for image in images:
                again = {**options, "timeout_s": deadline.remaining_s}
                found += await self._outcomes([image], model, again)
            return found
        except ClientError as error:
            return [error] * len(images)

    def _start_probing(self, server: Server) -> None:
        if not self._closed.is_set():
            self._probing[server] = asyncio.get_running_loop().create_task(self._probe(server))

    async def _probe(self, server: Server) -> None:
        pause_s = FIRST_PROBE_PAUSE_S
        while self._servers.to_be_probed(server):
            try:
                alive = await self._transports[server].alive(PROBE_S)
                if not alive:
                    await self._transports[server].reconnect()
            except Exception:
                alive = False
            (self._servers.recovered if alive else self._servers.failed)(server)
            await asyncio.sleep(FIRST_PROBE_PAUSE_S if alive else pause_s)
            pause_s = FIRST_PROBE_PAUSE_S if alive else min(2 * pause_s, LONGEST_PROBE_PAUSE_S)


async def _all_or_none(calls: Sequence[Awaitable[Arrays]]) -> list[Arrays]:
    """The answers to all; one that fails ends the others."""
    started = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*started)
    finally:
        await _cancelled(started)


async def _cancelled(calls: Iterable["asyncio.Future[Any]"]) -> None:
    """Wait until they have ended, one way or another."""
    calls = list(calls)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
