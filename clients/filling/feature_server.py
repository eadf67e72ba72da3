"""Feast's feature server, asked over HTTP, by threads or from asyncio. One that does not answer costs no prediction.

features = FeatureServer("http://127.0.0.1:6566")
entities = Entities.of_release(Path("model_repository/NETWORK/VERSION"), features)
print(features.counts)

It has little time: what it would say is needed before a request, and there is a fallback. After a failure nobody asks
it for some seconds, so that one that hangs costs each of many requests nothing.
"""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import aiohttp

from clients.core.failures import Failure, Kind
from clients.errors import InvalidInputError
from clients.filling import features
from clients.filling.features import Asked
from clients.settings import CONNECT_S, Address, TransportOptions, proxy_for
from clients.transports.http_pool import Pool
from contracts.entities.filling import Question
from contracts.entities.tables import Found

PORT = 6566  # Feast's own
TIMEOUT_S = 0.5
REST_S = 2.0  # after a failure
_MOST_BYTES = 64 << 20  # of a response
_HEADERS = {"content-type": "application/json"}


class _Told:
    """What both have in common: where it is, what was counted, and whether it is left alone for now.

    Attributes:
        counts: {(view, why): rows}; "" are those that the server answered, the others fell back.
        failure: Why it did not answer the last time that it was asked; "" where it did.
    """

    def __init__(self, url: str, timeout_s: float | None, transport: TransportOptions | None) -> None:
        self.address, self._options = _address(url), transport or TransportOptions()
        self.timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
        self.counts: Counter[tuple[str, str]] = Counter()
        self.failure = ""
        self._rests_until, self._lock = 0.0, threading.Lock()
        self._proxy = proxy_for(self.address, self._options)
        self._tls = self._options.tls.context() if self.address.tls else None
        self._headers = {**_HEADERS, **self._options.headers}

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until

    def _read(self, asked: Asked, status: int, content: bytes) -> list[Found]:
        if status != 200:
            start = content[:200].decode(errors="replace")
            raise Failure(Kind.SERVER_ERROR, f"HTTP {status}: {start}")
        try:
            return features.answered(asked, content)
        except ValueError as error:
            raise Failure(Kind.INVALID_RESPONSE, str(error)[:300]) from error

    def _failed(self, asked: Asked, failure: Failure) -> list[Found]:
        self.failure, self._rests_until = failure.message, time.monotonic() + REST_S
        return [features.unanswered(question) for question in asked.questions]

    def _counted(self, groups: Sequence[Asked], found: Sequence[Sequence[Found]]) -> dict[int, Found]:
        """Return {id of a question: what was found}, and count it."""
        questions = [question for asked in groups for question in asked.questions]
        flat = [rows for group in found for rows in group]
        with self._lock:
            self.counts.update(features.counted(questions, flat))
        return {id(question): rows for question, rows in zip(questions, flat, strict=True)}


class FeatureServer(_Told):
    """A feature server for threads.

    Args:
        url: http://HOST:PORT, or https://.
        timeout_s: For an answer, the connection included; None: half a second.
        transport: Headers, such as a token, and TLS.

    Raises:
        InvalidInputError: it is no such URL.
    """

    def __init__(self, url: str, timeout_s: float | None = None, transport: TransportOptions | None = None) -> None:
        super().__init__(url, timeout_s, transport)
        self._pool = Pool(self.address, self._tls, self._proxy, _MOST_BYTES)

    def answer(self, questions: Sequence[Question]) -> dict[int, Found]:
        """Answer questions, {id of each: what was found}; what fell back says so."""
        groups = features.requests(questions)
        return self._counted(groups, [self._ask(asked) for asked in groups])

    def _ask(self, asked: Asked) -> list[Found]:
        if self._rests:
            return [features.unanswered(question) for question in asked.questions]
        try:
            deadline = time.monotonic() + self.timeout_s
            response = self._pool.send("POST", features.PATH, deadline, asked.body, self._headers)
            found = self._read(asked, response.status, response.body)
        except Failure as failure:
            return self._failed(asked, failure)
        self.failure = ""
        return found

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncFeatureServer(_Told):
    """A feature server for one event loop; the arguments are FeatureServer's."""

    def __init__(self, url: str, timeout_s: float | None = None, transport: TransportOptions | None = None) -> None:
        super().__init__(url, timeout_s, transport)
        self._session: aiohttp.ClientSession | None = None

    async def answer(self, questions: Sequence[Question]) -> dict[int, Found]:
        """Answer questions, {id of each: what was found}; what fell back says so."""
        groups = features.requests(questions)
        return self._counted(groups, [await self._ask(asked) for asked in groups])

    async def _ask(self, asked: Asked) -> list[Found]:
        if self._rests:
            return [features.unanswered(question) for question in asked.questions]
        try:
            found = self._read(asked, *await self._send(asked.body))
        except Failure as failure:
            return self._failed(asked, failure)
        self.failure = ""
        return found

    async def _send(self, body: bytes) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                headers=self._headers,
            )
        proxy = self._proxy.geturl() if self._proxy else None
        try:
            async with (
                asyncio.timeout(self.timeout_s),
                self._session.post(
                    str(self.address) + features.PATH, data=body, proxy=proxy, allow_redirects=False
                ) as response,
            ):
                content = await response.content.read(_MOST_BYTES + 1)
                while len(content) <= _MOST_BYTES and (more := await response.content.read(_MOST_BYTES)):
                    content += more
                return response.status, content
        except TimeoutError as error:
            raise Failure(Kind.DEADLINE_EXCEEDED, "no response in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failure(Kind.UNAVAILABLE, str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Close its connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            await self.close()


def _address(url: str) -> Address:
    """Read where it is; without a port, Feast's."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInputError(f"{url!r} is no feature server", hint=f"http://HOST:{PORT}")
    scheme, _, rest = url.rstrip("/").partition("://")
    has_port = rest.rpartition(":")[2].isdigit() and not rest.endswith("]")
    return Address.of(f"{scheme}://{rest}" if has_port or scheme == "https" else f"{scheme}://{rest}:{PORT}")
