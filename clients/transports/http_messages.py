"""What is sent over HTTP, and how responses are read. Nothing here does I/O.

tritonclient writes and reads the bodies. Its HTTP client is not used: threads may not share it (its documentation says
so), and it has no deadline for a request as a whole.
"""

import gzip
import json
import re
import time
import zlib
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from clients.core.answer import Answer
from clients.core.failures import Failure, Kind, failure_of, message_too_large
from clients.core.request import SEQUENCE, Endpoint, Query, Request, queue_timeout_us
from clients.core.tensors import datatype_of, numpy_type
from clients.settings import TransportOptions
from clients.transports.http_pool import Response

# Method, path, and of the response the field that matters (none: all of it) and its type.
_ENDPOINTS: dict[Endpoint, tuple[str, str, str, type]] = {
    "live": ("GET", "/v2/health/live", "", object),
    "ready": ("GET", "/v2/health/ready", "", object),  # of a model: /v2/models/…/ready
    "server_metadata": ("GET", "/v2", "", dict),
    "model_metadata": ("GET", "/v2{model}", "", dict),
    "model_config": ("GET", "/v2{model}/config", "", dict),
    "statistics": ("GET", "/v2{model}/stats", "model_stats", list),
    "repository_index": ("POST", "/v2/repository/index", "", list),
    "load_model": ("POST", "/v2/repository{model}/load", "", object),
    "unload_model": ("POST", "/v2/repository{model}/unload", "", object),
    "shared_memory_status": ("GET", "/v2/systemsharedmemory/status", "", list),
    "register_shared_memory": ("POST", "/v2/systemsharedmemory/region/{region}/register", "", object),
    "unregister_shared_memory": ("POST", "/v2/systemsharedmemory/region/{region}/unregister", "", object),
}
_TITLE = re.compile(r"<title>([^<]*)", re.IGNORECASE)
_LENGTH = "Inference-Header-Content-Length"
_PATIENCE = "request-timeout-ms"


