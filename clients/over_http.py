"""One server over HTTP, for threads and for asyncio (aiohttp). Both raise a Failure where there is no response.

tritonclient writes and reads the bodies. Its HTTP client is not used: threads may not share it (its documentation says
so), and it has no deadline for a request as a whole.
"""

import asyncio
import gzip
import json
import re
import time
import zlib
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from clients.failures import Failure, Kind, caller_is_cancelled, connection_closed, failure_of, message_too_large
from clients.http_pool import Pool, Response
from clients.request import SEQUENCE, Endpoint, Query, Request, queue_timeout_us
from clients.settings import CONNECT_S, Address, Transport, proxy_of
from clients.tensors import Arrays, datatype_of, numpy_type

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


class _Messages:
    """What the two kinds send, and how they read what comes back."""

    def __init__(self, address: Address, transport: Transport) -> None:
        self._address, self._transport = address, transport
        self._proxy = _proxy(address, transport)
        self._tls = transport.tls.context() if address.tls else None

    def _infer_message(self, request: Request, deadline: float) -> tuple[str, bytes, dict[str, str]]:
        inputs = [_input(name, array, request) for name, array in request.inputs.items()]
        body, json_length = InferenceServerClient.generate_request_body(
            inputs,
            outputs=[InferRequestedOutput(name) for name in request.outputs],
            request_id=request.id,
            priority=request.priority,
            timeout=queue_timeout_us(deadline - time.monotonic()),
            **_parameters(request),
        )
        if len(body) > self._transport.max_message_bytes:
            raise message_too_large("the request", self._transport.max_message_bytes)
        headers = {**self._transport.headers, **request.headers}
        if json_length is not None:
            headers[_LENGTH] = str(json_length)
        if compression := self._transport.compression:
            body = gzip.compress(body) if compression == "gzip" else zlib.compress(body)
            headers |= {"content-encoding": compression, "accept-encoding": compression}
        return f"/v2{_model_path(request.model, request.version)}/infer", body, headers

    def _outputs(self, request: Request, response: Response) -> Arrays:
        response = self._decoded(response)
        if response.status != 200:
            raise failure_of(response.status, _reason(response))
        try:
            result = InferResult(_Body(response), verbose=False)
            described = result.get_response()
            for output in described["outputs"]:
                numpy_type(output["datatype"])  # of an unknown one tritonclient would make FP64
            arrays = {output["name"]: result.as_numpy(output["name"]) for output in described["outputs"]}
            return request.verified(arrays, described.get("id", ""))
        except Failure:
            raise
        except Exception as error:  # of tritonclient, which trusts what it reads
            raise Failure(Kind.INVALID_RESPONSE, f"it cannot be read: {error!r}") from error

    def _result(self, query: Query, response: Response) -> Any:
        return _as_json(query, self._decoded(response))

    def _decoded(self, response: Response) -> Response:
        """Of one that is compressed, what was; a proxy may compress what nobody asked it to."""
        encoding = response.header("Content-Encoding") or "identity"
        if not response.body or encoding.lower() == "identity":
            return response
        try:
            return replace(response, body=_inflated(response.body, self._transport.max_message_bytes))
        except Failure:
            if response.status == 200:
                raise
            return replace(response, body=b"")  # the status tells most

    def _query_message(self, query: Query) -> tuple[str, str, bytes, dict[str, str]]:
        method, path, _, _ = _ENDPOINTS[query.endpoint]
        model = _model_path(query.model, query.version) if query.model else ""
        if query.endpoint == "ready" and model:
            path = "/v2{model}/ready"
        if query.endpoint == "statistics" and not model:
            model = "/models"
        headers = dict(self._transport.headers)
        if query.is_admin and (key := self._transport.admin_key):
            headers[self._transport.admin_header] = key
        body = b""
        if query.endpoint == "register_shared_memory":
            body = json.dumps({"key": query.key, "offset": 0, "byte_size": query.size_bytes}).encode()
        elif query.parameters:
            body = json.dumps({"parameters": dict(query.parameters)}).encode()
        return method, path.format(model=model, region=quote(query.region, safe="")), body, headers


