"""Triton's KServe API over HTTP, of a server that listens on a port or on a Unix socket.

tritonclient speaks to hosts and ports alone, and its event loop belongs to one thread.
"""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from contracts.samples import Batch
from deploy.neighbours.direct import UnixConnection

_HEADER_LENGTH = "Inference-Header-Content-Length"  # where a body's JSON ends and its tensors begin


@dataclass(frozen=True)
class Reply:
    """What a server sent back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> str | None:
        """Why it refused; None if it did not."""
        if self.status < 400:
            return None
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return f"HTTP status {self.status}"


@dataclass(frozen=True)
class Answer:
    """A model's answer to an inference request."""

    version: str  # of the model, as the server says
    outputs: Batch


@dataclass(frozen=True)
class Refusal:
    """That a server did not answer an inference request, and why."""

    status: int  # of HTTP
    reason: str

    @property
    def busy(self) -> bool:
        """Whether the same request may be answered a moment later: a queue is full, or it waited too long in one."""
        return self.status == http.client.SERVICE_UNAVAILABLE


def call(
    address: Path | str,
    method: str,
    url: str,
    timeout_s: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Send a request to the server that listens on `address`: a socket's path, or "host:port".

    Raises:
        OSError, http.client.HTTPException: there is none, or it is gone before its reply.
    """
    if isinstance(address, Path):
        connection: http.client.HTTPConnection = UnixConnection(address, timeout_s)
    else:
        connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request(method, url, body, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def infer(address: Path | str, model: str, inputs: Batch, timeout_s: float) -> Answer | Refusal:
    """Send an inference request.

    Raises:
        OSError, http.client.HTTPException: as `call`.
    """
    tensors = [_tensor(name, values) for name, values in inputs.items()]
    body, length = InferenceServerClient.generate_request_body(tensors)
    headers = {} if length is None else {_HEADER_LENGTH: str(length)}
    reply = call(address, "POST", f"/v2/models/{model}/infer", timeout_s, body, headers)
    if reply.error is not None:
        return Refusal(reply.status, reply.error)
    given = next((value for name, value in reply.headers.items() if name.lower() == _HEADER_LENGTH.lower()), None)
    result = InferenceServerClient.parse_response_body(reply.body, header_length=int(given) if given else None)
    response: dict[str, Any] = result.get_response()
    outputs = {output["name"]: result.as_numpy(output["name"]) for output in response["outputs"]}
    return Answer(str(response["model_version"]), outputs)


def _tensor(name: str, values: Any) -> InferInput:
    tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(values)
    return tensor
