"""Whatever goes wrong at the typed door, its answer has the id that the log's lines have."""

import asyncio
import json
import logging
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.seen import logs
from gateway.typed import door
from gateway.typed.parts import Parts


async def _fails(_: str | None) -> None:
    raise ZeroDivisionError("a fault of ours")


async def _said(path: str) -> dict[str, Any]:
    parts = cast(Parts, SimpleNamespace(access=SimpleNamespace(check=_fails)))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "server": ("x", 80)}
    with suppress(ZeroDivisionError):  # what serves the app is told of it, too
        await door.app(parts)(scope, receive, send)
    headers = dict(sent[0]["headers"])
    found: dict[str, Any] = json.loads(b"".join(each.get("body", b"") for each in sent))
    assert headers[b"x-request-id"].decode() == found["request_id"]
    return found


@pytest.mark.parametrize(("path", "status"), [("/v1/models", 500), ("/nothing", 404)])
def test_an_error_has_the_id_of_its_line(path: str, status: int) -> None:
    ids: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda _: ids.append(logs.request_id.get())  # type: ignore[method-assign]  # as the log's lines have it
    door.log.addHandler(handler)
    try:
        found = [asyncio.run(_said(path)) for _ in range(2)]
    finally:
        door.log.removeHandler(handler)
    assert found[0]["status"] == status and found[0]["request_id"] != found[1]["request_id"]
    assert ids == ([each["request_id"] for each in found] if status == 500 else [])
