"""What each call of a client does, step by step: check, describe the model, split, send, put together.

A call is a generator of steps. Whoever drives it carries out each step, in threads or in asyncio, and tells it what
came of it: so checks, batches, retries and everything that is learned of models and servers stand here once.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clients.core import tasks, telemetry
from clients.core.answer import Answer
from clients.core.attempts import Attempts, Pause, RetryBudget, Send, attempts
from clients.core.deadline import Deadline
from clients.core.failures import Failure, error_of
from clients.core.metadata import MetadataCache, ModelMetadata
from clients.core.request import Query, Request, RequestIds, SharedTensor, checked_query, checked_version
from clients.core.servers import Server, Servers
from clients.core.tasks import Image, Prediction
from clients.core.tensors import Arrays, rows_of, split
from clients.errors import AccessDeniedError, ClientError, InvalidInputError, ModelNotFoundError
from clients.settings import ClientSettings, InferOptions

T = TypeVar("T")


@dataclass(frozen=True)
class Together:
    """Drive these calls side by side, and come back with their results, in order, or with the first error."""

    calls: Sequence["Steps[Any]"]


@dataclass(frozen=True)
class Hedge:
    """Make these attempts, and make them a second time if there is no response by then: the first response counts.

    Attributes:
        attempt: Begins them.
        may_hedge: Whether the second may begin.
    """

    attempt: Callable[[], Attempts]
    after_s: float
    may_hedge: Callable[[], bool]


Step = Send | Pause | Together | Hedge
Steps = Generator[Step, Any, T]


class Calls:
    """The calls of one client, and what they share: servers, retry budget, what is known of models. Thread-safe.

    Args:
        probe: As of Servers.
        event: As of Servers.
    """

    def __init__(
        self, settings: ClientSettings, probe: Callable[[Server], None], event: Callable[[], Any] = threading.Event
    ) -> None:
        self._settings = settings
        self.servers = Servers(settings.addresses, settings.retry, probe, event, settings.via)
        self._budget, self._ids, self._known = RetryBudget(settings.retry), RequestIds(), MetadataCache()

    def query(self, query: Query, timeout_s: float | None = None) -> Steps[Any]:
        """Ask one of the servers; return its JSON.

        Raises:
            ClientError: there is no answer, or nobody could say which server was to give it.
        """
        return self._attempts(checked_query(query, self._settings.addresses), self._deadline(timeout_s))

    def metadata(self, model: str, version: str | int, timeout_s: float | None) -> Steps[ModelMetadata]:
        """Describe a model: from what is known, else as its server does."""
        return (yield from self._described(model, checked_version(version), self._deadline(timeout_s)))

    def validate(
        self, model: str, inputs: Mapping[str, ArrayLike], version: str | int, timeout_s: float | None
    ) -> Steps[Arrays]:
        """Make the arrays that `infer` would send."""
        _, arrays = yield from self._validated(model, checked_version(version), inputs, self._deadline(timeout_s))
        return arrays

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
        parameters: Mapping[str, Any] | None = None,
        idempotent: bool = True,
        shared: Mapping[str, SharedTensor] | None = None,
    ) -> Steps[Answer]:
        """Run a model; return its outputs for all rows. `Client.infer` explains the arguments."""
        deadline, version = self._deadline(timeout_s), checked_version(version)
        metadata, arrays = yield from self._validated(model, version, inputs, deadline)
        request = Request.of(
            model,
            arrays,
            servers=len(self._settings.addresses),
            outputs=outputs,
            version=version,
            priority=priority,
            id=request_id or self._ids.next(),
            headers=headers,
            parameters=parameters,
            idempotent=idempotent,
            shared=shared,
        )
        try:
            return (yield from self._infer_batch(request, metadata, deadline))
        except InvalidInputError as error:
            if (learned := metadata.with_limit_from(error.server_message)) is None:
                raise
            self._known.put(model, version, learned)
            return (yield from self._infer_batch(request, learned, deadline))

    def classify(self, images: Sequence[Image], model: str, options: InferOptions) -> Steps[list[Prediction]]:
        """Label the images of one batch."""
        arrays = tasks.images_to_arrays(images)
        answer = yield from self.infer(model, arrays, outputs=tasks.CLASSIFY_OUTPUTS, **options)
        return tasks.predictions(answer, len(images))

    def embed(self, texts: Sequence[str], model: str, options: InferOptions) -> Steps[NDArray[np.float32]]:
        """Turn texts into vectors."""
        answer = yield from self.infer(model, tasks.texts_to_arrays(texts), outputs=[tasks.EMBEDDING], **options)
        return tasks.embeddings(answer, len(texts))

    def outcomes(
        self, images: Sequence[Image], model: str, options: InferOptions
    ) -> Steps[list[Prediction | ClientError]]:
        """Label the images of one batch; if it has a bad one, each by itself, in what is left of the time."""
        deadline = self._deadline(options.get("timeout_s"))
        try:
            return [*(yield from self.classify(images, model, options))]
        except InvalidInputError as error:
            if len(images) == 1 or not options.get("idempotent", True):
                return [error] * len(images)
        except ClientError as error:
            return [error] * len(images)
        found: list[Prediction | ClientError] = []
        for image in images:
            found += yield from self.outcomes([image], model, {**options, "timeout_s": deadline.remaining_s})
        return found

    def any_ready(self, query: Query, answers: Iterable[tuple[Server, bool | Failure]], deadline: Deadline) -> bool:
        """Tell whether one of the servers said that it, or the model on it, is ready.

        Raises:
            ClientError: none did, and one responded with an error: access denied, say.
        """
        ready, denied = False, None
        for server, answer in answers:
            if isinstance(answer, Failure):
                denied = (server, answer) if answer.denies_readiness else denied
            else:
                server.responded, ready = True, ready or answer
        if denied and not ready:
            server, failure = denied
            raise error_of(failure, query.about, str(server.address), 1, deadline, server.via)
        return ready

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline.after(self._settings.timeout_s if timeout_s is None else timeout_s)

    def _attempts(self, message: Request | Query, deadline: Deadline, tried: set[Server] | None = None) -> Attempts:
        return attempts(message, self.servers, self._settings.retry, self._budget, deadline, tried)

    def _described(self, model: str, version: str, deadline: Deadline) -> Steps[ModelMetadata]:
        if (known := self._known.get(model, version)) is not None:
            return known
        metadata = yield from self._attempts(Query("model_metadata", model, version), deadline)
        try:
            config = yield from self._attempts(Query("model_config", model, version), deadline)
        except (AccessDeniedError, InvalidInputError, ModelNotFoundError):
            config = {}  # a proxy may withhold it: then the batch limit is learned from a rejection
        return self._known.put(model, version, ModelMetadata.of(metadata, config))

    def _validated(
        self, model: str, version: str, inputs: Mapping[str, ArrayLike], deadline: Deadline
    ) -> Steps[tuple[ModelMetadata, Arrays]]:
        """Return what is known of the model, and the arrays to send."""
        metadata = yield from self._described(model, version, deadline)
        try:
            return metadata, metadata.validated(inputs)
        except InvalidInputError:  # unless the model has changed since it was described
            if not self._known.drop_if_old(model, version):
                raise
        metadata = yield from self._described(model, version, deadline)
        return metadata, metadata.validated(inputs)

    def _infer_batch(self, request: Request, metadata: ModelMetadata, deadline: Deadline) -> Steps[Answer]:
        """Return the outputs for all rows, in one request or several."""
        chunks = split(request.inputs, metadata.max_batch_size)
        if len(chunks) == 1:
            return (yield from self._infer_once(request, deadline))
        requests = request.in_chunks(chunks, metadata.max_batch_size)
        answers = yield Together([self._infer_once(chunk, deadline) for chunk in requests])  # each keeps the deadline
        return Answer.of_chunks(answers, [rows_of(chunk) for chunk in chunks])

    def _infer_once(self, request: Request, deadline: Deadline) -> Steps[Answer]:
        with telemetry.span(request.model, request.id) as headers:
            if headers:
                request = request.with_headers(headers)
            try:
                if self._settings.hedge_after_s and request.idempotent:
                    hedged: Answer = yield self._hedge(request, deadline, self._settings.hedge_after_s)
                    return hedged
                answer: Answer = yield from self._attempts(request, deadline)
                return answer
            except (InvalidInputError, ModelNotFoundError):
                self._known.drop_if_old(request.model, request.version)  # it may have changed
                raise

    def _hedge(self, request: Request, deadline: Deadline, after_s: float) -> Hedge:
        tried: set[Server] = set()
        return Hedge(
            lambda: self._attempts(request, deadline, tried),
            after_s,
            lambda: bool(tried) and self._budget.spend(),  # not where it still waits for its turn
        )
