"""Between Triton and the receiver of its spans: takes them at once, passes them on, drops what it cannot pass on.

Triton 2.51 can send spans itself, but a receiver that is down now and then ends it with a segmentation fault (2 of 24
runs of 600 requests, 3 of 6 under full load; here none of 26), and one that hangs delays its stop by ten seconds for
every 512 spans. So it sends them here, to the process that keeps it up, which never refuses and never hangs.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

from deploy.errors import SettingsError
from deploy.triton.settings import Traces

_WAITING = 64  # batches, of 512 spans at most each, some 200 kB
_TIMEOUT_S = 5
_FAREWELL_S = 2  # for what is left at the end
_COMPLAIN_EVERY_S = 60
_OURS = {"host", "connection", "content-length", "accept"}  # headers of one connection; all others are passed on


@dataclass(frozen=True)
class _Batch:
    body: bytes
    headers: Mapping[str, str]


@contextmanager
def relaying(traces: Traces | None, warn: Callable[[str], None]) -> Iterator[Traces | None]:
    """Relay spans while the block runs; yield what Triton shall be told for them to end up where `traces` says.

    Args:
        warn: Is told of spans that were lost, once a minute.

    Raises:
        SettingsError: the endpoint is no address of HTTP.
    """
    if traces is None:
        yield None
        return
    if not traces.endpoint.startswith(("http://", "https://")):
        raise SettingsError(f"{traces.endpoint} is no OTLP endpoint", hint="as in http://localhost:4318/v1/traces")
    waiting: queue.Queue[_Batch | None] = queue.Queue(_WAITING)
    lost = _seldom(lambda why: warn(f"spans are lost: {traces.endpoint} {why}"))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                waiting.put_nowait(_Batch(body, {k: v for k, v in self.headers.items() if k.lower() not in _OURS}))
            except queue.Full:
                lost("is too slow")
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sender = threading.Thread(target=_pass_on, args=(waiting, traces.endpoint, lost), daemon=True)
        for thread in (sender, threading.Thread(target=server.serve_forever, daemon=True)):
            thread.start()
        try:
            yield replace(traces, endpoint=f"http://127.0.0.1:{server.server_port}/v1/traces")
        finally:
            server.shutdown()
            with suppress(queue.Full):
                waiting.put_nowait(None)
                sender.join(_FAREWELL_S)


def _pass_on(waiting: "queue.Queue[_Batch | None]", endpoint: str, lost: Callable[[str], None]) -> None:
    while (batch := waiting.get()) is not None:
        try:
            with urlopen(Request(endpoint, batch.body, dict(batch.headers)), timeout=_TIMEOUT_S):  # noqa: S310  # http
                pass
        except (OSError, HTTPException) as error:
            lost(f"does not take them: {error}")


def _seldom(say: Callable[[str], None]) -> Callable[[str], None]:
    again_at = 0.0

    def said(message: str) -> None:
        nonlocal again_at
        if time.monotonic() >= again_at:
            again_at = time.monotonic() + _COMPLAIN_EVERY_S
            say(message)

    return said
