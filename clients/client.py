"""A client for threads. `aio.py` has the same for asyncio."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, Unpack

from numpy.typing import ArrayLike

from clients import tasks, telemetry
from clients.connections import READY_PAUSE_S, Connections, closed, of_this_process
from clients.deadline import Deadline
from clients.errors import AccessDeniedError, ClientError, InvalidInputError, ModelNotFoundError
from clients.failures import not_ready
from clients.request import Query, Request, SharedTensor, checked_query, checked_version
from clients.server_api import ServerApi, Version
from clients.servers import PROBE_S
from clients.settings import InferOptions, Parameters, Retry, Transport, addresses_of, checked_concurrency
from clients.tasks import Image, Prediction
from clients.tensors import Arrays, Signature, concatenated, rows_of


class Client(ServerApi):
    """A Triton client over gRPC or HTTP: thread-safe, usable after a fork, and a context manager.

    with Client("grpc://127.0.0.1:8001") as client:
        outputs = client.infer("fashion", {"image": [[png]]})

    A server that never responded to this client is not waited for, whatever the timeout: see `wait_until_ready`.

    Args:
        servers: URLs, as grpc://host:port, grpcs://, http:// or https://. Several share the load; one that does not
            respond is left out until it does.
        timeout_s: Deadline of a call, all its attempts included. It is sent as the queue timeout, too, so that Triton
            drops what waited for longer, if the model's queue policy lets requests set it.
        concurrency: Requests in flight at once of a call that needs several.
    """

    def __init__(
        self,
        *servers: str,
        timeout_s: float = 10,
        retry: Retry | None = None,
        transport: Transport | None = None,
        concurrency: int = 8,
    ) -> None:
        self._transport = transport or Transport()
        self._addresses = addresses_of(servers, self._transport)
        checked_concurrency(concurrency)
        self.timeout_s, self._retry, self._concurrency = timeout_s, retry or Retry(), concurrency
        self._held, self._closed = Connections(self._addresses, self._transport, self._retry), False

    def infer(
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
        """Run a model. A batch larger than its `max_batch_size` is split, sent concurrently, and put together again.

        Args:
            inputs: For every input an array of the model's dtype and shape; strings are bytes or str. Nothing is cast.
            outputs: Which to return; by default all.
            version: Of the model; by default the newest.
            priority: 1 is the highest; 0 the model's default.
            request_id: Triton's log and traces name it; by default a unique one. Chunks of a batch get -0, -1, …
            headers: Of this request, besides Transport.headers.
            parameters: For the model. Those of a sequence, `sequence_id`, `sequence_start` and `sequence_end`, make it
                one request to one server, sent once.
            idempotent: False if it must not run twice: then it is sent once.
            shared: Inputs that lie in shared memory, and are not sent: see SharedMemory.

        Returns:
            For every output an array; strings are bytes. It may be read-only.

        Raises:
            ClientError: see the tree in errors.py. A call returns or raises by its deadline, but for a slow DNS lookup
                over HTTP, which cannot be interrupted.
        """
        deadline, connections, version = self._deadline(timeout_s), self._connections(), checked_version(version)
        signature, arrays = self._validated(connections, model, version, inputs, deadline)
        request = Request.of(
            model,
            arrays,
            servers=len(self._addresses),
            outputs=outputs,
            version=version,
            priority=priority,
            id=request_id or connections.ids.next(),
            headers=headers,
            parameters=parameters,
            idempotent=idempotent,
            shared=shared,
        )
        try:
            return self._infer_batch(connections, request, signature, deadline)
        except InvalidInputError as error:
            if (learned := signature.with_limit_from(error.server_message)) is None:
                raise
            connections.signatures.put(model, version, learned)
            return self._infer_batch(connections, request, learned, deadline)

    def classify(self, image: Image, *, model: str = "fashion", **options: Unpack[InferOptions]) -> Prediction:
        """The label of a PNG or JPEG.

        Args:
            image: The content of the file, not its path.
            model: One with the input `image`, BYTES [B, 1], and the outputs `top_labels` and `top_scores`, [B, k]. For
                any other there is `infer`.
            options: As `infer`'s.

        Raises:
            ClientError: as `infer`; InvalidInputError, if it is empty, damaged or not an image.
        """
        [prediction] = self._classify([image], model, options)
        return prediction

    def classify_many(
        self, images: Iterable[Image], *, model: str = "fashion", batch_size: int = 16, **options: Unpack[InferOptions]
    ) -> Iterator[Prediction | ClientError]:
        """Classify images as they come, several requests at once. Results in order; an error in place of a prediction.

        Reads ahead by no more than 2 * concurrency * batch_size images, so that they may be more than memory holds.
        Model and options are `classify`'s.

        Raises:
            Exception: what reading the images raised, after the results of those before.
        """
        connections, batches = self._connections(), tasks.batches(images, batch_size)
        in_flight: deque[Future[list[Prediction | ClientError]]] = deque()
        failed: Exception | None = None
        with _workers(self._concurrency, "clients-batch") as workers:
            while True:
                # Only while the next results are not there: reading may take long, and would hold them back.
                while len(in_flight) < 2 * self._concurrency and not (in_flight and in_flight[0].done()):
                    try:
                        batch = next(batches, None)
                    except Exception as error:
                        batch, failed = None, error
                    if batch is None:
                        break
                    in_flight.append(workers.submit(copy_context().run, self._outcomes, batch, model, options))
                if not in_flight:
                    break
                if connections.inherited:  # the threads are the parent's
                    raise ClientError("this classify_many began before a fork", hint="begin one in this process")
                yield from in_flight.popleft().result()
        if failed:
            raise failed

    def signature(self, model: str, version: Version = "", *, timeout_s: float | None = None) -> Signature:
        """Inputs and outputs of a model. Asked for once, and again after an input that the server rejected.

        Raises:
            ClientError: as `infer`.
        """
        return self._signature(self._connections(), model, checked_version(version), self._deadline(timeout_s))

    def live(self) -> bool:
        """Whether one of the servers responds. Each is asked once, for at most a second."""
        return self._connections().any_is_alive()

    def ready(self, model: str = "", version: Version = "") -> bool:
        """Whether one of the servers, or the model on it, is ready. Each is asked once, for at most a second.

        Raises:
            ClientError: none is, and one responds with an error: access denied, say.
        """
        connections, query = self._connections(), Query("ready", model, checked_version(version))
        return connections.any_is_ready(query, Deadline.after(PROBE_S * len(self._addresses)))

    def wait_until_ready(self, model: str = "", *, timeout_s: float = 60) -> None:
        """Return as soon as one of the servers, or the model on it, is ready.

        Raises:
            DeadlineExceededError: none is by then.
            ClientError: as `ready`.
        """
        deadline, query = Deadline.after(timeout_s), Query("ready", model)
        while not (connections := self._connections()).any_is_ready(query, deadline):
            if not deadline.remaining_s:
                raise not_ready(model, str(connections), deadline)
            time.sleep(min(READY_PAUSE_S, deadline.remaining_s))

    def close(self) -> None:
        """Close the connections. Calls in flight end with an error."""
        self._closed = True
        if not self._held.inherited:
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connections(self) -> Connections:
        if self._closed:
            raise closed()
        return of_this_process(self._held, self._renewed)

    def _renewed(self) -> Connections:
        if self._held.inherited:  # still: another thread may have been faster
            self._held = Connections(self._addresses, self._transport, self._retry)
        return self._held

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s)

    def _query(self, query: Query, timeout_s: float | None = None, *, idempotent: bool = True) -> Any:
        checked_query(query, self._addresses)
        return self._run_query(self._connections(), query, self._deadline(timeout_s), idempotent=idempotent)

    def _run_query(self, connections: Connections, query: Query, deadline: Deadline, *, idempotent: bool = True) -> Any:
        def send(transport: Any, timeout_s: float) -> Any:
            return transport.query(query, timeout_s)

        return connections.call(query.model or "the server", deadline, send, idempotent=idempotent)

    def _signature(self, connections: Connections, model: str, version: str, deadline: Deadline) -> Signature:
        if (known := connections.signatures.get(model, version)) is not None:
            return known
        metadata = self._run_query(connections, Query("model_metadata", model, version), deadline)
        try:
            config = self._run_query(connections, Query("model_config", model, version), deadline)
        except (AccessDeniedError, InvalidInputError, ModelNotFoundError):
            config = {}  # a proxy may withhold it: then the batch limit is learned from a rejection
        return connections.signatures.put(model, version, Signature.of(metadata, config))

    def _validated(
        self, connections: Connections, model: str, version: str, inputs: Mapping[str, ArrayLike], deadline: Deadline
    ) -> tuple[Signature, Arrays]:
        """The signature, and the arrays to send."""
        signature = self._signature(connections, model, version, deadline)
        try:
            return signature, signature.validated(inputs)
        except InvalidInputError:  # unless the model has changed since it was described
            if not connections.signatures.drop_if_old(model, version):
                raise
        signature = self._signature(connections, model, version, deadline)
        return signature, signature.validated(inputs)

    def validate(
        self, model: str, inputs: Mapping[str, ArrayLike], *, version: Version = "", timeout_s: float | None = None
    ) -> Arrays:
        """The arrays that `infer` would send.

        Raises:
            InvalidInputError: a name, dtype or shape is not the model's.
            ClientError: as `infer`.
        """
        connections, deadline = self._connections(), self._deadline(timeout_s)
        return self._validated(connections, model, checked_version(version), inputs, deadline)[1]

    def _infer_batch(
        self, connections: Connections, request: Request, signature: Signature, deadline: Deadline
    ) -> Arrays:
        """The outputs for all rows, in one request or several."""
        chunks = list(signature.split(request.inputs))
        if len(chunks) == 1:
            return self._infer_once(connections, request, deadline)
        requests = request.in_chunks(chunks, signature.max_batch_size)
        with _workers(min(self._concurrency, len(chunks)), "clients-chunk") as workers:
            futures = [
                workers.submit(copy_context().run, self._infer_once, connections, chunk, deadline) for chunk in requests
            ]
            wait(futures, return_when=FIRST_EXCEPTION)  # each keeps the deadline by itself
            answers = [future.result() for future in futures if future.done()]
        return concatenated(answers, [rows_of(chunk) for chunk in chunks])

    def _infer_once(self, connections: Connections, request: Request, deadline: Deadline) -> Arrays:
        with telemetry.span(request.model, request.id) as headers:
            if headers:
                request = request.with_headers(headers)

            def send(transport: Any, timeout_s: float) -> Any:
                return transport.infer(request, timeout_s)

            try:
                outputs: Arrays = connections.call(
                    request.model, deadline, send, queue=request.model, idempotent=request.idempotent
                )
            except (InvalidInputError, ModelNotFoundError):
                connections.signatures.drop_if_old(request.model, request.version)  # it may have changed
                raise
            return outputs

    def _classify(self, images: Sequence[Image], model: str, options: InferOptions) -> list[Prediction]:
        arrays = tasks.images_to_arrays(images)
        outputs = self.infer(model, arrays, outputs=tasks.CLASSIFY_OUTPUTS, **options)
        return tasks.predictions(outputs, len(images))

    def _outcomes(self, images: Sequence[Image], model: str, options: InferOptions) -> list[Prediction | ClientError]:
        """Of a batch: if it has a bad image, of each image by itself, in what is left of the time."""
        deadline = self._deadline(options.get("timeout_s"))
        try:
            return [*self._classify(images, model, options)]
        except InvalidInputError as error:
            if len(images) == 1 or not options.get("idempotent", True):
                return [error] * len(images)
            found: list[Prediction | ClientError] = []
            for image in images:
                found += self._outcomes([image], model, {**options, "timeout_s": deadline.remaining_s})
            return found
        except ClientError as error:
            return [error] * len(images)


@contextmanager
def _workers(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads of one call. What it does not wait for any more ends by itself, at its deadline."""
    workers = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield workers
    finally:
        workers.shutdown(wait=False, cancel_futures=True)
