"""The raw door: `/v2/…`, the Open Inference Protocol with Triton's binary extension.

A bare ASGI application: a framework's routes cost a request more than all that is done here.
"""

import asyncio
import os
from collections.abc import MutableMapping
from typing import Any

from gateway.brain.decide import Brain
from gateway.errors import Refusal, UpstreamError
from gateway.raw import paths, replies
from gateway.raw.body import CallerGone, Limits, Receive
from gateway.raw.headers import Given
from gateway.raw.infer import Call, infer
from gateway.raw.paths import Path
from gateway.raw.replies import Send
from gateway.seen import logs

_LONGEST_S = 5.0  # to be told about a model
_OPEN = "only health, metadata, configuration, statistics and infer of a model are"


class RawDoor:
    """An ASGI application."""

    def __init__(self, brain: Brain, limits: Limits | None = None) -> None:
        self._brain = brain
        self._limits = limits or Limits()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        request_id = os.urandom(16).hex()
        logs.request_id.set(request_id)
        try:
            path = paths.read(scope["method"], scope["raw_path"]) if not scope["query_string"] else None
            if path is None:
                raise Refusal(403, "closed", "This API is not open", _OPEN)
            given = Given.of(scope["headers"])
            if path.what == "infer":
                call = Call(path, given, request_id, receive, send, replies.at_once(scope))
                await infer(self._brain, self._limits, call)
            else:
                await self._answer(path, given, request_id, send)
        except Refusal as refusal:  # no answer has begun
            self._brain.metrics.refused("raw", refusal, request_id)
            await replies.refuse(send, refusal, {"X-Request-ID": request_id})
        except (CallerGone, UpstreamError, TimeoutError):
            return  # nobody is there to be told, or an answer broke off: closing the connection says so

    async def _answer(self, path: Path, given: Given, request_id: str, send: Send) -> None:
        if path.what == "live":
            await replies.reply(send, 200, b"", {})
        elif path.what == "ready":
            report = await self._brain.readiness.report()
            await replies.reply(send, report.status, report.json, {})
        else:
            await self._about(path, given, request_id, send)

    async def _about(self, path: Path, given: Given, request_id: str, send: Send) -> None:
        """Pass on what Triton says of itself or of a model: nothing in it is a caller's."""
        brain = self._brain
        caller = await brain.access.check(given.authorization)
        if path.model:
            await brain.model(caller, path.model, path.version, "read")
        try:
            async with await brain.endpoints.get(path.text, asyncio.get_running_loop().time() + _LONGEST_S) as answer:
                content = await answer.read()
                kept = {name: answer.headers[name] for name in ("content-type",) if name in answer.headers}
                headers = {**kept, "Content-Length": str(len(content)), "X-Request-ID": request_id}
                await replies.start(send, answer.status, headers)
                await send({"type": "http.response.body", "body": content})
        except UpstreamError as error:
            detail = "no server answers what was asked about it"
            raise Refusal(503, "server-unavailable", "No server answers", detail, retry_after_s=1.0) from error
