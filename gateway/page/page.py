"""The page at /: three files, as they lie here, under a policy that lets them load and ask nothing from elsewhere."""

import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_PATHS = {"/": "index.html", **{f"/{name}": name for name in ("page.css", "page.js", "code.js", "forms.js")}}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Page:
    """An ASGI app of the page's files, read once."""

    def __init__(self) -> None:
        self._files = {path: _file(_FOLDER / name) for path, name in _PATHS.items()}

    def has(self, path: str) -> bool:
        """Tell whether a path is the page's."""
        return path in self._files

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        """Send a file; to who has it already, that it has not changed."""
        content, headers, etag = self._files[scope["path"]]
        given = dict(scope["headers"]).get(b"if-none-match", b"")
        status = 304 if given == etag else 200 if scope["method"] in ("GET", "HEAD") else 405
        body = content if status == 200 and scope["method"] == "GET" else b""
        length = [(b"content-length", str(len(content) if status == 200 else 0).encode())] if status != 304 else []
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
        await send({"type": "http.response.body", "body": body})


def _file(path: Path) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "content-type": f"{_TYPES[path.suffix]}; charset=utf-8", "etag": etag}
    return content, [(name.encode(), value.encode()) for name, value in headers.items()], etag.encode()
