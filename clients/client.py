"""A client for threads. `aio.py` has the same for asyncio."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from clients import tasks, telemetry
from clients.deadline import Deadline
from clients.errors import (
    AccessError,
    ClientError,
    DeadlineError,
    InvalidInputError,
    ModelNotFoundError,
    ServerUnavailableError,
)
from clients.failures import too_late
from clients.process import Ask, Process, closed, own
from clients.request import Place, Question, Request, checked_question, checked_version
from clients.settings import DEFAULT_SERVER, Address, Retry, Transport, checked_concurrency, checked_headers
from clients.tasks import Prediction
from clients.tensors import Arrays, Signature, joined


class Client:
    """Inference, over gRPC or HTTP, from any thread, also after a fork. A context manager.

    with Client("grpc://127.0.0.1:8001") as client:
        answer = client.infer("fashion", {"image": [[png]]})

    Args:
        servers: Addresses as grpc://host:port, grpcs://, http:// or https://; several share the load, and one that does
            not answer is left out until it does.
        timeout_s: The longest time for a call, all its attempts included. The server is told, and drops what has waited
            for longer in its queue.
        concurrency: Requests that are sent at once where a call needs several; of all such calls together.
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
        checked_concurrency(concurrency)
        self.timeout_s, self._retry, self._concurrency = timeout_s, retry or Retry(), concurrency
        self._transport = transport or Transport()
        self._mine, self._closed = Process(self._addresses, self._transport, self._retry, concurrency), False

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
            request_id: Triton's log and traces name it; by default one that no other client has. Pieces get -0, -1, …
            repeatable: False if it must not run twice, as for a model that keeps state: it is never sent again.
            places: Where inputs lie that the server reads from shared memory; see SharedMemory.

        Returns:
            Of every output an array; strings are bytes. It may be read-only: change a copy.

        Raises:
            ClientError: see the tree in errors.py. Every call ends in time, with a right answer or one of these.
        """
        deadline, process = self._deadline(timeout_s), self._process()
        version = checked_version(version)
        signature = self._signature(process, model, version, deadline)
        try:
            arrays = signature.checked(inputs)
        except InvalidInputError:  # unless the model has changed since it was asked
            if not process.signatures.doubt(model, version):
                raise
            signature = self._signature(process, model, version, deadline)
            arrays = signature.checked(inputs)
        request = Request(
            model=model,
            inputs=arrays,
            version=version,
            outputs=tuple(outputs),
            priority=priority,
            id=request_id or process.ids.next(),
            headers=checked_headers(headers) if headers else {},
            places=places or {},
        )
        try:
            return self._in_pieces(process, request, signature, deadline, repeatable)
        except InvalidInputError as error:
            if (learned := signature.learned(str(error))) is None:
                raise
            process.signatures.keep(model, version, learned)
            return self._in_pieces(process, request, learned, deadline, repeatable)

    def classify(self, image: bytes, *, model: str = "fashion", **options: Any) -> Prediction:
        """The label of a PNG or JPEG.

        Args:
            image: Its bytes, not its path.
            model: One that takes `image`, BYTES [B, 1], and gives `top_labels` and `top_scores`, [B, k]. For any other
                there is `infer`.
            options: Of infer's: version, priority, timeout_s, headers, request_id and repeatable.

        Raises:
            ClientError: as `infer`; InvalidInputError, if it is empty, damaged or no image.
        """
        [prediction] = self._classify([image], model, options)
        return prediction

    def classify_many(
        self, images: Iterable[bytes], *, model: str = "fashion", batch: int = 16, **options: Any
    ) -> Iterator[Prediction | ClientError]:
        """Classify images as they come, many at once; answers in their order, an error in place of a prediction.

        Reads ahead by no more than 2 * concurrency * batch images, so that they may be more than memory holds. Model
        and options are `classify`'s.

        Raises:
            Exception: what reading the images raised, after the answers to those before.
        """
        process, source = self._process(), tasks.batches(images, batch)
        under_way: deque[Future[list[Prediction | ClientError]]] = deque()

        def send_another() -> None:
            try:
                images = next(source, None)
            except Exception as error:  # told in its turn
                under_way.append(Future())
                under_way[-1].set_exception(error)
                return
            if images is not None:
                context = copy_context()
                under_way.append(process.calls.submit(context.run, self._outcomes, images, model, options))

        try:
            for _ in range(2 * self._concurrency):
                with process.closing_is_told():
                    send_another()
            while under_way:
                with process.closing_is_told():
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
        return self._signature(self._process(), model, checked_version(version), self._deadline(timeout_s))

    def live(self) -> bool:
        """Whether one of the servers answers. Asked once, without a retry."""
        return self._process().live()

    def ready(self, model: str = "", version: str | int = "") -> bool:
        """Whether a server, or the model on it, is ready. With several servers, one of them.

        Raises:
            ClientError: it answers, and keeps that back.
        """
        try:
            return bool(self.ask("ready", model, version))
        except (DeadlineError, ServerUnavailableError):
            return False

    def ask(
        self, question: Question, model: str = "", version: str | int = "", *, timeout_s: float | None = None
    ) -> Any:
        """Of one of the servers, as JSON: "server", "live", "ready"; "metadata" and "config" of a model; "statistics"
        of one or all. With Transport.admin_key also "index", "shared", and have it "load" or "unload" a model.

        Raises:
            ClientError: as `infer`; InvalidInputError, if it is no such question, or one for a certain server and there
                are several.
        """
        checked_question(question, self._addresses)
        return self._ask(self._process(), question, model, checked_version(version), self._deadline(timeout_s))

    def share(self, region: str, key: str, size_bytes: int) -> None:
        """Have the server map /dev/shm/`key` under the name `region`, or with no size, unmap it. SharedMemory does it.

        Raises:
            ClientError: as `infer`.
        """
        deadline = self._deadline()
        self._process().run(
            "shared memory", deadline, lambda transport, left_s: transport.share(region, key, size_bytes, left_s)
        )

    def close(self) -> None:
        """Close the connections. Calls under way end with an error."""
        self._closed = True
        if not self._mine.inherited:
            self._mine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _process(self) -> Process:
        if self._closed:
            raise closed()
        return own(self._mine, self._renewed)

    def _renewed(self) -> Process:
        if self._mine.inherited:  # still: another thread may have been faster
            self._mine = Process(self._addresses, self._transport, self._retry, self._concurrency)
        return self._mine

    def _deadline(self, timeout_s: float | None = None) -> Deadline:
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s)

    def _signature(self, process: Process, model: str, version: str, deadline: Deadline) -> Signature:
        if (known := process.signatures.get(model, version)) is not None:
            return known
        metadata = self._ask(process, "metadata", model, version, deadline)
        try:
            config = self._ask(process, "config", model, version, deadline)
        except (AccessError, InvalidInputError, ModelNotFoundError):
            config = {}  # a proxy may keep it back: then nothing is split
        return process.signatures.keep(model, version, Signature.of(metadata, config))

    def _ask(self, process: Process, question: Question, model: str, version: str, deadline: Deadline) -> Any:
        send: Ask = lambda transport, left_s: transport.ask(question, left_s, model, version)  # noqa: E731
        return process.run(model or "the server", deadline, send)

    def _in_pieces(
        self, process: Process, request: Request, signature: Signature, deadline: Deadline, repeatable: bool
    ) -> Arrays:
        pieces = list(signature.split(request.inputs))
        if len(pieces) == 1:
            return self._infer(process, request, deadline, repeatable)
        if request.places:
            raise InvalidInputError(f"{request.model}: shared memory takes {signature.max_batch_size} rows at once")
        with process.closing_is_told():
            futures = [
                process.pieces.submit(copy_context().run, self._infer, process, piece, deadline, repeatable)
                for piece in request.in_pieces(pieces)
            ]
            try:
                return joined([future.result(deadline.remaining_s) for future in futures])
            except TimeoutError as error:
                raise too_late(request.model, len(pieces), deadline) from error
            finally:
                for future in futures:
                    future.cancel()

    def _infer(self, process: Process, request: Request, deadline: Deadline, repeatable: bool) -> Arrays:
        with telemetry.span(request.model) as headers:
            if headers:
                request = request.with_headers(headers)
            try:
                answer: Arrays = process.run(
                    request.model,
                    deadline,
                    lambda transport, left_s: transport.infer(request, left_s),
                    queue=request.model,
                    repeatable=repeatable,
                )
            except (InvalidInputError, ModelNotFoundError):
                process.signatures.doubt(request.model, request.version)  # it may have changed
                raise
            return answer

    def _classify(self, images: Sequence[bytes], model: str, options: Mapping[str, Any]) -> list[Prediction]:
        arrays = tasks.images_to_arrays(images)
        answer = self.infer(model, arrays, outputs=tasks.CLASSIFY_OUTPUTS, **options)
        return tasks.predictions(answer, len(images))

    def _outcomes(
        self, images: Sequence[bytes], model: str, options: Mapping[str, Any]
    ) -> list[Prediction | ClientError]:
        deadline = self._deadline(options.get("timeout_s"))
        try:
            return [*self._classify(images, model, options)]
        except InvalidInputError as error:
            if len(images) == 1 or not options.get("repeatable", True):
                return [error] * len(images)
            found: list[Prediction | ClientError] = []
            for image in images:  # which one? In what is left of the time
                again = {**options, "timeout_s": deadline.remaining_s}
                found += self._outcomes([image], model, again)
            return found
        except ClientError as error:
            return [error] * len(images)
