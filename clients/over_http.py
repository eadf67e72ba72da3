"""One server over HTTP, for threads and for asyncio (aiohttp). What fails is a Failure.

tritonclient makes and reads the bodies. Its own HTTP client breaks when threads share it, and has no deadline for a
request as a whole.
"""

import asyncio
import gzip
import json
import time
import zlib
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from clients.failures import Failure, Kind, of_http, too_large
from clients.http_pool import CONNECT_S, Answer, Pool
from clients.request import ADMIN, Question, Request, queue_timeout_us
from clients.settings import Address, Transport, proxy_of
from clients.tensors import Arrays, datatype_of

_PATHS: dict[Question, tuple[str, str]] = {
    "live": ("GET", "/v2/health/live"),
    "ready": ("GET", "/v2/health/ready"),
    "server": ("GET", "/v2"),
    "metadata": ("GET", "/v2{model}"),
    "config": ("GET", "/v2{model}/config"),
    "statistics": ("GET", "/v2{model}/stats"),
    "index": ("POST", "/v2/repository/index"),
    "load": ("POST", "/v2/repository{model}/load"),
    "unload": ("POST", "/v2/repository{model}/unload"),
    "shared": ("GET", "/v2/systemsharedmemory/status"),
}
_LENGTH = "Inference-Header-Content-Length"


class _Messages:
    """What both kinds send, and how they read what comes back."""

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
        )
        if len(body) > self._transport.max_message_bytes:
            raise too_large("the request", self._transport.max_message_bytes)
        headers = {**self._transport.headers, **request.headers}
        if json_length is not None:
            headers[_LENGTH] = str(json_length)
        if compression := self._transport.compression:
            body = gzip.compress(body) if compression == "gzip" else zlib.compress(body)
            headers |= {"content-encoding": compression, "accept-encoding": compression}
        return f"/v2{_model_path(request.model, request.version)}/infer", body, headers

    def _answer(self, request: Request, answer: Answer) -> Arrays:
        status, body, header = answer
        if status != 200:
            raise of_http(status, _reason(body))
        try:
            body = _inflated(body, header("Content-Encoding"), self._transport.max_message_bytes)
            length = header(_LENGTH)
            result = InferenceServerClient.parse_response_body(body, header_length=int(length) if length else None)
            response = result.get_response()
            names = [output["name"] for output in response["outputs"]]
            return request.answered({name: result.as_numpy(name) for name in names}, response.get("id", ""))
        except Failure:
            raise
        except Exception as error:  # of tritonclient, which trusts what it reads
            raise Failure(Kind.BAD_ANSWER, f"it cannot be read: {error!r}") from error

    def _ask_headers(self, question: Question) -> dict[str, str]:
        key = self._transport.admin_key if question in ADMIN else ""
        return {**self._transport.headers, **({"admin-key": key} if key else {})}

    def _ask_message(self, question: Question, model: str, version: str) -> tuple[str, str]:
        method, path = _PATHS[question]
        if question == "ready" and model:
            path = "/v2{model}/ready"
        path_of_model = _model_path(model, version) if model else ""
        if question == "statistics" and not model:
            path_of_model = "/models"
        return method, path.format(model=path_of_model)


