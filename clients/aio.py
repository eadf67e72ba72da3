"""The client for asyncio. What is not explained here is as in `client.py`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clients.aio_connections import AsyncConnections, cancelled
from clients.core import tasks
from clients.core.answer import Answer
from clients.core.deadline import Deadline
from clients.core.failures import not_ready
from clients.core.metadata import ModelMetadata
from clients.core.request import Query, SharedTensor, checked_version
from clients.core.servers import PROBE_S, READY_PAUSE_S
from clients.core.tasks import Image, Prediction
from clients.core.tensors import Arrays
from clients.errors import ClientError
from clients.server_api import AsyncServerApi, Version
from clients.settings import ClientSettings, InferOptions, Retry, TransportOptions
from contracts.layout import DEFAULT_FAMILY


class AsyncClient(AsyncServerApi):
    """A Triton client over gRPC or HTTP, for one event loop. An async context manager.

    async with AsyncClient("grpc://127.0.0.1:8001") as client:
        outputs = await client.infer("router", {"tokens": tokens})

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
        transport: TransportOptions | None = None,
        concurrency: int = 8,
        hedge_after_s: float | None = None,
    ) -> None:
        self._settings = ClientSettings.of(
            servers,
            timeout_s=timeout_s,
            retry=retry,
            transport=transport,
            concurrency=concurrency,
            hedge_after_s=hedge_after_s,
        )
        self._held = AsyncConnections(self._settings)

    @property
    def timeout_s(self) -> float:
        """As Client.timeout_s."""
        return self._settings.timeout_s

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] = (),
        shared: Mapping[str, SharedTensor] | None = None,
        **options: Unpack[InferOptions],
    ) -> Answer:
        """As Client.infer."""
        return await self._held.run(self._held.calls.infer(model, inputs, outputs=outputs, shared=shared, **options))

    async def classify(
        self, image: Image, *, model: str = DEFAULT_FAMILY, **options: Unpack[InferOptions]
    ) -> Prediction:
        """As Client.classify."""
        [prediction] = await self._held.run(self._held.calls.classify([image], model, options))
        return prediction

    async def classify_many(
        self,
        images: Iterable[Image] | AsyncIterable[Image],
        *,
        model: str = DEFAULT_FAMILY,
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
                while len(in_flight) < self._settings.concurrency and not (in_flight and in_flight[0].done()):
                    try:
                        batch = await anext(batches, None)
                    except Exception as error:
                        batch, failed = None, error
                    if batch is None:
                        break
                    steps = self._held.calls.outcomes(batch, model, options)
                    in_flight.append(asyncio.create_task(self._held.run(steps)))
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

    async def embed(self, texts: Sequence[str], *, model: str, **options: Unpack[InferOptions]) -> NDArray[np.float32]:
        """As Client.embed."""
        return await self._held.run(self._held.calls.embed(texts, model, options))

    async def metadata(self, model: str, version: Version = "", *, timeout_s: float | None = None) -> ModelMetadata:
        """As Client.metadata."""
        return await self._held.run(self._held.calls.metadata(model, version, timeout_s))

    async def validate(
        self, model: str, inputs: Mapping[str, ArrayLike], *, version: Version = "", timeout_s: float | None = None
    ) -> Arrays:
        """As Client.validate."""
        return await self._held.run(self._held.calls.validate(model, inputs, version, timeout_s))

    async def live(self) -> bool:
        """As Client.live, of all servers at once."""
        return await self._held.any_alive()

    async def ready(self, model: str = "", version: Version = "") -> bool:
        """As Client.ready, of all servers at once."""
        return await self._held.any_ready(Query("ready", model, checked_version(version)), Deadline.after(PROBE_S))

    async def wait_until_ready(self, model: str = "", *, timeout_s: float = 60) -> None:
        """As Client.wait_until_ready."""
        deadline, query = Deadline.after(timeout_s), Query("ready", model)
        while not await self._held.any_ready(query, deadline):
            if not deadline.remaining_s:
                raise not_ready(model, str(self._held.calls.servers), deadline)
            await asyncio.sleep(min(READY_PAUSE_S, deadline.remaining_s))

    async def close(self) -> None:
        """As Client.close."""
        await self._held.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to make connections of its own, for an event loop of its own."""
        return {"_settings": self._settings}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._settings = state["_settings"]
        self._held = AsyncConnections(self._settings)

    async def __aenter__(self) -> Self:
        self._held.opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _query(self, query: Query, timeout_s: float | None = None) -> Any:
        return await self._held.run(self._held.calls.query(query, timeout_s))
