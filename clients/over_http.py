"""One server over HTTP, for threads (urllib3) and for asyncio (aiohttp). What fails is a Failure.

tritonclient makes and reads the bodies. Its own HTTP client breaks when threads share it, and has no deadline for a
request as a whole.
"""

import asyncio
import gzip
import json
import math
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
import urllib3
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from clients.failures import Failure, Kind, of_http
from clients.request import Question, Request, placed, queue_timeout_us
from clients.settings import Address, Transport
from clients.tensors import Arrays

_CONNECT_S = 2.0
_CONNECTIONS = 128  # kept open
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
_UNREADABLE = (
    *(ValueError, KeyError, IndexError, TypeError, EOFError, struct.error),
    *(zlib.error, gzip.BadGzipFile, InferenceServerException),
)


class _Messages:
    """What both kinds send, and how they read what comes back."""

    def __init__(self, address: Address, transport: Transport) -> None:
        self._root, self._transport = str(address), transport
        self._proxy = transport.proxy or _proxy_of_the_environment(address)
        self._tls = transport.tls.context() if address.tls else None

    def _infer_message(self, request: Request, timeout_s: float) -> tuple[str, bytes, dict[str, str]]:
        body, json_length = InferenceServerClient.generate_request_body(
            [_input(name, array, request) for name, array in request.inputs.items()],
            outputs=[InferRequestedOutput(name) for name in request.outputs],
            request_id=request.id,
            priority=request.priority,
            timeout=queue_timeout_us(timeout_s),
        )
        if len(body) > self._transport.max_message_bytes:
            raise Failure(Kind.INVALID, f"{len(body):,} bytes are more than {self._transport.max_message_bytes:,}")
        headers = {**self._transport.headers, **request.headers}
        if json_length is not None:
            headers[_LENGTH] = str(json_length)
        if compression := self._transport.compression:
            body = gzip.compress(body) if compression == "gzip" else zlib.compress(body)
            headers |= {"Content-Encoding": compression, "Accept-Encoding": compression}
        version = f"/versions/{request.version}" if request.version else ""
        return f"{self._root}/v2{_model_path(request.model)}{version}/infer", body, headers

    def _ask_headers(self) -> dict[str, str]:
        transport = self._transport
        return {**transport.headers, **({"admin-key": transport.admin_key} if transport.admin_key else {})}

    def _ask_message(self, question: Question, model: str, version: str) -> tuple[str, str]:
        method, path = _PATHS[question]
        if question == "ready" and model:
            path = "/v2{model}/ready"
        path_of_model = _model_path(model) + (f"/versions/{version}" if version else "") if model else ""
        if question == "statistics" and not model:
            path_of_model = "/models"
        return method, self._root + path.format(model=path_of_model)


