"""What a door of the Open Inference Protocol says itself, in Triton's form: `{"error": …}`."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.errors import Refusal

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
# Of a request's scope, an extension of gateway/running/connections.py: answers at once, or says that it cannot.
ANSWER = "gateway.answer"
Answer = Callable[[int, Mapping[str, str], bytes], bool]


def _cannot(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    return False


def at_once(scope: Mapping[str, Any]) -> Answer:
    """Return what answers a request at once where the server can."""
    found: Answer = (scope.get("extensions") or {}).get(ANSWER, _cannot)
    return found


async def refuse(send: Send, refusal: Refusal, more: Mapping[str, str] | None = None) -> None:
    """Answer with a refusal."""
    said = json.dumps({"error": f"{refusal.title}: {refusal.detail}"}).encode()
    headers = {**(more or {}), **refusal.all_headers}
    await reply(send, refusal.status, said, headers)


async def reply(send: Send, status: int, content: bytes, more: Mapping[str, str]) -> None:
    """Answer with JSON, or nothing."""
    kind = {"Content-Type": "application/json"} if content else {}
    await start(send, status, {**kind, "Content-Length": str(len(content)), **more})
    await send({"type": "http.response.body", "body": content})


async def start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Begin an answer."""
    await send({"type": "http.response.start", "status": status, "headers": written(headers)})


def written(headers: Mapping[str, str]) -> Headers:
    """Return headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
