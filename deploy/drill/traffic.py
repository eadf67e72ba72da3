"""Background traffic for the drill: a closed loop on every connection, the protocols in turn, no retries.

An answer is right only if it is the reference's, where that is known, and what the idle server gave to the same
request: connections with requests of their own show a batch whose rows were mixed up, too.
"""

import importlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import Any, Self

from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from contracts.errors import ProjectError
from contracts.golden import GoldenRequest
from deploy.errors import DrillError
from deploy.neighbours import direct
from deploy.triton import payload
from deploy.triton.payload import Tensors

_FAILED = (OSError, HTTPException, InferenceServerException, ProjectError)
_TIMEOUT_S = 10.0
_PAUSE_S = 0.02  # after a failure: a dead server refuses thousands of requests a second
# gRPC's default is to try a dead server again after 1 s, then ever later: that would be the client's outage.
_RECONNECT = [*direct.GRPC_OPTIONS, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]

Send = Callable[[str, Tensors], Tensors]  # model and inputs -> outputs
Connect = Callable[[str, str], AbstractContextManager[Send]]  # protocol and host:port


@dataclass(frozen=True)
class SentRequest:
    """One request that was sent; times in seconds since the traffic began."""

    connection: int
    protocol: str
    start_s: float
    end_s: float
    error: str  # "": the right answer

    @property
    def latency_s(self) -> float:
        return self.end_s - self.start_s


class Traffic:
    """A closed loop of requests for `model` on every connection, for as long as the block runs.

    Args:
        addresses: {"http" or "grpc": host:port}, of the server or of what is in front of it.
        requests: Dealt out to the connections, each of which sends its own in turn; too few are shared.
        connect: Makes a connection, in the thread that uses it.

    Raises:
        DrillError: on entering; the idle server does not answer one of them, or wrong.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        model: str,
        requests: Sequence[GoldenRequest],
        connections: int,
        connect: Connect,
    ) -> None:
        self._addresses, self._connect = addresses, connect
        self._model, self._requests = model, requests
        self._dealt = [
            range(number, len(requests), connections) or range(number % len(requests), len(requests), len(requests))
            for number in range(connections)
        ]
        self._sent: list[list[SentRequest]] = [[] for _ in range(connections)]  # by connection
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(connections)]

    def __enter__(self) -> Self:
        try:
            with self._connect("http", self._addresses["http"]) as send:
                self._answers = [send(self._model, request.inputs) for request in self._requests]
        except _FAILED as error:
            raise DrillError(f"{self._model} does not answer what the drill sends", note=str(error)) from error
        for request, answer in zip(self._requests, self._answers, strict=True):
            if told := request.fault(answer):
                raise DrillError(
                    f"{self._model} answers a golden request wrong before anything is done to it", note=told
                )
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def now_s(self) -> float:
        """Return the seconds since the traffic began."""
        return time.monotonic() - self._began

    def sent(self) -> list[SentRequest]:
        """Return the requests that have ended so far, in the order they did."""
        return sorted((r for own in self._sent for r in own.copy()), key=lambda request: request.end_s)

    def count(self) -> int:
        """Return how many requests have ended so far."""
        return sum(map(len, self._sent))

    def answered_since(self, moment_s: float) -> bool:
        """Tell whether the last request of every connection began after that, and was answered right."""
        return all(own and own[-1].start_s > moment_s and not own[-1].error for own in self._sent)

    def last_error(self) -> str:
        """Say what the last request was told that failed; nothing if none did."""
        return next((request.error for request in reversed(self.sent()) if request.error), "")

    def _send(self, connection: int) -> None:
        protocol = [*self._addresses][connection % len(self._addresses)]
        turn = itertools.cycle([(self._requests[index], self._answers[index]) for index in self._dealt[connection]])
        with self._connect(
            protocol, self._addresses[protocol]
        ) as send:  # tritonclient's HTTP must not leave its thread
            while not self._stop.is_set():
                (request, right), start_s = next(turn), self.now_s()
                try:
                    error = payload.fault(request, send(self._model, request.inputs), right) or ""
                except _FAILED as failure:
                    error = str(failure) or type(failure).__name__
                self._sent[connection].append(SentRequest(connection, protocol, start_s, self.now_s(), error))
                if error:
                    self._stop.wait(_PAUSE_S)


@contextmanager
def tritonclient_connection(protocol: str, address: str) -> Iterator[Send]:
    """Open a connection of tritonclient's, without retries: every failure shows."""
    triton = importlib.import_module(f"tritonclient.{protocol}")
    options: dict[str, dict[str, Any]] = {
        "http": {"network_timeout": _TIMEOUT_S},
        "grpc": {"channel_args": _RECONNECT},
    }
    with triton.InferenceServerClient(address, **options[protocol]) as client:
        yield lambda model, inputs: _infer(client, protocol, model, inputs)


def _infer(client: Any, protocol: str, model: str, tensors: Tensors) -> Tensors:
    triton = importlib.import_module(f"tritonclient.{protocol}")
    inputs = []
    for name, values in tensors.items():
        tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    deadline = {"client_timeout": _TIMEOUT_S} if protocol == "grpc" else {}
    result = client.infer(model, inputs, **deadline)
    response = result.get_response()
    names = [o["name"] for o in response["outputs"]] if protocol == "http" else [o.name for o in response.outputs]
    return {name: result.as_numpy(name) for name in names}
