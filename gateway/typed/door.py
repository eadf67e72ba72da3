"""The typed door: an ASGI app made of its parts, and the problem details (RFC 9457) of whatever goes wrong in it."""

import logging
import os
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.errors import Refusal
from gateway.refusals import BUG, MALFORMED, MEDIA_TYPE, NO_METHOD, NOT_FOUND, Kind, problem
from gateway.seen import logs
from gateway.typed import admin, models, openapi, records
from gateway.typed.parts import Parts, caller_of, parts_of

_ABOUT = "Models, asked by rows, files, texts or entities. Errors are problem details (RFC 9457)."
_BODIES: dict[str, type[BaseModel]] = {
    "send_feedback": records.Labels,
    "send_events": records.Events,
    "create_key": admin.NewKey,
    "rotate_key": admin.Rotation,
}
log = logging.getLogger("gateway.typed")


def app(parts: Parts) -> FastAPI:
    """Make the door of its parts."""
    made = FastAPI(
        title="Models", description=_ABOUT, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    made.state.parts = parts
    made.add_middleware(_Named)
    for router in (models.router, records.router, admin.router):
        made.include_router(router)
    made.add_api_route("/openapi.json", _document, include_in_schema=False)
    made.add_api_route("/problems/{slug}", _about_problem, include_in_schema=False)
    made.add_exception_handler(Refusal, _refused)
    made.add_exception_handler(HTTPException, _http)
    made.add_exception_handler(RequestValidationError, _invalid)
    made.add_exception_handler(ClientDisconnect, _gone)
    made.add_exception_handler(Exception, _failed)
    return made


class _Named:
    """Gives a request its id as it arrives: that of its record, of its lines in the log, and of its answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        logs.request_id.set(os.urandom(16).hex())
        await self._app(scope, receive, send)


def answer(refusal: Refusal) -> Response:
    """Return the answer of a refusal."""
    request_id = logs.request_id.get()
    headers = {"x-request-id": request_id, **refusal.all_headers}
    return Response(to_json(problem(refusal, request_id)), refusal.status, headers, MEDIA_TYPE)


async def _document(request: Request) -> Response:
    """Write the OpenAPI document of the models that the key may read."""
    parts = parts_of(request)
    caller = await caller_of(request)
    listed = await parts.catalog.all(caller)
    found = openapi.document(request.app, listed, str(request.base_url).rstrip("/"), _BODIES)
    return Response(to_json(found), media_type="application/json")


async def _about_problem(slug: str) -> Response:
    """Say what a kind of problem is: where its `type` leads."""
    from gateway import refusals

    for kind in vars(refusals).values():
        if isinstance(kind, Kind) and kind.slug == slug:
            return Response(f"{kind.title} (HTTP {kind.status}): {kind.remedy}.\n", media_type="text/plain")
    raise NOT_FOUND("there is no such problem")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    parts_of(request).brain.metrics.refused("typed", error, logs.request_id.get())
    return answer(error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: NOT_FOUND, 405: NO_METHOD}.get(error.status_code)
    if known is not None:
        detail = f"{request.method} {request.url.path[:200]}"
        return answer(known(detail, headers=dict(error.headers or {})))
    title = HTTPStatus(error.status_code).phrase
    return answer(Refusal(error.status_code, "http", title, str(error.detail), headers=dict(error.headers or {})))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return answer(MALFORMED(f"{'/'.join(map(str, first['loc']))}: {first['msg']}"))


async def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _failed(request: Request, error: Exception) -> Response:
    log.error("a bug: %s %s", request.method, request.url.path, exc_info=error)
    return answer(BUG("the gateway has a fault, which it has logged"))