class Http(_Messages):
    """For threads, which may share it."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport)
        self._pool = Pool(address, self._tls, self._proxy, transport.max_message_bytes)

    def infer(self, request: Request, timeout_s: float) -> Arrays:
        deadline = time.monotonic() + timeout_s
        path, body, headers = self._infer_message(request, deadline)
        return self._outputs(request, self._pool.send("POST", path, deadline, body, headers))

    def query(self, query: Query, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        method, path, body, headers = self._query_message(query)
        return self._result(query, self._pool.send(method, path, deadline, body, headers))

    def reconnect(self) -> None:
        """Use new connections from now on: idle ones may be dead, and would be tried one after the other."""
        self._pool.drop_idle()

    def close(self) -> None:
        self._pool.close()


class AsyncHttp(_Messages):
    """For the event loop in which it is made."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport)
        self._root, self._proxy_url = str(address), self._proxy.geturl() if self._proxy else None
        self._session, self._busy_until = self._new_session(), 0.0
        self._retired: list[tuple[float, aiohttp.ClientSession]] = []  # and until when a request may be on them

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            headers={"accept-encoding": "identity"},  # aiohttp would ask for gzip, and Triton would oblige
        )

    async def infer(self, request: Request, timeout_s: float) -> Arrays:
        deadline = time.monotonic() + timeout_s
        path, body, headers = self._infer_message(request, deadline)
        self._busy_until = max(self._busy_until, deadline)
        return self._outputs(request, await self._send("POST", path, deadline, body, headers))

    async def query(self, query: Query, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        method, path, body, headers = self._query_message(query)
        if query.endpoint != "live":  # nobody waits for a probe on a session that was replaced
            self._busy_until = max(self._busy_until, deadline)
        return self._result(query, await self._send(method, path, deadline, body, headers))

    async def reconnect(self) -> None:
        """As Http's."""
        now = time.monotonic()
        retired = [*self._retired, (self._busy_until, self._session)]
        self._session, self._busy_until = self._new_session(), 0.0
        self._retired = [(until, session) for until, session in retired if until > now]
        for session in (session for until, session in retired if until <= now):
            await session.close()

    async def close(self) -> None:
        for session in (self._session, *(session for _, session in self._retired)):
            await session.close()

    async def _send(self, method: str, path: str, deadline: float, body: bytes, headers: dict[str, str]) -> Response:
        try:
            async with (
                asyncio.timeout(deadline - time.monotonic()),
                self._session.request(
                    method,
                    self._root + path,
                    data=body,
                    headers=headers,
                    proxy=self._proxy_url,
                    allow_redirects=False,  # the headers, keys among them, are for this server
                ) as response,
            ):
                content = await _content(response, self._transport.max_message_bytes)
                return Response(response.status, content, response.headers.get)
        except aiohttp.ConnectionTimeoutError as error:
            raise Failure(Kind.UNAVAILABLE, "no connection in time") from error
        except TimeoutError as error:
            raise Failure(Kind.DEADLINE_EXCEEDED, "no response in time") from error
        except aiohttp.ClientHttpProxyError as error:
            raise failure_of(error.status, f"the proxy says: {error.status} {error.message}") from error
        except aiohttp.ClientResponseError as error:
            raise Failure(Kind.INVALID_RESPONSE, f"it is not HTTP: {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failure(Kind.UNAVAILABLE, str(error) or type(error).__name__) from error
        except asyncio.CancelledError:
            if caller_is_cancelled():
                raise
            raise connection_closed() from None


@lru_cache(256)
def _model_path(model: str, version: str) -> str:
    return f"/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _parameters(request: Request) -> dict[str, Any]:
    """As generate_request_body wants them: those of a sequence apart."""
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


async def _content(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    if response.content_length is not None and response.content_length <= limit_bytes:
        return await response.read()
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > limit_bytes:
            raise message_too_large("the response", limit_bytes)
    return bytes(content)


class _Body:
    """A response as InferResult reads it; its from_response_body would make a class anew for each."""

    def __init__(self, response: Response) -> None:
        self._json_length, self._rest = response.header(_LENGTH) or None, response.body

    def get(self, header: str) -> str | None:
        return self._json_length if header == _LENGTH else None

    def read(self, length: int | None = None) -> bytes:
        found, self._rest = self._rest[:length], self._rest[length:] if length is not None else b""
        return found


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


def _as_json(query: Query, response: Response) -> Any:
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


def _error(body: bytes) -> str | None:
    """Triton's."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return str(json.loads(body)["error"])
    return None


def _reason(response: Response) -> str:
    """Triton's, or what tells most of what a proxy says."""
    if (error := _error(response.body)) is not None:
        return error
    if response.status in range(300, 400) and (to := response.header("Location")):
        return f"HTTP status {response.status}, moved to {to}"
    text = response.body[:4096].decode(errors="replace").strip()
    if text.startswith("<"):  # a page
        title = _TITLE.search(text)
        text = f"HTTP status {response.status}: {title[1].strip()}" if title else ""
    return text.partition("\n")[0][:200]


def _proxy(address: Address, transport: Transport) -> SplitResult | None:
    found = transport.proxy
    if not found and not proxy_bypass(address.netloc):
        found = getproxies().get("https" if address.tls else "http")
    return proxy_of(found) if found else None
