"""Callers in a hurry: their deadline is shorter than a restart. What they are told, and when."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Any, Self

from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from benchmarks.gateway.started import Gateway
from contracts.golden import GoldenRequest
from deploy.triton.payload import Payload

TIMEOUT_S = 1.0
_PAUSE_S = 0.05
_LATE_S = 0.5  # past its deadline, on a machine that is busy with a restart


@dataclass(frozen=True)
class Told:
    """What a request was told.

    Attributes:
        status: Of HTTP; 0: nothing.
        retry_after: The header's value.
        after_s: How long it took.
    """

    status: int
    retry_after: str | None
    after_s: float

    @property
    def fault(self) -> str | None:
        """Say what is wrong with it: neither an answer nor a 503 that says when to come back, or too late."""
        if self.after_s > TIMEOUT_S + _LATE_S:
            return f"told after {self.after_s:.1f} s, with a deadline of {TIMEOUT_S:g} s"
        if self.status == 200 or (self.status == 503 and self.retry_after):
            return None
        return f"status {self.status}" if self.status else "no answer at all"


class Hurried:
    """A loop of requests with a short deadline through the gateway, for as long as the block runs."""

    def __init__(self, gateway: Gateway, sends: Payload) -> None:
        self._gateway, self._model, self._requests = gateway, sends.model, sends.requests
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="hurried")
        self.told: list[Told] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def statuses(self) -> dict[str, int]:
        """How many were told what: {status: requests}."""
        return {str(status): number for status, number in sorted(Counter(told.status for told in self.told).items())}

    @property
    def findings(self) -> list[str]:
        """What does not hold, in a line each."""
        faults = Counter(fault for told in self.told if (fault := told.fault))
        found = [f"{number} callers in a hurry: {fault}" for fault, number in faults.items()]
        return found if self.statuses.get("503") else [*found, "no caller in a hurry met a server that was gone"]

    def _ask(self) -> None:
        messages = [_message(request) for request in self._requests]
        turn = 0
        while not self._stop.wait(_PAUSE_S):
            body, json_length = messages[turn % len(messages)]
            turn += 1
            self.told.append(self._one(body, json_length))

    def _one(self, body: bytes, json_length: int) -> Told:
        headers = {
            "Authorization": self._gateway.authorization,
            "Request-Timeout-Ms": str(int(TIMEOUT_S * 1e3)),
            "Inference-Header-Content-Length": str(json_length),
        }
        began = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self._gateway.port, timeout=10 * TIMEOUT_S)
        try:
            connection.request("POST", f"/v2/models/{self._model}/infer", body, headers)
            response = connection.getresponse()
            response.read()
            return Told(response.status, response.headers["Retry-After"], time.monotonic() - began)
        except (OSError, HTTPException):
            return Told(0, None, time.monotonic() - began)
        finally:
            connection.close()


def _message(request: GoldenRequest) -> tuple[bytes, int]:
    """Write a request as the Open Inference Protocol has it: its body, and the length of the JSON in it."""
    inputs: list[Any] = []
    for name, values in request.inputs.items():
        tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    body, json_length = InferenceServerClient.generate_request_body(inputs)
    return body, len(body) if json_length is None else json_length


def longest_s(told: Sequence[Told]) -> float:
    """Return how long the slowest was left waiting."""
    return max((each.after_s for each in told), default=0.0)