class Message(NamedTuple):
    """A request as HTTP has it."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


def infer_message(request: Request, deadline: float, options: TransportOptions) -> Message:
    """Write an inference request down.

    Args:
        deadline: On the monotonic clock; the server is told how long the request may wait.

    Raises:
        Failure: it is larger than it may be.
    """
    inputs = [_input(name, array, request) for name, array in request.inputs.items()]
    body, json_length = InferenceServerClient.generate_request_body(
        inputs,
        outputs=[InferRequestedOutput(name) for name in request.outputs],
        request_id=request.id,
        priority=request.priority,
        timeout=queue_timeout_us(deadline - time.monotonic()),
        **_parameters(request),
    )
    if len(body) > options.max_message_bytes:
        raise message_too_large("the request", options.max_message_bytes)
    patience_ms = max(1, int((deadline - time.monotonic()) * 1e3))  # what a gateway in front of Triton waits at most
    headers = {_PATIENCE: str(patience_ms), **options.headers, **request.headers}
    if json_length is not None:
        headers[_LENGTH] = str(json_length)
    if compression := options.compression:
        body = gzip.compress(body) if compression == "gzip" else zlib.compress(body)
        headers |= {"content-encoding": compression, "accept-encoding": compression}
    return Message("POST", f"/v2{_model_path(request.model, request.version)}/infer", body, headers)


def query_message(query: Query, options: TransportOptions) -> Message:
    """Write a query down."""
    method, path, _, _ = _ENDPOINTS[query.endpoint]
    model = _model_path(query.model, query.version) if query.model else ""
    if query.endpoint == "ready" and model:
        path = "/v2{model}/ready"
    if query.endpoint == "statistics" and not model:
        model = "/models"
    headers = dict(options.headers)
    if query.is_admin and (key := options.admin_key):
        headers[options.admin_header] = key
    body = b""
    if query.endpoint == "register_shared_memory":
        body = json.dumps({"key": query.key, "offset": 0, "byte_size": query.size_bytes}).encode()
    elif query.parameters:
        body = json.dumps({"parameters": dict(query.parameters)}).encode()
    return Message(method, path.format(model=model, region=quote(query.region, safe="")), body, headers)


def answer_of(request: Request, response: Response, options: TransportOptions) -> Answer:
    """Read the outputs of a response to this request, and who gave it.

    Raises:
        Failure: it is none, or cannot be read.
    """
    response = _decoded(response, options.max_message_bytes)
    if response.status != 200:
        raise failure_of(response.status, _reason(response))
    try:
        result = InferResult(_Body(response), verbose=False)
        described = result.get_response()
        for output in described["outputs"]:
            numpy_type(output["datatype"])  # of an unknown one tritonclient would make FP64
        arrays = {output["name"]: result.as_numpy(output["name"]) for output in described["outputs"]}
        answer = Answer.said(arrays, described.get("model_name"), described.get("model_version"))
        return request.verified(answer, described.get("id", ""))
    except Failure:
        raise
    except Exception as error:  # of tritonclient, which trusts what it reads
        raise Failure(Kind.INVALID_RESPONSE, f"it cannot be read: {error!r}") from error


def json_of(query: Query, response: Response, options: TransportOptions) -> Any:
    """Read the JSON of a response to this query; of health, whether it is.

    Raises:
        Failure: it is none, or cannot be read.
    """
    response = _decoded(response, options.max_message_bytes)
    if query.endpoint in ("live", "ready"):
        if response.status == 200:
            return True
        # Triton says why with a model only: what else there is, is a proxy's, which expects TLS, say.
        if response.status == 400 and (not response.body or (query.model and _error(response.body) is not None)):
            return False
    if response.status != 200:
        raise failure_of(response.status, _reason(response))
    try:
        whole: Any = json.loads(response.body) if response.body else None
        _, _, field, kind = _ENDPOINTS[query.endpoint]
        found = whole[field] if field else whole
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Failure(Kind.INVALID_RESPONSE, f"it is not the JSON that was expected: {error!r}") from error
    if not isinstance(found, kind):
        raise Failure(Kind.INVALID_RESPONSE, f"it is not the JSON that was expected: {found!r:.200}")
    return found


def _decoded(response: Response, limit_bytes: int) -> Response:
    """Inflate one that is compressed; a proxy may compress what nobody asked it to."""
    encoding = response.header("Content-Encoding") or "identity"
    if not response.body or encoding.lower() == "identity":
        return response
    try:
        return replace(response, body=_inflated(response.body, limit_bytes))
    except Failure:
        if response.status == 200:
            raise
        return replace(response, body=b"")  # the status tells most


def _inflated(body: bytes, limit_bytes: int) -> bytes:
    content, rest = b"", body
    while rest:  # gzip may have several members
        inflating = zlib.decompressobj(wbits=47)  # gzip or deflate, whichever it is
        try:
            content += inflating.decompress(rest, limit_bytes + 1 - len(content))
        except zlib.error as error:
            raise Failure(Kind.INVALID_RESPONSE, f"it cannot be inflated: {error}") from error
        if len(content) > limit_bytes:
            raise message_too_large("the response", limit_bytes)
        if not inflating.eof:
            raise Failure(Kind.INVALID_RESPONSE, "its end is missing")
        rest = inflating.unused_data
    return content


@lru_cache(256)
def _model_path(model: str, version: str) -> str:
    return f"/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _parameters(request: Request) -> dict[str, Any]:
    """Return them as generate_request_body wants them: those of a sequence apart."""
    if not request.parameters:
        return {}
    of_sequence = {name: request.parameters[name] for name in SEQUENCE if name in request.parameters}
    others = {name: value for name, value in request.parameters.items() if name not in of_sequence}
    return {**of_sequence, "parameters": others}


def _input(name: str, array: NDArray[Any], request: Request) -> Any:
    tensor = InferInput(name, list(array.shape), datatype_of(array.dtype))
    if place := request.shared.get(name):
        tensor.set_shared_memory(place.region, place.size_bytes, place.offset)
    else:
        tensor.set_data_from_numpy(array)
    return tensor


class _Body:
    """A response as InferResult reads it; its from_response_body would make a class anew for each."""

    def __init__(self, response: Response) -> None:
        self._json_length, self._rest = response.header(_LENGTH) or None, response.body

    def get(self, header: str) -> str | None:
        return self._json_length if header == _LENGTH else None

    def read(self, length: int | None = None) -> bytes:
        found, self._rest = self._rest[:length], self._rest[length:] if length is not None else b""
        return found


def _error(body: bytes) -> str | None:
    """Read Triton's error, if it is one."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return str(json.loads(body)["error"])
    return None


def _reason(response: Response) -> str:
    """Read Triton's error, or what tells most of what a proxy says."""
    if (error := _error(response.body)) is not None:
        return error
    if response.status in range(300, 400) and (to := response.header("Location")):
        return f"HTTP status {response.status}, moved to {to}"
    text = response.body[:4096].decode(errors="replace").strip()
    if text.startswith("<"):  # a page
        title = _TITLE.search(text)
        text = f"HTTP status {response.status}: {title[1].strip()}" if title else ""
    return text.partition("\n")[0][:200]
