"""The client for asyncio. What is not explained here is as in `client.py`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from numpy.typing import ArrayLike

from clients import tasks, telemetry
from clients.aio_connections import AsyncConnections, cancelled
from clients.connections import READY_PAUSE_S
from clients.deadline import Deadline
from clients.errors import AccessDeniedError, ClientError, InvalidInputError, ModelNotFoundError
from clients.failures import not_ready
from clients.over_grpc import AsyncGrpc
from clients.over_http import AsyncHttp
from clients.request import Query, Request, SharedTensor, checked_query, checked_version
from clients.server_api import AsyncServerApi, Version
from clients.servers import PROBE_S, Server
from clients.settings import InferOptions, Parameters, Retry, Transport, addresses_of, checked_concurrency
from clients.tasks import Image, Prediction
from clients.tensors import Arrays, Signature, concatenated, rows_of


class AsyncClient(AsyncServerApi):
    """A Triton client over gRPC or HTTP, for one event loop. An async context manager.

    async with AsyncClient("grpc://127.0.0.1:8001") as client:
        outputs = await client.infer("fashion", {"image": [[png]]})

    Over gRPC a call that is cancelled is cancelled at the server, too: what waits in a queue is taken out of it.

    Args:
        hedge_after_s: Send a request a second time if there is no response by then, to another server if there is one,
            and take the first response: for a long tail, at about its usual p95. Within the budget of retries.
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
        transport = transport or Transport()
        self._addresses = addresses_of(servers, transport)
        checked_concurrency(concurrency)
        self.timeout_s, self._concurrency, self._hedge_after_s = timeout_s, concurrency, hedge_after_s
        self._held = AsyncConnections(self._addresses, transport, retry or Retry())

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] = (),
        version: Version = "",
        priority: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
        parameters: Parameters | None = None,
        idempotent: bool = True,
        shared: Mapping[str, SharedTensor] | None = None,
    ) -> Arrays:
        """As Client.infer."""
        deadline, version = self._deadline(timeout_s), checked_version(version)
        signature, arrays = await self._validated(model, version, inputs, deadline)
        request = Request.of(
            model,
            arrays,
            servers=len(self._addresses),
            outputs=outputs,
            version=version,
            priority=priority,
            id=request_id or self._held.ids.next(),
            headers=headers,
            parameters=parameters,
            idempotent=idempotent,
            shared=shared,
        )
        try:
            return await self._infer_batch(request, signature, deadline)
        except InvalidInputError as error:
            if (learned := signature.with_limit_from(error.server_message)) is None:
                raise
            self._held.signatures.put(model, version, learned)
            return await self._infer_batch(request, learned, deadline)

    async def classify(self, image: Image, *, model: str = "fashion", **options: Unpack[InferOptions]) -> Prediction:
        """As Client.classify."""
        [prediction] = await self._classify([image], model, options)
        return prediction

    async def classify_many(
        self,
        images: Iterable[Image] | AsyncIterable[Image],
        *,
        model: str = "fashion",
        batch_size: int = 16,
        **options: Unpack[InferOptions],
    ) -> AsyncIterator[Prediction | ClientError]:
        """As Client.classify_many. An iterable that is not asynchronous is read in the event loop."""
        self._held.opened()
        batches = tasks.async_batches(images, batch_size)
        in_flight: deque[asyncio.Future[list[Prediction | ClientError]]] = deque()
        failed: Exception | None = None
        try:
            while True:
                while len(in_flight) < self._concurrency and not (in_flight and in_flight[0].done()):
                    try:
                        batch = await anext(batches, None)
                    except Exception as error:
                        batch, failed = None, error
                    if batch is None:
                        break
                    in_flight.append(asyncio.create_task(self._outcomes(batch, model, options)))
                if not in_flight:
                    break
                outcomes = await in_flight[0]
                in_flight.popleft()
                for outcome in outcomes:
                    yield outcome
        finally:
            await cancelled(in_flight)
        if failed:
            raise failed

    async def signature(self, model: str, version: Version = "", *, timeout_s: float | None = None) -> Signature:
        """As Client.signature."""
        return await self._signature(model, checked_version(version), self._deadline(timeout_s))

    async def live(self) -> bool:
        """As Client.live, of all servers at once."""
        return await self._held.any_is_alive()

    async def ready(self, model: str = "", version: Version = "") -> bool:
        """As Client.ready, of all servers at once."""
        return await self._held.any_is_ready(Query("ready", model, checked_version(version)), Deadline.after(PROBE_S))

    async def wait_until_ready(self, model: str = "", *, timeout_s: float = 60) -> None:
        """As Client.wait_until_ready."""
        deadline, query = Deadline.after(timeout_s), Query("ready", model)
        while not await self._held.any_is_ready(query, deadline):
            if not deadline.remaining_s:
                raise not_ready(model, str(self._held), deadline)
            await asyncio.sleep(min(READY_PAUSE_S, deadline.remaining_s))

    async def close(self) -> None:
        """As Client.close."""
        await self._held.close()

    async def __aenter__(self) -> Self:
        self._held.opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s)

    async def _query(self, query: Query, timeout_s: float | None = None, *, idempotent: bool = True) -> Any:
        checked_query(query, self._addresses)
        return await self._run_query(query, self._deadline(timeout_s), idempotent=idempotent)

    async def _run_query(self, query: Query, deadline: Deadline, *, idempotent: bool = True) -> Any:
        def send(transport: AsyncGrpc | AsyncHttp, timeout_s: float) -> Awaitable[Any]:
            return transport.query(query, timeout_s)

        return await self._held.call(query.model or "the server", deadline, send, idempotent=idempotent)

    async def _signature(self, model: str, version: str, deadline: Deadline) -> Signature:
        if (known := self._held.signatures.get(model, version)) is not None:
            return known
        metadata = await self._run_query(Query("model_metadata", model, version), deadline)
        try:
            config = await self._run_query(Query("model_config", model, version), deadline)
        except (AccessDeniedError, InvalidInputError, ModelNotFoundError):
            config = {}
        return self._held.signatures.put(model, version, Signature.of(metadata, config))

    async def _validated(
        self, model: str, version: str, inputs: Mapping[str, ArrayLike], deadline: Deadline
    ) -> tuple[Signature, Arrays]:
        signature = await self._signature(model, version, deadline)
        try:
            return signature, signature.validated(inputs)
        except InvalidInputError:
            if not self._held.signatures.drop_if_old(model, version):
                raise
        signature = await self._signature(model, version, deadline)
        return signature, signature.validated(inputs)

    async def validate(
        self, model: str, inputs: Mapping[str, ArrayLike], *, version: Version = "", timeout_s: float | None = None
    ) -> Arrays:
        """As Client.validate."""
        return (await self._validated(model, checked_version(version), inputs, self._deadline(timeout_s)))[1]

    async def _infer_batch(self, request: Request, signature: Signature, deadline: Deadline) -> Arrays:
        chunks = list(signature.split(request.inputs))
        if len(chunks) == 1:
            return await self._infer_once(request, deadline)
        places = asyncio.Semaphore(self._concurrency)

        async def in_turn(chunk: Request) -> Arrays:
            async with places:  # each keeps the deadline by itself
                return await self._infer_once(chunk, deadline)

        requests = request.in_chunks(chunks, signature.max_batch_size)
        answers = await _all_or_none([in_turn(chunk) for chunk in requests])
        return concatenated(answers, [rows_of(chunk) for chunk in chunks])

    async def _infer_once(self, request: Request, deadline: Deadline) -> Arrays:
        with telemetry.span(request.model, request.id) as headers:
            if headers:
                request = request.with_headers(headers)

            def send(transport: AsyncGrpc | AsyncHttp, timeout_s: float) -> Awaitable[Any]:
                return transport.infer(request, timeout_s)

            def call(tried: set[Server] | None = None) -> Awaitable[Arrays]:
                return self._held.call(
                    request.model, deadline, send, queue=request.model, idempotent=request.idempotent, tried=tried
                )

            try:
                if self._hedge_after_s and request.idempotent:
                    return await self._hedged(call, self._hedge_after_s)
                return await call()
            except (InvalidInputError, ModelNotFoundError):
                self._held.signatures.drop_if_old(request.model, request.version)
                raise

    async def _hedged(self, call: Callable[[set[Server]], Awaitable[Arrays]], after_s: float) -> Arrays:
        """The first response of two calls, of which the second begins if the first is late."""
        tried: set[Server] = set()
        calls = [asyncio.ensure_future(call(tried))]
        try:
            done, _ = await asyncio.wait(calls, timeout=after_s)
            if not done and tried and self._held.budget.spend():  # not where it still waits for its turn
                calls.append(asyncio.ensure_future(call(tried)))
                done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            if any(one.exception() is None for one in done):
                return next(one.result() for one in done if one.exception() is None)
            others = [one for one in calls if one not in done]
            return await (others or calls)[0]
        finally:
            await cancelled(calls)

    async def _classify(self, images: Sequence[Image], model: str, options: InferOptions) -> list[Prediction]:
        arrays = tasks.images_to_arrays(images)
        outputs = await self.infer(model, arrays, outputs=tasks.CLASSIFY_OUTPUTS, **options)
        return tasks.predictions(outputs, len(images))

    async def _outcomes(
        self, images: Sequence[Image], model: str, options: InferOptions
    ) -> list[Prediction | ClientError]:
        deadline = self._deadline(options.get("timeout_s"))
        try:
            return [*await self._classify(images, model, options)]
        except InvalidInputError as error:
            if len(images) == 1 or not options.get("idempotent", True):
                return [error] * len(images)
            found: list[Prediction | ClientError] = []
            for image in images:
                found += await self._outcomes([image], model, {**options, "timeout_s": deadline.remaining_s})
            return found
        except ClientError as error:
            return [error] * len(images)


async def _all_or_none(calls: Sequence[Awaitable[Arrays]]) -> list[Arrays]:
    """The results of all; one that fails ends the others."""
    started = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*started)
    finally:
        await cancelled(started)