class Http(_Messages):
    """For any thread."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport)
        self._pool = Pool(address, self._tls, self._proxy, transport.max_message_bytes)

    def infer(self, request: Request, timeout_s: float) -> Arrays:
        deadline = time.monotonic() + timeout_s
        path, body, headers = self._infer_message(request, deadline)
        return self._answer(request, self._pool.send("POST", path, deadline, body, headers))

    def ask(self, question: Question, timeout_s: float, model: str = "", version: str = "") -> Any:
        method, path = self._ask_message(question, model, version)
        deadline = time.monotonic() + timeout_s
        return _told(question, self._pool.send(method, path, deadline, b"", self._ask_headers(question)))

    def share(self, region: str, key: str, size_bytes: int, timeout_s: float) -> None:
        """Have the server map /dev/shm/`key`, or with no size, unmap it."""
        path = f"/v2/systemsharedmemory/region/{region}/{'register' if size_bytes else 'unregister'}"
        body = json.dumps({"key": key, "offset": 0, "byte_size": size_bytes}).encode() if size_bytes else b""
        deadline = time.monotonic() + timeout_s
        _told("shared", self._pool.send("POST", path, deadline, body, self._ask_headers("shared")))

    def alive(self, timeout_s: float) -> bool:
        """Whether it answers."""
        try:
            return bool(self.ask("live", timeout_s))
        except Failure as failure:
            return failure.is_an_answer

    def reconnect(self) -> None:
        """Nothing: a connection on which a request had no answer is closed with it."""

    def close(self) -> None:
        self._pool.close()


class AsyncHttp(_Messages):
    """For the event loop in which it is made."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport)
        self._proxy_url = self._proxy.geturl() if self._proxy else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            headers={"accept-encoding": "identity"},  # aiohttp would ask for gzip, and Triton would oblige
        )

    async def infer(self, request: Request, timeout_s: float) -> Arrays:
        deadline = time.monotonic() + timeout_s
        path, body, headers = self._infer_message(request, deadline)
        return self._answer(request, await self._send("POST", path, deadline, body, headers))

    async def ask(self, question: Question, timeout_s: float, model: str = "", version: str = "") -> Any:
        method, path = self._ask_message(question, model, version)
        deadline = time.monotonic() + timeout_s
        return _told(question, await self._send(method, path, deadline, b"", self._ask_headers(question)))

    async def alive(self, timeout_s: float) -> bool:
        """Whether it answers."""
        try:
            return bool(await self.ask("live", timeout_s))
        except Failure as failure:
            return failure.is_an_answer

    async def reconnect(self) -> None:
        """As Http's."""

    async def close(self) -> None:
        await self._session.close()

    async def _send(self, method: str, path: str, deadline: float, body: bytes, headers: dict[str, str]) -> Answer:
        try:
            async with (
                asyncio.timeout(deadline - time.monotonic()),
                self._session.request(
                    method,
                    f"{self._address}{path}",
                    data=body,
                    headers=headers,
                    proxy=self._proxy_url,
                    allow_redirects=False,  # to where the headers were not meant for
                ) as response,
            ):
                content = await _content(response, self._transport.max_message_bytes)
                return response.status, content, response.headers.get
        except aiohttp.ConnectionTimeoutError as error:
            raise Failure(Kind.UNREACHABLE, "no connection in time") from error
        except TimeoutError as error:
            raise Failure(Kind.EXPIRED, "no answer in time") from error
        except aiohttp.ClientHttpProxyError as error:
            raise of_http(error.status, f"the proxy says: {error.status} {error.message}") from error
        except aiohttp.ClientResponseError as error:
            raise Failure(Kind.BAD_ANSWER, f"it is no HTTP: {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failure(Kind.UNREACHABLE, str(error) or type(error).__name__) from error


def _model_path(model: str, version: str) -> str:
    return f"/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _input(name: str, array: NDArray[Any], request: Request) -> Any:
    tensor = InferInput(name, list(array.shape), datatype_of(array.dtype))
    if place := request.places.get(name):
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
            raise too_large("the answer", limit_bytes)
    return bytes(content)


def _inflated(body: bytes, encoding: str | None, limit_bytes: int) -> bytes:
    """At most so much of it."""
    if encoding in (None, "identity"):
        return body
    return zlib.decompressobj(wbits=47).decompress(body, limit_bytes)  # 47: gzip or deflate, whichever it is


def _told(question: Question, answer: Answer) -> Any:
    status, body, _ = answer
    if question in ("live", "ready") and status in (200, 400):
        return status == 200
    if status != 200:
        raise of_http(status, _reason(body))
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError) as error:
        raise Failure(Kind.BAD_ANSWER, f"it is no JSON: {error}") from error


def _reason(body: bytes) -> str:
    """Triton's, or the first line of whatever stands between."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return str(json.loads(body)["error"])
    return body.decode(errors="replace").strip().partition("\n")[0][:200]


def _proxy(address: Address, transport: Transport) -> SplitResult | None:
    found = transport.proxy
    if not found and not proxy_bypass(address.netloc):
        found = getproxies().get("https" if address.tls else "http")
    return proxy_of(found) if found else None
