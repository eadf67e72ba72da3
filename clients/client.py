"""A client for threads. `aio.py` has the same for asyncio."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clients.connections import Connections, of_this_process, workers
from clients.core import tasks
from clients.core.answer import Answer
from clients.core.deadline import Deadline
from clients.core.failures import client_closed, not_ready
from clients.core.metadata import ModelMetadata
from clients.core.request import Query, SharedTensor, checked_version
from clients.core.servers import PROBE_S, READY_PAUSE_S
from clients.core.tasks import Image, Prediction
from clients.core.tensors import Arrays
from clients.errors import ClientError
from clients.server_api import ServerApi, Version
from clients.settings import ClientSettings, InferOptions, Retry, TransportOptions
from contracts.layout import DEFAULT_FAMILY


class Client(ServerApi):
    """A Triton client over gRPC or HTTP: thread-safe, usable after a fork or in a spawned process, a context manager.

    with Client("grpc://127.0.0.1:8001") as client:
        outputs = client.infer("router", {"tokens": tokens})

    A server that never responded to this client is not waited for, whatever the timeout: see `wait_until_ready`.

    Args:
        servers: URLs, as grpc://host:port, grpcs://, http:// or https://. Several share the load; one that does not
            respond is left out until it does, one that redirects for a minute.
        timeout_s: Deadline of a call, all its attempts included. It is sent as the queue timeout, too, so that Triton
            drops what waited for longer, if the model's queue policy lets requests set it.
        concurrency: Requests in flight at once of a call that needs several.
    """

    def __init__(
        self,
        *servers: str,
        timeout_s: float = 10,
        retry: Retry | None = None,
        transport: TransportOptions | None = None,
        concurrency: int = 8,
    ) -> None:
        self._settings = ClientSettings.of(
            servers, timeout_s=timeout_s, retry=retry, transport=transport, concurrency=concurrency
        )
        self._held, self._closed = Connections(self._settings), False

    @property
    def timeout_s(self) -> float:
        """Deadline of a call that is given none."""
        return self._settings.timeout_s

    def infer(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] = (),
        shared: Mapping[str, SharedTensor] | None = None,
        **options: Unpack[InferOptions],
    ) -> Answer:
        """Run a model. A batch larger than its `max_batch_size` is split, sent concurrently, and put together again.

        Args:
            inputs: For every input an array of the model's dtype and shape; strings are bytes or str. Nothing is cast.
            outputs: Which to return; by default all.
            shared: Inputs that lie in shared memory, and are not sent: see SharedMemory.
            version: Of the model; by default the newest.
            priority: 1 is the highest; 0 the model's default.
            timeout_s: Deadline of this call, in place of the client's.
            request_id: Triton's log and traces name it; by default a unique one. Chunks of a batch get -0, -1, …
            headers: Of this request, besides TransportOptions.headers.
            parameters: For the model. Those of a sequence, `sequence_id`, `sequence_start` and `sequence_end`, make it
                one request to one server, sent once.
            idempotent: False if it must not run twice: then it is sent once.

        Returns:
            For every output an array; strings are bytes. It may be read-only. `version` of it says which version of the
            model answered: of a server of ours, for an ensemble too, which release.

        Raises:
            ClientError: see the tree in errors.py. A call returns or raises by its deadline, but for a slow DNS lookup
                over HTTP, which cannot be interrupted.
        """
        held = self._connections()
        return held.run(held.calls.infer(model, inputs, outputs=outputs, shared=shared, **options))

    def classify(self, image: Image, *, model: str = DEFAULT_FAMILY, **options: Unpack[InferOptions]) -> Prediction:
        """Label a PNG or JPEG.

        Args:
            image: The content of the file, not its path.
            model: One with the input `image`, BYTES [B, 1], and the outputs `top_labels` and `top_scores`, [B, k]. For
                any other there is `infer`.
            options: As `infer`'s.

        Raises:
            ClientError: as `infer`; InvalidInputError, if it is empty, damaged or not an image.
        """
        held = self._connections()
        [prediction] = held.run(held.calls.classify([image], model, options))
        return prediction

    def classify_many(
        self,
        images: Iterable[Image],
        *,
        model: str = DEFAULT_FAMILY,
        batch_size: int = 16,
        **options: Unpack[InferOptions],
    ) -> Iterator[Prediction | ClientError]:
        """Classify images as they come, several requests at once. Results in order; an error in place of a prediction.

        Reads ahead by no more than 2 * concurrency * batch_size images, so that they may be more than memory holds.
        Model and options are `classify`'s.

        Raises:
            Exception: what reading the images raised, after the results of those before.
        """
        held, batches = self._connections(), tasks.batches(images, batch_size)
        in_flight: deque[Future[list[Prediction | ClientError]]] = deque()
        failed: Exception | None = None
        with workers(self._settings.concurrency, "clients-batch") as threads:
            while True:
                # Only while the next results are not there: reading may take long, and would hold them back.
                while len(in_flight) < 2 * self._settings.concurrency and not (in_flight and in_flight[0].done()):
                    try:
                        batch = next(batches, None)
                    except Exception as error:
                        batch, failed = None, error
                    if batch is None:
                        break
                    steps = held.calls.outcomes(batch, model, options)
                    in_flight.append(threads.submit(copy_context().run, held.run, steps))
                if not in_flight:
                    break
                if held.inherited:  # the threads are the parent's
                    raise ClientError("this classify_many began before a fork", hint="begin one in this process")
                yield from in_flight.popleft().result()
        if failed:
            raise failed

    def embed(self, texts: Sequence[str], *, model: str, **options: Unpack[InferOptions]) -> NDArray[np.float32]:
        """Turn texts into vectors, float32 [len(texts), k]: near each other where they mean the same.

        Args:
            model: One with the input `text`, BYTES [B, 1], and the output `embedding`, [B, k].
            options: As `infer`'s.

        Raises:
            ClientError: as `infer`; InvalidInputError, if one is no text, or longer than the model reads.
        """
        held = self._connections()
        return held.run(held.calls.embed(texts, model, options))

    def metadata(self, model: str, version: Version = "", *, timeout_s: float | None = None) -> ModelMetadata:
        """Describe a model's inputs and outputs. Asked for once, and again after an input that the server rejected.

        Raises:
            ClientError: as `infer`.
        """
        held = self._connections()
        return held.run(held.calls.metadata(model, version, timeout_s))

    def validate(
        self, model: str, inputs: Mapping[str, ArrayLike], *, version: Version = "", timeout_s: float | None = None
    ) -> Arrays:
        """Make the arrays that `infer` would send.

        Raises:
            InvalidInputError: a name, dtype or shape is not the model's.
            ClientError: as `infer`.
        """
        held = self._connections()
        return held.run(held.calls.validate(model, inputs, version, timeout_s))

    def live(self) -> bool:
        """Tell whether one of the servers responds. Each is asked once, for at most a second."""
        return self._connections().any_alive()

    def ready(self, model: str = "", version: Version = "") -> bool:
        """Tell whether one of the servers, or the model on it, is ready. Each is asked once, for at most a second.

        Raises:
            ClientError: none is, and one responds with an error: access denied, say.
        """
        held, query = self._connections(), Query("ready", model, checked_version(version))
        return held.any_ready(query, Deadline.after(PROBE_S * len(self._settings.addresses)))

    def wait_until_ready(self, model: str = "", *, timeout_s: float = 60) -> None:
        """Return as soon as one of the servers, or the model on it, is ready.

        Raises:
            DeadlineExceededError: none is by then.
            ClientError: as `ready`.
        """
        deadline, query = Deadline.after(timeout_s), Query("ready", model)
        while not (held := self._connections()).any_ready(query, deadline):
            if not deadline.remaining_s:
                raise not_ready(model, str(held.calls.servers), deadline)
            time.sleep(min(READY_PAUSE_S, deadline.remaining_s))

    def close(self) -> None:
        """Close the connections. Calls in flight end with an error."""
        self._closed = True
        if not self._held.inherited:
            self._held.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to make connections of its own, as a worker that was spawned does."""
        return {"_settings": self._settings, "_closed": self._closed}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._settings, self._closed = state["_settings"], state["_closed"]
        self._held = Connections(self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _query(self, query: Query, timeout_s: float | None = None) -> Any:
        held = self._connections()
        return held.run(held.calls.query(query, timeout_s))

    def _connections(self) -> Connections:
        if self._closed:
            raise client_closed()
        return of_this_process(self._held, self._renewed)

    def _renewed(self) -> Connections:
        if self._held.inherited:  # still: another thread may have been faster
            self._held = Connections(self._settings)
        return self._held
