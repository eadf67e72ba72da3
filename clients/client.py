"""A client for threads. `aio.py` has the same for asyncio."""

import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from clients import tasks, telemetry
from clients.attempts import Budget, Pause, Plan, plan
from clients.errors import AccessError, ClientError, InvalidInputError, ModelNotFoundError
from clients.failures import Failure
from clients.over_grpc import Grpc
from clients.over_http import Http
from clients.request import Place, Question, Request
from clients.servers import Server, Servers
from clients.settings import DEFAULT_SERVER, Address, Retry, Transport
from clients.tasks import Prediction
from clients.tensors import Arrays, Signature, joined

PROBE_S = 1.0  # a server that takes longer to say that it is alive is down
FIRST_PROBE_PAUSE_S, LONGEST_PROBE_PAUSE_S = 0.05, 1.0


class Client:
    """Inference, over gRPC or HTTP, from any thread, also after a fork. A context manager.

    with Client("grpc://127.0.0.1:8001") as client:
        answer = client.infer("fashion", {"image": [[png]]})

    Args:
        servers: Addresses as grpc://host:port, grpcs://, http:// or https://; several share the load, and one that does
            not answer is left out until it does.
        timeout_s: For a call, all its attempts included. The server hears of it, and does not compute what nobody
            waits for any more.
        concurrency: Requests that one call keeps under way, where it needs several.
    """

    def __init__(
        self,
        *servers: str,
        timeout_s: float = 10,
        retry: Retry | None = None,
        transport: Transport | None = None,
        concurrency: int = 8,
    ) -> None:
        self._addresses = [Address.of(url) for url in servers or (DEFAULT_SERVER,)]
        self._timeout_s, self._retry, self._concurrency = timeout_s, retry or Retry(), concurrency
        self._transport = transport or Transport()
        self._mine = _Process(self._addresses, self._transport, self._retry, concurrency)

    def infer(
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
        places: Mapping[str, Place] | None = None,
    ) -> Arrays:
        """Ask a model. A batch that is larger than it takes is sent in pieces, at the same time.

        Args:
            inputs: Of every input an array of the model's type and shape; strings are bytes or str. Nothing is cast.
            outputs: Which to send back; by default all.
            priority: 1 is the highest; 0 the model's default.
            request_id: Triton's log and traces name it; by default a random one.
            repeatable: Whether the server may see it twice. Not, if the model keeps state.
            places: Where inputs lie that the server reads from shared memory; see SharedMemory.

        Returns:
            Of every output an array; strings are bytes.

        Raises:
            ClientError: see the tree in errors.py. Every call ends in time, with a right answer or one of these.
        """
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        signature = self.signature(model, version, timeout_s=deadline - time.monotonic())
        try:
            arrays = signature.checked(inputs)
        except InvalidInputError:  # unless the model has changed since it was asked
            self._process().signatures.pop((model, str(version)), None)
            signature = self.signature(model, version, timeout_s=deadline - time.monotonic())
            arrays = signature.checked(inputs)
        request = Request(
            model=model,
            inputs=arrays,
            version=str(version),
            outputs=tuple(outputs),
            priority=priority,
            id=request_id or uuid.uuid4().hex,
            headers=headers or {},
            places=places or {},
        )
        try:
            return self._in_pieces(request, signature, deadline, repeatable)
        except InvalidInputError as error:
            if (learned := signature.learned(str(error))) is None:
                raise
            self._process().signatures[model, str(version)] = learned
            return self._in_pieces(request, learned, deadline, repeatable)

    def classify(self, image: bytes, *, model: str = "fashion", **options: Any) -> Prediction:
        """The label of a PNG or JPEG. Options are `infer`'s.

        Raises:
            ClientError: as `infer`; InvalidInputError, if it is empty, damaged or no image.
        """
        [prediction] = self._classify([image], model, options)
        return prediction

    def classify_many(
        self, images: Iterable[bytes], *, model: str = "fashion", batch: int = 16, **options: Any
    ) -> Iterator[Prediction | ClientError]:
        """Classify images as they come, many at once; answers in their order, an error in place of a prediction.

        Reads ahead only as far as requests are under way, so `images` may be larger than memory.
        """
        pool, source = self._process().calls, tasks.batches(images, batch)
        under_way: deque[Future[list[Prediction | ClientError]]] = deque()

        def send_another() -> None:
            if (images := next(source, None)) is not None:
                under_way.append(pool.submit(copy_context().run, self._outcomes, images, model, options))

        try:
            for _ in range(2 * self._concurrency):
                send_another()
            while under_way:
                outcomes = under_way.popleft().result()
                send_another()
                yield from outcomes
        finally:
            for future in under_way:
                future.cancel()

    def signature(self, model: str, version: str | int = "", *, timeout_s: float | None = None) -> Signature:
        """What a model takes and gives. Asked once, and again after an input that the server refused.

        Raises:
            ClientError: nobody answers, or serves it.
        """
        known, key = self._process().signatures, (model, str(version))
        if key not in known:
            metadata = self.ask("metadata", model, version, timeout_s=timeout_s)
            try:
                config = self.ask("config", model, version, timeout_s=timeout_s)
            except (AccessError, InvalidInputError, ModelNotFoundError):
                config = {}  # a proxy may keep it back: then nothing is split
            known[key] = Signature.of(metadata, config)
        return known[key]

    def live(self) -> bool:
        """Whether one of the servers answers. Asked once, without a retry."""
        process = self._process()
        return any(transport.alive(PROBE_S) for transport in process.transports.values())

    def ready(self, model: str = "", version: str | int = "") -> bool:
        """Whether the server, or the model, is ready."""
        return bool(self.ask("ready", model, version))

    def ask(
        self, question: Question, model: str = "", version: str | int = "", *, timeout_s: float | None = None
    ) -> Any:
        """What the server says of itself, as JSON: "server", "metadata", "config", "statistics", "index"; or have it
        "load" or "unload" a model, with the admin key among the headers.

        Raises:
            ClientError: as `infer`.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        transports = self._process().transports
        return self._run(
            model or "the server",
            timeout_s,
            lambda server, remaining_s: transports[server].ask(question, remaining_s, model, str(version)),
        )

    def share(self, region: str, key: str, size_bytes: int) -> None:
        """Have the server map /dev/shm/`key` under the name `region`, or with no size, unmap it. SharedMemory does it.

        Raises:
            ClientError: as `infer`.
        """
        transports = self._process().transports
        self._run(
            "shared memory",
            self._timeout_s,
            lambda server, remaining_s: transports[server].share(region, key, size_bytes, remaining_s),
        )

    def close(self) -> None:
        """Wait for requests under way, and close the connections."""
        self._mine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _process(self) -> "_Process":
        if self._mine.pid != os.getpid():  # forked: connections and threads are the parent's
            self._mine = _Process(self._addresses, self._transport, self._retry, self._concurrency)
        if self._mine.closed.is_set():
            raise ClientError("the client is closed", hint="make a new one; it lasts as long as its `with`")
        return self._mine

    def _in_pieces(self, request: Request, signature: Signature, deadline: float, repeatable: bool) -> Arrays:
        pieces = list(signature.split(request.inputs))
        if len(pieces) == 1:
            return self._infer(request, deadline, repeatable)
        if request.places:
            raise InvalidInputError(f"{request.model}: shared memory takes {signature.max_batch_size} rows at once")
        requests = [replace(request, inputs=piece) for piece in pieces]
        pool = self._process().pieces
        futures = [pool.submit(copy_context().run, self._infer, piece, deadline, repeatable) for piece in requests]
        try:
            return joined([future.result() for future in futures])
        finally:
            for future in futures:
                future.cancel()

    def _infer(self, request: Request, deadline: float, repeatable: bool) -> Arrays:
        transports = self._process().transports
        with telemetry.span(request.model) as headers:
            if headers:
                request = request.with_headers(headers)
            try:
                answer: Arrays = self._run(
                    request.model,
                    deadline - time.monotonic(),
                    lambda server, remaining_s: transports[server].infer(request, remaining_s),
                    repeatable=repeatable,
                )
            except (InvalidInputError, ModelNotFoundError):
                self._process().signatures.pop((request.model, request.version), None)  # it may have changed
                raise
            return answer

    def _run(self, model: str, timeout_s: float, send: Any, *, repeatable: bool = True) -> Any:
        process = self._process()
        steps = plan(model, process.servers, self._retry, process.budget, timeout_s, repeatable=repeatable)
        return _follow(steps, send)

    def _classify(self, images: Sequence[bytes], model: str, options: Mapping[str, Any]) -> list[Prediction]:
        arrays = tasks.images_to_arrays(images)
        return tasks.predictions(self.infer(model, arrays, outputs=tasks.CLASSIFY_OUTPUTS, **options))

    def _outcomes(
        self, images: Sequence[bytes], model: str, options: Mapping[str, Any]
    ) -> list[Prediction | ClientError]:
        try:
            return [*self._classify(images, model, options)]
        except InvalidInputError as error:
            if len(images) == 1:
                return [error]
            return [outcome for image in images for outcome in self._outcomes([image], model, options)]  # which one?
        except ClientError as error:
            return [error] * len(images)


class _Process:
    """What a client holds in one process."""

    def __init__(self, addresses: Sequence[Address], transport: Transport, retry: Retry, concurrency: int) -> None:
        self.pid = os.getpid()
        self.servers = Servers(addresses, retry, self._start_probing)
        self.transports: dict[Server, Grpc | Http] = {
            server: (Grpc if server.address.protocol == "grpc" else Http)(server.address, transport)
            for server in self.servers.all
        }
        self.budget = Budget(retry)
        self.signatures: dict[tuple[str, str], Signature] = {}
        self.calls = ThreadPoolExecutor(concurrency, thread_name_prefix="clients-calls")
        # Not the same: calls wait for their pieces.
        self.pieces = ThreadPoolExecutor(concurrency, thread_name_prefix="clients-pieces")
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()
        self.calls.shutdown(cancel_futures=True)
        self.pieces.shutdown(cancel_futures=True)
        for transport in self.transports.values():
            transport.close()

    def _start_probing(self) -> None:
        threading.Thread(target=self._probe, name="clients-probe", daemon=True).start()

    def _probe(self) -> None:
        pause_s = FIRST_PROBE_PAUSE_S
        while (down := self.servers.to_probe()) and not self.closed.is_set():
            for server in down:
                if self.transports[server].alive(PROBE_S):
                    self.servers.recovered(server)
            self.closed.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PROBE_PAUSE_S)


def _follow(steps: Plan, send: Any) -> Any:
    """Do what the plan says; the answer."""
    with closing(steps):  # on Ctrl-C, too: what it has taken is given back
        answer, step = None, next(steps)
        while True:
            failure = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            else:
                try:
                    answer = send(step.server, step.timeout_s)
                except Failure as error:
                    failure = error
            try:
                step = steps.send(failure)
            except StopIteration:
                return answer
