"""One server over HTTP, for threads and for asyncio (aiohttp). Both raise a Failure where there is no response."""

import asyncio
import time
from typing import Any

import aiohttp

from clients.core.answer import Answer
from clients.core.failures import Failure, Kind, failure_of, message_too_large
from clients.core.request import Query, Request
from clients.settings import CONNECT_S, Address, TransportOptions, proxy_for
from clients.transports import http_messages as messages
from clients.transports.base import Renewable, Transport, caller_is_cancelled, connection_closed
from clients.transports.http_messages import Message
from clients.transports.http_pool import Pool, Response


class HttpTransport(Transport):
    """A transport for threads."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        self._options = options
        tls = options.tls.context() if address.tls else None
        self._pool = Pool(address, tls, proxy_for(address, options), options.max_message_bytes)

    def infer(self, request: Request, timeout_s: float) -> Answer:
        """As Transport.infer."""
        deadline = time.monotonic() + timeout_s
        method, path, body, headers = messages.infer_message(request, deadline, self._options)
        return messages.answer_of(request, self._pool.send(method, path, deadline, body, headers), self._options)

    def query(self, query: Query, timeout_s: float) -> Any:
        """As Transport.query."""
        deadline = time.monotonic() + timeout_s
        method, path, body, headers = messages.query_message(query, self._options)
        return messages.json_of(query, self._pool.send(method, path, deadline, body, headers), self._options)

    def reconnect(self) -> None:
        """As Transport.reconnect: idle connections may be dead, and would be tried one after the other."""
        self._pool.drop_idle()

    def close(self) -> None:
        """As Transport.close."""
        self._pool.close()


class AsyncHttpTransport(Transport):
    """A transport for asyncio."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        self._options = options
        self._tls = options.tls.context() if address.tls else None
        proxy = proxy_for(address, options)
        self._root, self._proxy_url = str(address), proxy.geturl() if proxy else None
        self._session = Renewable(self._new_session)

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            headers={"accept-encoding": "identity"},  # aiohttp would ask for gzip, and Triton would oblige
        )

    async def infer(self, request: Request, timeout_s: float) -> Answer:
        """As Transport.infer."""
        deadline = time.monotonic() + timeout_s
        message = messages.infer_message(request, deadline, self._options)
        self._session.keep_until(deadline)
        return messages.answer_of(request, await self._send(message, deadline), self._options)

    async def query(self, query: Query, timeout_s: float) -> Any:
        """As Transport.query."""
        deadline = time.monotonic() + timeout_s
        if query.endpoint != "live":  # nobody waits for a probe on a session that was replaced
            self._session.keep_until(deadline)
        message = messages.query_message(query, self._options)
        return messages.json_of(query, await self._send(message, deadline), self._options)

    async def reconnect(self) -> None:
        """As Transport.reconnect."""
        for session in self._session.replace():
            await session.close()

    async def close(self) -> None:
        """As Transport.close."""
        for session in self._session.retire_all():
            await session.close()

    async def _send(self, message: Message, deadline: float) -> Response:
        try:
            async with (
                asyncio.timeout(deadline - time.monotonic()),
                self._session.current.request(
                    message.method,
                    self._root + message.path,
                    data=message.body,
                    headers=message.headers,
                    proxy=self._proxy_url,
                    allow_redirects=False,  # the headers, keys among them, are for this server
                ) as response,
            ):
                content = await _content(response, self._options.max_message_bytes)
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


async def _content(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    if response.content_length is not None and response.content_length <= limit_bytes:
        return await response.read()
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > limit_bytes:
            raise message_too_large("the response", limit_bytes)
    return bytes(content)