class Http(_Messages):
    """For any thread."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport)
        options: dict[str, Any] = {"maxsize": _CONNECTIONS, "retries": False, "ssl_context": self._tls}
        self._pool = urllib3.ProxyManager(self._proxy, **options) if self._proxy else urllib3.PoolManager(**options)
        self._pool.pool_classes_by_scheme = {"http": _Pool, "https": urllib3.HTTPSConnectionPool}
        if self._tls:
            self._tls.sslsocket_class = _TlsSocket

    def infer(self, request: Request, timeout_s: float) -> Arrays:
        deadline = time.monotonic() + timeout_s
        url, body, headers = self._infer_message(request, timeout_s)
        return _answer(request, *self._send("POST", url, deadline, body, headers))

    def ask(self, question: Question, timeout_s: float, model: str = "", version: str = "") -> Any:
        method, url = self._ask_message(question, model, version)
        return _told(question, *self._send(method, url, time.monotonic() + timeout_s, b"", self._ask_headers()))

    def share(self, region: str, key: str, size_bytes: int, timeout_s: float) -> None:
        """Have the server map /dev/shm/`key`, or with no size, unmap it."""
        url = f"{self._root}/v2/systemsharedmemory/region/{region}/{'register' if size_bytes else 'unregister'}"
        body = json.dumps({"key": key, "offset": 0, "byte_size": size_bytes}).encode() if size_bytes else b""
        _told("shared", *self._send("POST", url, time.monotonic() + timeout_s, body, self._ask_headers()))

    def alive(self, timeout_s: float) -> bool:
        """Whether it answers."""
        with suppress(Failure):
            return bool(self.ask("live", timeout_s))
        return False

    def close(self) -> None:
        self._pool.clear()

    def _send(
        self, method: str, url: str, deadline: float, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        _deadline.at = deadline
        remaining_s = max(1e-3, deadline - time.monotonic())
        timeout = urllib3.Timeout(connect=min(_CONNECT_S, remaining_s), read=remaining_s)
        try:
            response = self._pool.urlopen(
                method, url, body=body, headers=headers, timeout=timeout, decode_content=False, redirect=False
            )
        except (urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
            raise Failure(Kind.EXPIRED, "no answer in time") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Failure(Kind.UNREACHABLE, str(error)) from error
        return response.status, response.data, response.headers


class AsyncHttp(_Messages):
    """For the event loop in which it is made."""

    def __init__(self, address: Address, transport: Transport) -> None:
        super().__init__(address, transport)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            auto_decompress=False,
        )

    async def infer(self, request: Request, timeout_s: float) -> Arrays:
        url, body, headers = self._infer_message(request, timeout_s)
        return _answer(request, *await self._send("POST", url, timeout_s, body, headers))

    async def ask(self, question: Question, timeout_s: float, model: str = "", version: str = "") -> Any:
        method, url = self._ask_message(question, model, version)
        return _told(question, *await self._send(method, url, timeout_s, b"", self._ask_headers()))

    async def alive(self, timeout_s: float) -> bool:
        """Whether it answers."""
        with suppress(Failure):
            return bool(await self.ask("live", timeout_s))
        return False

    async def close(self) -> None:
        await self._session.close()

    async def _send(
        self, method: str, url: str, timeout_s: float, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(method, url, data=body, headers=headers, proxy=self._proxy) as response,
            ):
                return response.status, await response.read(), response.headers
        except aiohttp.ConnectionTimeoutError as error:
            raise Failure(Kind.UNREACHABLE, "no connection in time") from error
        except TimeoutError as error:
            raise Failure(Kind.EXPIRED, "no answer in time") from error
        except aiohttp.ClientResponseError as error:
            raise Failure(Kind.BAD_ANSWER, f"it is no HTTP: {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failure(Kind.UNREACHABLE, str(error) or type(error).__name__) from error


class _Deadline(threading.local):
    at = math.inf  # of the request that this thread is waiting for


_deadline = _Deadline()


class _Socket(socket.socket):
    """Every read ends at the deadline. urllib3's timeouts begin anew with each, and a byte now and then would do."""

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(max(1e-3, _deadline.at - time.monotonic()))
        return super().recv_into(*arguments, **options)


class _TlsSocket(ssl.SSLSocket):
    """The same."""

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(max(1e-3, _deadline.at - time.monotonic()))
        return super().recv_into(*arguments, **options)


class _Connection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _Socket(fileno=super()._new_conn().detach())


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


def _model_path(model: str) -> str:
    return f"/models/{quote(model, safe='')}"


def _input(name: str, array: NDArray[Any], request: Request) -> Any:
    tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return placed(tensor, array, request.places.get(name))


def _answer(request: Request, status: int, body: bytes, headers: Mapping[str, str]) -> Arrays:
    if status != 200:
        raise of_http(status, _reason(body))
    try:
        length = headers.get(_LENGTH)
        result = InferenceServerClient.parse_response_body(
            body, header_length=int(length) if length else None, content_encoding=headers.get("Content-Encoding")
        )
        response = result.get_response()
        names = [output["name"] for output in response["outputs"]]
        return request.answered({name: result.as_numpy(name) for name in names}, response.get("id", ""))
    except _UNREADABLE as error:
        raise Failure(Kind.BAD_ANSWER, f"it cannot be read: {error}") from error


def _told(question: Question, status: int, body: bytes, headers: Mapping[str, str]) -> Any:
    if question in ("live", "ready") and status in (200, 400):
        return status == 200
    if status != 200:
        raise of_http(status, _reason(body))
    try:
        return json.loads(body) if body else None
    except ValueError as error:
        raise Failure(Kind.BAD_ANSWER, f"it is no JSON: {error}") from error


def _reason(body: bytes) -> str:
    """Triton's, or the first line of whatever stands between."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"])
    return body.decode(errors="replace").strip().partition("\n")[0][:200]


def _proxy_of_the_environment(address: Address) -> str | None:
    return None if proxy_bypass(address.netloc) else getproxies().get("https" if address.tls else "http")
