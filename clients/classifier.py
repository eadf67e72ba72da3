"""Classify encoded images with an ensemble of the model repository."""

import collections
import importlib
import itertools
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from tritonclient.utils import InferenceServerException

from clients.errors import ClientError, InferenceError, InvalidInputError, ServerUnavailableError

Protocol = Literal["grpc", "http"]
PORTS: dict[Protocol, int] = {"grpc": 8001, "http": 8000}

_OUTPUTS = ("top_labels", "top_scores")


@dataclass(frozen=True)
class Prediction:
    """The best label of an image, and the best few with their probabilities, best first."""

    label: str
    score: float  # probability, 0…1
    top: tuple[tuple[str, float], ...]


class Classifier:
    """A connection to one ensemble; safe to share between threads. A context manager.

    Args:
        address: host:port of the server's gRPC or HTTP endpoint; the protocol's usual port by default.
        protocol: gRPC, or HTTP where only that gets through.
        model: The ensemble's name.
        timeout_s: For one request, from sending it to its answer.
        concurrency: Requests that `classify_many` keeps under way; the server makes batches of them.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        protocol: Protocol = "grpc",
        model: str = "fashion",
        timeout_s: float = 10.0,
        concurrency: int = 32,
    ) -> None:
        self.address = address or f"127.0.0.1:{PORTS[protocol]}"
        self.protocol, self.model, self.timeout_s, self.concurrency = protocol, model, timeout_s, concurrency
        self._triton: Any = importlib.import_module(f"tritonclient.{protocol}")
        # A connection a thread: tritonclient's HTTP client must not be shared.
        self._local = threading.local()
        self._connections: list[Any] = []
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="classify")

    def classify(self, image: bytes) -> Prediction:
        """Classify one PNG or JPEG.

        Raises:
            ServerUnavailableError: nobody answers, or not in time.
            InvalidInputError: it is empty, damaged or not an image.
            InferenceError: the server failed, or does not serve the model.
        """
        if not image:
            raise InvalidInputError("the image is empty (0 bytes)")
        request = self._triton.InferInput("image", [1, 1], "BYTES")
        request.set_data_from_numpy(np.array([[image]], dtype=np.object_))
        outputs = [self._triton.InferRequestedOutput(name) for name in _OUTPUTS]
        try:
            result = self._connection().infer(self.model, [request], outputs=outputs, **self._deadline())
        except (InferenceServerException, OSError, HTTPException) as error:
            raise self._translate(error) from error
        labels, scores = (result.as_numpy(name)[0] for name in _OUTPUTS)
        top = tuple((label.decode(), float(score)) for label, score in zip(labels, scores, strict=True))
        return Prediction(*top[0], top)

    def classify_many(self, images: Iterable[bytes]) -> Iterator[Prediction | ClientError]:
        """Classify images concurrently; answers in the order of the images, an error in place of a prediction.

        Reads ahead only as far as requests are under way, so `images` may be larger than memory.
        """
        source = iter(images)
        under_way: collections.deque[Future[Prediction | ClientError]] = collections.deque()
        under_way.extend(self._pool.submit(self._outcome, i) for i in itertools.islice(source, 2 * self.concurrency))
        while under_way:
            outcome = under_way.popleft().result()
            under_way.extend(self._pool.submit(self._outcome, i) for i in itertools.islice(source, 1))
            yield outcome

    def close(self) -> None:
        """Wait for requests under way and close the connections."""
        self._pool.shutdown(cancel_futures=True)
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _outcome(self, image: bytes) -> Prediction | ClientError:
        try:
            return self.classify(image)
        except ClientError as error:
            return error

    def _connection(self) -> Any:
        if not hasattr(self._local, "connection"):
            options = (
                {"network_timeout": self.timeout_s, "connection_timeout": self.timeout_s}
                if self.protocol == "http"
                else {}
            )
            self._local.connection = self._triton.InferenceServerClient(self.address, **options)
            self._connections.append(self._local.connection)
        return self._local.connection

    def _deadline(self) -> dict[str, float]:
        return {"client_timeout": self.timeout_s} if self.protocol == "grpc" else {}

    def _translate(self, error: InferenceServerException | OSError | HTTPException) -> ClientError:
        status = str(error.status()) if isinstance(error, InferenceServerException) else ""
        message = error.message() if isinstance(error, InferenceServerException) else str(error)
        if status in ("StatusCode.INVALID_ARGUMENT", "400"):
            if "unknown model" in message:
                return self._no_such_model(message)
            return InvalidInputError(message)
        if status in ("StatusCode.NOT_FOUND", "404"):
            return self._no_such_model(message)
        if status in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", ""):
            return ServerUnavailableError(
                f"no answer from {self.protocol}://{self.address} within {self.timeout_s:g} s",
                note=message.strip() or type(error).__name__,
                hint="is the server up? python -m deploy status",
            )
        return InferenceError(f"{self.model} failed on {self.address}", note=f"{status}: {message}")

    def _no_such_model(self, message: str) -> InferenceError:
        return InferenceError(
            f"{self.address} does not serve the model {self.model!r}",
            note=message,
            hint="see what it serves: python -m deploy status",
        )
