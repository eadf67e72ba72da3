"""Between Triton and the receiver of its spans: takes them at once, passes them on, drops what it cannot pass on.

Triton 2.51 can send spans itself, but a receiver that is down now and then ends it with a segmentation fault (2 of 24
runs of 600 requests, 3 of 6 under full load; here none of 26), and one that hangs delays its stop by ten seconds for
every 512 spans. So it sends them here, to the process that keeps it up, which never refuses and never hangs.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote
from urllib.request import Request, urlopen

from deploy.errors import SettingsError
from deploy.triton.settings import Traces

_WAITING = 64  # batches, of 512 spans at most each, some 200 kB
_TIMEOUT_S = 5
_FAREWELL_S = 2  # for what is left at the end
_COMPLAIN_EVERY_S = 60
_OURS = {"host", "connection", "content-length", "accept"}  # headers of one connection; all others are passed on
# Keys, often: they are added here, so that models do not get them. The second goes before the first.
_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")


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
    added = _headers(os.environ)
    lost = _seldom(lambda why: warn(f"spans are lost: {traces.endpoint} {why}"))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                given = {name: value for name, value in self.headers.items() if name.lower() not in _OURS}
                waiting.put_nowait(_Batch(body, given | added))
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


def _headers(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the environment asks for: "name=value,name=value", in percent-encoding.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter
    """
    entries = [entry.partition("=") for name in _HEADERS for entry in environment.get(name, "").split(",")]
    return {unquote(name).strip(): unquote(value).strip() for name, _, value in entries if name.strip()}


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
