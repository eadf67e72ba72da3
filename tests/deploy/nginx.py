"""The real nginx with the shipped configuration, for tests."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts import layout
from tests.conftest import MODEL, free_ports, wait_for
from tests.deploy.certificates import Authority
from tests.packages import unpack

CONFIGURATION = layout.ROOT / "deploy" / "nginx" / "nginx.conf"
NOBODY_HOME = "127.0.0.1:1"  # where nothing listens
INFER = f"/v2/models/{MODEL}/infer"
_CONFIGURED = {"max_batch_size": 0, "input": [{"name": "IN", "data_type": "TYPE_UINT8", "dims": [-1]}]}
REQUEST = json.dumps(
    {"inputs": [{"name": "IN", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}}]}
).encode()
SIZED = {"Inference-Header-Content-Length": str(len(REQUEST))}  # REQUEST + b"abc" is one that this model takes
MODULE = "ngx_http_js_module.so"
_INSTALLED = Path("/usr/lib/nginx/modules")
_PACKAGES = ("nginx", "libnginx-mod-http-js")
_UNPACKED = layout.artifacts() / "tools" / "nginx-js"


@dataclass(frozen=True)
class Proxy:
    """A running nginx."""

    folder: Path
    authority: Authority  # of its certificate and, if it asks for theirs, of its clients'
    https_port: int
    grpc_port: int

    @property
    def https(self) -> str:
        return f"localhost:{self.https_port}"

    @property
    def grpc(self) -> str:
        return f"localhost:{self.grpc_port}"

    def processes(self) -> list[psutil.Process]:
        """The master and its workers."""
        master = psutil.Process(int((self.folder / "nginx.pid").read_text()))
        return [master, *master.children()]

    @property
    def log(self) -> list[str]:
        """The lines of its access log. Half of one may be seen while nginx writes it: then all are read again."""
        while (text := (self.folder / "access.log").read_text()) and not text.endswith("\n"):
            time.sleep(0.01)
        return text.splitlines()

    def connect(self) -> HTTPSConnection:
        """A connection of a client that trusts the proxy's authority."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        return HTTPSConnection("localhost", self.https_port, context=context, timeout=30)


class Upstream(ThreadingHTTPServer):
    """In Triton's place: keeps the headers and body of what reaches it, and answers when `answers` is set.

    Its only model takes as many bytes as they come.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.connections = 0
        self.received: list[tuple[Message, bytes]] = []  # of what was posted
        self.asked: list[str] = []  # what was not
        self.configured: dict[str, Any] | None = dict(_CONFIGURED)  # its model; None is not there
        self.answers = threading.Event()
        self.answers.set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        configured = self.server.configured
        self._respond(json.dumps(configured or {"error": "unknown"}).encode(), 200 if configured else 400)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.received.append((self.headers, body))
        self.server.answers.wait(30)
        self._respond(b"")

    def _respond(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


def ask(
    connection: HTTPConnection,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    path: str = INFER,
) -> tuple[int, str]:
    """Status and reason of a request that is refused, or its status and an empty text."""
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    if response.status == 200:
        return 200, ""
    return response.status, json.loads(text)["error"]


@contextmanager
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.answers.set()
            server.shutdown()
            thread.join()


def install(folder: Path, changes: Mapping[str, str]) -> Authority:
    """A folder as docs/how-to/secure.md describes it: nginx.conf with `changes`, and certs/.

    Args:
        changes: From text that is in the configuration exactly once.
    """
    authority = Authority(folder / "certs", "clients")
    authority.issue("server")
    shutil.copytree(CONFIGURATION.parent / "front", folder / "front")
    configuration = CONFIGURATION.read_text()
    configuration = configuration.replace(str(_INSTALLED / MODULE), str(modules() / MODULE))
    for shipped, wanted in changes.items():
        assert configuration.count(shipped) == 1, shipped
        configuration = configuration.replace(shipped, wanted)
    (folder / "nginx.conf").write_text(configuration)
    return authority


def command(folder: Path) -> list[str | Path]:
    return [executable(), "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"]


@contextmanager
def proxy(
    folder: Path, http: str, grpc: str = NOBODY_HOME, changes: Mapping[str, str] | None = None
) -> Iterator[Proxy]:
    """nginx in front of a Triton at these two addresses, with further `changes` to its configuration."""
    https_port, grpc_port = free_ports(2)
    addresses = {"listen 8443": f"listen {https_port}", "listen 8444": f"listen {grpc_port}"}
    addresses |= {"server 127.0.0.1:8000": f"server {http}", "server 127.0.0.1:8001": f"server {grpc}"}
    authority = install(folder, {**(changes or {}), **addresses})
    with (folder / "error.log").open("wb") as error:
        # Root's nginx works as nobody, who cannot reach pytest's folders.
        same_user = ["-g", "user root;"] if os.geteuid() == 0 else []
        process = subprocess.Popen([*command(folder), *same_user], stderr=error)
    try:
        wait_for(lambda: process.poll() is not None or (_listens(https_port) and _listens(grpc_port)), 10)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield Proxy(folder, authority, https_port, grpc_port)
    finally:
        process.terminate()
        process.wait(10)


def executable() -> Path:
    """nginx from PATH, else Debian's, unpacked once into artifacts/tools, which needs no root."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found and (_INSTALLED / MODULE).exists():
        return Path(found)
    if not _UNPACKED.exists():
        try:
            unpack(_PACKAGES, _UNPACKED, check=_runs)
        except OSError as error:
            install = f"sudo apt-get update && sudo apt-get install {' '.join(_PACKAGES)}"
            pytest.fail(f"this needs nginx: {install}\n{error}")
    return _UNPACKED / "usr" / "sbin" / "nginx"


def modules() -> Path:
    """Where the modules of that nginx are."""
    nginx = executable()
    return nginx.parents[2] / _INSTALLED.relative_to("/") if _UNPACKED in nginx.parents else _INSTALLED


def _runs(unpacked: Path) -> None:
    """Raise an OSError where that nginx misses a library of this machine: Debian 13's module needs libxml2."""
    for linked in (unpacked / "usr" / "sbin" / "nginx", unpacked / _INSTALLED.relative_to("/") / MODULE):
        said = subprocess.run(["ldd", linked], check=False, capture_output=True, text=True).stdout
        if missing := [line.strip() for line in said.splitlines() if "not found" in line]:
            raise OSError("; ".join(missing))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
