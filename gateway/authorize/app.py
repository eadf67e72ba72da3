"""`/authorize`: may this request pass? Asked by a proxy that carries the bytes itself, on the request's headers alone.

    /authorize             nginx, auth_request: the request is described in X-Original-Method and X-Original-URI
    /authorize/the/path    Envoy, ext_authz over HTTP: the request's own method, path and headers; whoever asks Envoy
                           may have set X-Original-URI, so it means nothing here

It knows key, scope and the quota of requests; no rows, no record, no arm, no deadline. Over gRPC the model is in the
body, so only a key that may ask every model passes.

    200    it may; `RateLimit-*` are for the answer, X-Gateway-Key says whose key it was
    401, 403, 429, 503    it may not. nginx takes no other statuses than 401 and 403 from here: what it should say
                          stands in X-Refused-Status and X-Refused-Reason, too
"""

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.brain.decide import Brain
from gateway.errors import Refusal
from gateway.raw import paths, replies
from gateway.raw.headers import Given

PREFIX = b"/authorize"
EVERY_MODEL = "*"
_INFER_GRPC = b"/inference.GRPCInferenceService/ModelInfer"
_ABOUT_GRPC = (
    *(b"/inference.GRPCInferenceService/" + name for name in (b"ServerLive", b"ServerReady", b"ServerMetadata")),
    *(b"/inference.GRPCInferenceService/" + name for name in (b"ModelReady", b"ModelMetadata", b"ModelConfig")),
    b"/grpc.health.v1.Health/Check",
)
_OF_NGINX = (401, 403)
_NOT_IN_A_HEADER = re.compile(r"[^ !#-\[\]-~]")  # nor in the JSON that nginx makes of it

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Authorize:
    """An ASGI application."""

    def __init__(self, brain: Brain) -> None:
        self._brain = brain

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: replies.Send) -> None:
        """Decide."""
        request_id = os.urandom(16).hex()
        by_nginx = scope["raw_path"] == PREFIX
        try:
            headers = await self._decide(scope, by_nginx)
        except Refusal as refusal:
            self._brain.metrics.refused("authorize", refusal, request_id)
            await _refuse(send, refusal, request_id, by_nginx)
            return
        await replies.reply(send, 200, b"", {**headers, "X-Request-ID": request_id})

    async def _decide(self, scope: MutableMapping[str, Any], by_nginx: bool) -> dict[str, str]:
        brain = self._brain
        if by_nginx:
            given = dict(scope["headers"])  # nginx sets each of them once
            method = given.get(b"x-original-method", b"").decode("latin-1")
            uri, query, _ = given.get(b"x-original-uri", b"").partition(b"?")
        else:
            method, uri, query = scope["method"], scope["raw_path"].removeprefix(PREFIX), scope["query_string"]
        if query or (asked := _asked(method, uri)) is None:
            raise Refusal(403, "closed", "This API is not open", "only health, metadata and infer of a model are")
        model, action = asked
        caller = await brain.access.check(Given.of(scope["headers"]).authorization)
        headers = {"X-Gateway-Key": caller.key_id or ""}
        if model == EVERY_MODEL:
            brain.access.permit(caller, EVERY_MODEL, action)
        elif model:
            await brain.model(caller, model, None, action)
        if action == "infer":
            headers |= await brain.access.spend(caller, model, 0)
        return headers


def _asked(method: str, uri: bytes) -> tuple[str, str] | None:
    """Return the model that a request is about, "" for none and "*" for any, and the action; None if it is closed."""
    if method == "POST" and uri == _INFER_GRPC:
        return EVERY_MODEL, "infer"
    if method == "POST" and uri in _ABOUT_GRPC:
        return EVERY_MODEL, "read"
    path = paths.read(method, uri)
    if path is None:
        return None
    return path.model, "infer" if path.what == "infer" else "read"


async def _refuse(send: replies.Send, refusal: Refusal, request_id: str, by_nginx: bool) -> None:
    more = {"X-Request-ID": request_id}
    if not by_nginx:
        await replies.refuse(send, refusal, more)
        return
    reason = _NOT_IN_A_HEADER.sub("?", f"{refusal.title}: {refusal.detail}".replace('"', "'"))
    more |= {"X-Refused-Status": str(refusal.status), "X-Refused-Reason": reason}
    status = refusal.status if refusal.status in _OF_NGINX else 403
    await replies.reply(send, status, b"", {**more, **refusal.all_headers})
